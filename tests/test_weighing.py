"""A polynomial's weighing, laid in rows: the same products, the same shares, a fraction of the bytes."""

from __future__ import annotations

from typing import Any

import networks_for_tests as networks
import numpy as np
import pytest
import torch
from masked_pair import run_masked
from test_protocol_masked import close
from torch import nn

from pibench.lowering.lower import lower
from pibench.lowering.program import Program, Weights
from pibench.mpc.crypto.rlwe.layer import Layer
from pibench.mpc.crypto.rlwe.linear import Exchange
from pibench.mpc.masked.gadgets import layers_of
from pibench.mpc.masked.gadgets.product import LinearLayer, layer_weights
from pibench.mpc.masked.sources.weighing import Laid, Rows
from pibench.mpc.masked.total_cost import operation_cost, planned
from pibench.mpc.protocol import CLIENT, SERVER, Cost
from pibench.networks.activations import MaskedQuadratic, Quadratic

pytestmark = pytest.mark.timeout(240)
ALONE: dict[str, Any] = {"provider": "two-party"}


def some_kept() -> tuple[Program, Weights]:
    """Return a network whose polynomial is kept at some places: channels of 5, 0 and 3 elements."""
    torch.manual_seed(3)
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[0].view(-1)[[0, 3, 5, 9, 15]] = True
    mask[2].view(-1)[[1, 2, 14]] = True
    masked = MaskedQuadratic((3, 4, 4))
    masked.mask.copy_(~mask)
    return lower(nn.Sequential(nn.Conv2d(2, 3, 3), masked, nn.Flatten()), (2, 6, 6))


def weighing(program: Program) -> LinearLayer:
    plan, gadgets = planned(program, 2, ALONE)
    [found] = [layer for layer in layers_of(gadgets) if layer.layer.weight in plan.channels]
    return found


def test_rows_give_the_products_of_elements() -> None:
    program, weights = networks.program_of("poly")
    gadget = weighing(program)
    laid = Laid.of(gadget)
    assert isinstance(laid, Rows)
    rng = np.random.default_rng(0)
    part = rng.integers(-(2**40), 2**40, (2, 2 * gadget.out.count, 1, 1))
    w = layer_weights(gadget.plan, weights)[gadget.layer.weight].double().mul(2**16).round().long().numpy()
    want = (part.reshape(2, -1, 2) * w.reshape(-1, 2)).sum(2)
    rows = laid.part(part)  # (images, 2 rows a channel, 1, places)
    assert rows.shape == (2, laid.layer.channels, *laid.layer.size)
    pairs = rows.reshape(2, laid.layer.filters, 2, -1)
    made = (pairs * laid.weights(w)[None, :, :, 0, 0, None].reshape(1, laid.layer.filters, 2, 1)).sum(2)
    assert (laid.share(made) == want.reshape(-1)).all()


def test_other_layers_lie_as_they_are() -> None:
    _, gadgets = planned(networks.program_of("residual")[0], 1, ALONE)
    for gadget in layers_of(gadgets):
        laid = Laid.of(gadget)
        assert type(laid) is Laid
        assert laid.layer == Layer.of(gadget.step.out, gadget.layer, gadget.source.shape, gadget.out.bits)


@pytest.mark.parametrize("batch", [1, 3])
def test_channels_with_some_or_no_elements_get_their_answers(batch: int) -> None:
    program, weights = some_kept()
    laid = Laid.of(weighing(program))
    assert isinstance(laid, Rows)
    assert laid.runs == (5, 3)
    images = [torch.randn(batch, 2, 6, 6)]
    outcome = run_masked(program, weights, images, **ALONE)
    close(outcome, program, weights, images)
    declared = sum((operation_cost(program, op, batch, ALONE) for op in program), Cost())
    assert outcome.offline[SERVER].total.sent_bytes == declared.offline_server_bytes
    assert outcome.offline[CLIENT].total.sent_bytes == declared.offline_client_bytes


def test_an_answer_is_far_smaller() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), Quadratic(16), nn.Flatten())
    gadget = weighing(lower(network, (3, 32, 32))[0])
    as_it_is = Layer.of("x", gadget.layer, gadget.source.shape, gadget.out.bits)
    sizes = []
    for layer in (as_it_is, Laid.of(gadget).layer):
        exchange = Exchange([layer], 1)
        exchange.settle(22)
        sizes.append(exchange.answer_bytes(layer.name))
    assert sizes[1] * 20 < sizes[0]
