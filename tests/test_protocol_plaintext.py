"""The protocols without secrecy agree with the reference, and move what they declare."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from networks_for_tests import everything, program_of
from torch import Tensor, nn
from two_threads import channel_pair

from pibench.errors import UsageError
from pibench.links.meter import Meter, PhaseTally
from pibench.lowering.lower import lower
from pibench.lowering.program import Program, Weights
from pibench.lowering.reference import evaluate
from pibench.mpc.float32.protocol import Float32
from pibench.mpc.plaintext.protocol import Plaintext
from pibench.mpc.protocol import CLIENT, SERVER, Party, Protocol, protocol_class, total_cost
from pibench.mpc.spec import spec_of


def run(
    program: Program, weights: Weights, images: Tensor, protocol: type[Protocol] = Plaintext, options: Any = None
) -> tuple[Tensor, tuple[PhaseTally, PhaseTally]]:
    """Run one inference, the server in a thread."""
    meters = (Meter(), Meter())
    channels = channel_pair(meters, timeout_s=10)
    sides = [
        protocol(program, Party(rank, channels[rank], meters[rank], batch=images.shape[0], options=options or {}))
        for rank in (SERVER, CLIENT)
    ]
    tallies: list[PhaseTally] = [PhaseTally(), PhaseTally()]

    def serve() -> None:
        sides[SERVER].setup(weights)
        with meters[SERVER].phase() as tallies[SERVER]:
            assert sides[SERVER].online(None) is None

    thread = threading.Thread(target=serve)
    thread.start()
    sides[CLIENT].setup(None)
    with meters[CLIENT].phase() as tallies[CLIENT]:
        logits = sides[CLIENT].online(images)
    thread.join(10)
    for channel in channels:
        channel.close()
    assert logits is not None
    return logits, (tallies[SERVER], tallies[CLIENT])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", everything())
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("protocol", [Plaintext, Float32])
def test_agrees_with_the_reference_and_its_declared_cost(name: str, batch: int, protocol: type[Protocol]) -> None:
    program, weights = program_of(name)
    images = torch.randn(batch, *program.input_shape)
    logits, (server, client) = run(program, weights, images, protocol)
    close = {"atol": 2e-3, "rtol": 1e-3} if protocol is Plaintext else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(logits, evaluate(program, weights, images), **close)
    declared = total_cost(program, protocol.name, batch, {})
    assert (server.total.sent_bytes, client.total.sent_bytes) == (declared.server_bytes, declared.client_bytes)
    assert (server.total.received_bytes, client.total.received_bytes) == (declared.client_bytes, declared.server_bytes)
    assert server.total.rounds == client.total.rounds == declared.rounds == 2


def test_products_are_right_to_the_edge_of_the_range_that_a_suite_may_choose() -> None:
    program, weights = lower(nn.Conv2d(1, 8, 1, bias=False), (1, 2, 2))
    weights = {name: torch.ones_like(weight) for name, weight in weights.items()}
    for range_bits, options in ((13, {}), (16, {"range_bits": 16})):
        most = 2.0**range_bits - 2.0**-8
        for value in (most, -most):
            images = torch.full((1, 1, 2, 2), value)
            assert torch.equal(run(program, weights, images, options=options)[0], images.expand(1, 8, 2, 2))
        beyond = torch.full((1, 1, 2, 2), 2.0 * most)
        assert not torch.allclose(run(program, weights, beyond, options=options)[0], beyond.expand(1, 8, 2, 2))
    with pytest.raises(UsageError, match="range_bits: 20 is not from 1 to 19"):
        spec_of("plaintext").parse({"range_bits": 20})


def test_operations_are_attributed() -> None:
    program, weights = program_of("residual")
    _, (server, _) = run(program, weights, torch.randn(1, *program.input_shape))
    assert {kind for kind, _, _ in server.parts} >= {"linear", "relu", "other"}
    assert {site for kind, _, site in server.parts if kind == "relu"} == {
        op.site for op in program if op.kind == "relu"
    }


def test_images_of_another_shape_are_refused() -> None:
    program, _ = program_of("residual")
    meters = (Meter(), Meter())
    channel, other = channel_pair(meters)
    with pytest.raises(UsageError, match="images have shape"):
        Plaintext(program, Party(CLIENT, channel, meters[1])).online(torch.zeros(2, *program.input_shape))
    channel.close()
    other.close()


def test_it_is_known_by_name() -> None:
    assert protocol_class("plaintext") is Plaintext
    assert protocol_class("float32") is Float32
