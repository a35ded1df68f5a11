"""Material without a third party: right answers for every operation, declared costs, messages that say nothing."""

from __future__ import annotations

from typing import Any

import networks_for_tests as networks
import pytest
import torch
from masked_pair import run_masked
from test_protocol_masked import ULP, close, identity_relu

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", networks.everything())
def test_every_operation_agrees_with_plaintext(name: str, batch: int) -> None:
    program, weights = networks.program_of(name)
    images = [torch.randn(batch, *networks.SHAPE)]
    close(run_masked(program, weights, images, provider="two-party"), program, weights, images)


@pytest.mark.parametrize("options", [{"range_bits": 8}, {"range_bits": 16}])
@pytest.mark.parametrize("name", ["residual", "max pool"])
def test_every_choice_gives_the_same_answers(name: str, options: dict[str, Any]) -> None:
    program, weights = networks.program_of(name)
    images = [torch.randn(2, *networks.SHAPE)]
    close(run_masked(program, weights, images, provider="two-party", **options), program, weights, images)


def test_relu_is_within_one_unit_over_its_whole_range() -> None:
    n = 20_000
    program, weights = identity_relu(n)
    spread = torch.rand(n, dtype=torch.float64) * 12
    x = torch.sign(torch.randn(n)) * torch.minimum(2.0**spread, torch.tensor(2.0**12 - 1))
    x[:6] = torch.tensor([0.0, ULP, -ULP, 2.0**12 - 1, -(2.0**12) + 1, -0.5])
    image = (x.double() * 2**16).round().div(2**16).view(1, 1, 1, n)
    outcome = run_masked(program, weights, [image], provider="two-party")
    error = (outcome.logits[0].double() - image.clamp(min=0)).abs().max().item()
    assert error <= ULP * 1.0001 + 2.0**-12  # logits come as float32
