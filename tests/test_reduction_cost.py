"""A mask costs what it keeps: ReLU bytes of a masked ResNet18 in every protocol's declared cost."""

from __future__ import annotations

import pytest
import torch

from pibench.lowering.lower import lower
from pibench.lowering.program import Op, Program, Relu
from pibench.mpc.masked.gadgets.relu_truth_tables import ReluStep
from pibench.mpc.masked.gadgets.square import Square
from pibench.mpc.masked.total_cost import planned
from pibench.mpc.protocol import Cost, cost_function
from pibench.mpc.spec import BUILT_IN
from pibench.networks.build import masks_of, skeleton, stage_of
from pibench.networks.spec import ResNetSpec
from pibench.reduction.gates import set_masks

SHARE = 0.1


def resnet18(masked: bool) -> Program:
    """Return ResNet18 in CIFAR-100's shape, all ReLUs or a random tenth of them kept."""
    activation = "masked" if masked else "relu"
    spec = ResNetSpec(family="resnet", classes=100, input=[3, 32, 32], activation=activation)  # type: ignore[arg-type]
    module = skeleton(spec)
    if masked:
        generator = torch.Generator().manual_seed(1)
        set_masks(module, {n: torch.rand(m.shape, generator=generator) < SHARE for n, m in masks_of(module).items()})
    return lower(module, spec.input_shape, stage_of)[0]


def activation_cost(program: Program, op: Op) -> Cost:
    """Return what an activation costs the fast protocol without the truncation of what its mask leaves linear.

    The meter books that under "truncation": fixed point wants it after any linear layer, whatever acts next.
    """
    _, gadgets = planned(program, 1, {})
    mine = [g for g in gadgets.values() if g.step.op is op and isinstance(g.step, ReluStep | Square)]
    return sum((gadget.cost for gadget in mine), Cost())


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"plaintext", "float32"}))
def test_a_tenth_of_the_relus_costs_at_most_a_tenth_and_a_half(name: str) -> None:
    sent = []
    for masked in (False, True):
        program = resnet18(masked)
        # the fast protocol books the truncation of what a mask leaves linear apart; stock CrypTen truncates for nothing
        relus = [op for op in program if isinstance(op, Relu)]
        fast = name == "masked"
        costs = [activation_cost(program, op) if fast else cost_function(name)(program, op, 1, {}) for op in relus]
        sent.append(sum(cost.server_bytes + cost.client_bytes for cost in costs))
    assert 0 < sent[1] <= 0.15 * sent[0]


def test_the_truncation_beside_a_mask_is_no_secret() -> None:
    """docs/reduction.md says 44 and 44 %: the fast protocol pays for what a mask leaves linear, if not as a ReLU."""
    relus, everything = [], []
    for masked in (False, True):
        program, cost = resnet18(masked), cost_function("masked")
        costs = {op.name: cost(program, op, 1, {}) for op in program}
        everything.append(sum(c.server_bytes + c.client_bytes for c in costs.values()))
        own = [costs[op.name] for op in program if isinstance(op, Relu)]
        relus.append(sum(c.server_bytes + c.client_bytes for c in own))
    assert relus[1] <= 0.445 * relus[0]
    assert everything[1] <= 0.445 * everything[0]
