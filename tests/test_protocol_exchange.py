"""A value shared by CrypTen goes through the masked protocol and back: the sharing is the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from two_parties import Side, run_two

from pibench.errors import UsageError
from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.lowering.program import Conv, Input, Program, Relu
from pibench.mpc.masked.bits import assign_bits
from pibench.mpc.masked.gadgets import gadgets_of
from pibench.mpc.masked.gadgets.image import Image
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.protocol import MaskedProtocol
from pibench.mpc.protocol import CLIENT, SERVER, Party

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


class SharedImage(Image):
    """An image of which the server has an additive share as well."""

    share: torch.Tensor

    def server(self, parts: Any, half: Any) -> Any:
        yield from super().server(parts, half)
        parts[self.step.out] += self.share.numpy()


class OnShares(MaskedProtocol):
    """From additive shares to additive shares, modulo 2^64 and at CrypTen's scale; nothing is opened."""

    def __init__(self, program: Program, party: Party) -> None:
        super().__init__(program, party)
        self.plan = assign_bits(self.plan, output_bits=64)
        self.gadgets = gadgets_of(self.plan)
        first = self.plan.steps[0]
        self.gadgets[first.out] = SharedImage(self.plan, first, self.backend)
        self.source = self._choose_source()

    def run(self, share: torch.Tensor) -> torch.Tensor:
        """From this party's share of the image (batch, *shape) int64 to its share of the output."""
        if self.party.is_server:
            self.gadgets[self.plan.steps[0].out].share = share
            return torch.from_numpy(self._side.compute(self._next()))
        return torch.from_numpy(self._side.compute(share.numpy(), self._next()))


def party(side: Side) -> Any:
    """CrypTen shares the image and doubles it; the masked protocol convolves; CrypTen adds one and opens."""
    from pibench.mpc.crypten import communicator

    meter = Meter()
    channel = Channel(side.sock, meter, timeout_s=30)
    wire = Party(side.rank, channel, meter, options={"wire": "channel"})
    session = communicator.start(wire, "channel", "", 30.0)
    import crypten

    program, weights = network()
    options = {"provider": "first-party", "range_bits": 14}  # a ReLU then makes all 64 bits
    fast = OnShares(program, Party(side.rank, channel, meter, options=options))
    fast.setup(weights if side.rank == SERVER else None)
    fast.offline(1)
    x = crypten.cryptensor(image() if side.rank == CLIENT else torch.zeros(1, *SHAPE), src=CLIENT) * 2
    share = fast.run(x.share.clone())
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


def test_more_bits_than_a_relu_makes_are_refused():
    plan = plan_program(network()[0], Options())
    with pytest.raises(UsageError, match="need more than 62 ring bits"):
        assign_bits(plan, output_bits=64)
