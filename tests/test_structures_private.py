"""Ten structures of each kind that people bring, in private between two real processes: logits are the module's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from two_parties import Side, run_two

from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.mpc.protocol import CLIENT, SERVER, Party, protocol_class

EACH = 10
BATCHES = (1, 3)
PROTOCOLS: dict[str, dict[str, Any]] = {
    "plaintext": {}, "masked": {"provider": "first-party"}, "crypten-cached": {"wire": "channel"},
}  # fmt: skip
PRELOAD = ("private_structures", "pibench.mpc.crypten.communicator", "pibench.mpc.crypten.kernels",
           "pibench.mpc.masked.protocol")  # fmt: skip
TOLERANCE = 0.01  # of the spread of the logits, as in a run

Answers = dict[tuple[str, str, int], tuple[Tensor | None, Tensor]]  # by protocol, structure and batch


def party(side: Side) -> Answers:
    """Run every structure under every protocol in this process; returns private logits and PyTorch's."""
    from private_structures import STRUCTURES

    found: Answers = {}
    for name, (net, made) in STRUCTURES.items():
        for batch in BATCHES:
            images = torch.randn(batch, *made.program.input_shape, generator=torch.Generator().manual_seed(batch))
            with torch.no_grad():
                expected = net(images.to(net.head.weight.dtype)).float()
            for protocol, options in PROTOCOLS.items():
                channel, meter = Channel(side.sock.dup(), Meter(), timeout_s=30), Meter()
                met = {"rendezvous": side.rendezvous} if "crypten" in protocol else {}
                given = Party(side.rank, channel, meter, batch=batch, options={**options, **met})
                runner = protocol_class(protocol)(made.program, given)
                runner.setup(made.weights if side.rank == SERVER else None)
                runner.offline(1)
                found[protocol, name, batch] = runner.online(images if side.rank == CLIENT else None), expected
                runner.close()
                channel.barrier()  # the next one meets at the same port
    return found


@pytest.fixture(scope="module")
def answers() -> Answers:
    """Run everything in one pair of processes."""
    found: Answers = run_two("test_structures_private:party", timeout_s=280, preload=PRELOAD)[CLIENT]
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ten_structures_of_each_kind_have_their_own_logits(protocol: str, answers: Answers) -> None:
    kinds = [name.split(":")[0] for ran, name, _ in answers if ran == protocol]
    assert len(set(kinds)) == 8
    assert all(kinds.count(kind) == EACH * len(BATCHES) for kind in kinds)
    wrong = {}
    for (ran, name, batch), (logits, expected) in answers.items():
        if ran == protocol:
            assert logits is not None
            spread = float((expected.max(1).values - expected.min(1).values).max())
            error = float((logits.reshape(expected.shape) - expected).abs().max()) / spread
            wrong |= {} if error <= TOLERANCE else {(name, batch): error}
    assert wrong == {}
