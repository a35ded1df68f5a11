"""A value shared by CrypTen goes through the masked protocol and back: the sharing is the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from two_parties import Side, run_two

from pibench.errors import UsageError
from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.lowering.program import Conv, Input, Linear, Program, Relu
from pibench.mpc.protocol import CLIENT, SERVER, Party, protocol_class

SHAPE = (2, 4, 4)


def network() -> tuple[Program, dict[str, torch.Tensor]]:
    ops = (
        Input(name="input", inputs=(), shape=SHAPE),
        Conv(
            name="conv", inputs=("input",), shape=SHAPE, weight="w", bias="b", kernel=(3, 3), padding=(1, 1)
        ),
        Relu(name="relu", inputs=("conv",), shape=SHAPE),
    )  # fmt: skip
    g = torch.Generator().manual_seed(5)
    return Program(ops), {"w": torch.randn(2, 2, 3, 3, generator=g), "b": torch.randn(2, generator=g)}


def image() -> torch.Tensor:
    return torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(6)) * 3


def party(side: Side) -> Any:
    """CrypTen shares the image and doubles it; the masked protocol convolves; CrypTen adds one and opens."""
    from pibench.mpc.crypten import communicator

    meter = Meter()
    channel = Channel(side.sock, meter, timeout_s=30)
    wire = Party(side.rank, channel, meter, options={"wire": "channel"})
    session = communicator.start(wire, "channel", "", 30.0)
    import crypten

    program, weights = network()
    options = {"provider": "first-party", "whole_output": True}
    fast = protocol_class("masked")(program, Party(side.rank, channel, meter, options=options))
    fast.setup(weights if side.rank == SERVER else None)
    fast.offline(1)
    x = crypten.cryptensor(image() if side.rank == CLIENT else torch.zeros(1, *SHAPE), src=CLIENT) * 2
    share = fast.online_shares(x.share.clone())  # type: ignore[attr-defined]
    y = crypten.mpc.MPCTensor.from_shares(share) + 1
    opened = y.get_plain_text()
    del session
    return opened.tolist()


@pytest.mark.timeout(120)
def test_a_value_moves_from_crypten_to_masked_and_back():
    opened = run_two("test_protocol_exchange:party")
    _, weights = network()
    want = torch.nn.functional.conv2d(image() * 2, weights["w"], weights["b"], padding=1).clamp(min=0) + 1
    for rank in (SERVER, CLIENT):
        assert (torch.tensor(opened[rank]) - want).abs().max() < 1e-3


def test_a_narrow_output_is_refused():
    program, _ = network()
    head = Linear(name="fc", inputs=("relu",), shape=(3,), weight="v", bias=None)
    meter = Meter()
    for ops, options in ((program.ops, {}), ((*program.ops, head), {"whole_output": True})):
        narrow = protocol_class("masked")(Program(ops), Party(CLIENT, None, meter, options=options))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="no 64 valid bits"):
            narrow.online_shares(torch.zeros(1, dtype=torch.int64))  # type: ignore[attr-defined]
