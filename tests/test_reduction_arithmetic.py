"""Counting by arithmetic says what the built network's census says."""

from __future__ import annotations

import random

import pytest

from pibench.networks.spec import ResNetSpec
from pibench.reduction.arithmetic import macs, relus
from pibench.reduction.counting import count
from pibench.reduction.deepreshape import coarse
from pibench.reduction.families import hybrenet


def drawn(seed: int) -> ResNetSpec:
    """Return a residual network with everything drawn that counts depend on."""
    draw = random.Random(seed)
    blocks = [draw.randint(1, 3) for _ in range(draw.randint(1, 4))]
    fields = {
        "base_width": draw.randint(1, 9),
        "multipliers": [draw.randint(1, 3) for _ in blocks[1:]],
        "blocks": blocks,
        "stem_stride": draw.choice([1, 2, 4]),
        "stem_relu": draw.random() < 0.7,
        "stem_kernel": draw.choice([3, 7]),
        "stem_pool": draw.random() < 0.3,
        "shortcut": draw.choice(["conv", "pad"]),
        "culled": [k for k in range(1, len(blocks) + 1) if draw.random() < 0.3],
        "thinning": draw.choice(["none", "top", "bottom"]),
        "reuse": draw.choice([1, 1, 2, 4, 8]),
        "classes": draw.randint(2, 10),
        "input": [draw.randint(1, 3), draw.randint(29, 35), draw.randint(29, 35)],
    }
    if draw.random() < 0.3:
        fields["inner_widths"] = [[draw.randint(1, 9) for _ in range(number)] for number in blocks]
    return ResNetSpec.model_validate({"family": "resnet", **fields})


@pytest.mark.parametrize("seed", range(24))
def test_any_residual_network(seed: int) -> None:
    spec = drawn(seed)
    found = count(spec)
    assert (relus(spec), macs(spec)) == (found.relu_count, found.macs)


@pytest.mark.parametrize("width", [1, 3, 16])
def test_every_coarse_step_of_a_hybrenet(width: int) -> None:
    spec = ResNetSpec(family="resnet", classes=100, input=[3, 32, 32])
    for text, network in coarse(hybrenet(spec, (5, 5, 3), width), 1):
        found = count(network)
        assert (relus(network), macs(network)) == (found.relu_count, found.macs), text


def test_what_it_cannot_count_is_refused() -> None:
    spec = ResNetSpec(family="resnet", classes=10, input=[3, 32, 32], activation="masked")
    with pytest.raises(ValueError, match="plain ReLUs"):
        relus(spec)
