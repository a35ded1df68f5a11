"""The interpreter of programs against torch, on random networks of everything it knows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks_for_tests import everything, program_of
from torch import nn

from pibench.errors import UsageError
from pibench.lowering.lower import lower
from pibench.lowering.program import Input, Program
from pibench.lowering.reference import evaluate
from pibench.networks.activations import MaskedQuadratic, MaskedReLU, Quadratic


class Add(nn.Module):
    """A layer and what goes around it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + x


def layers(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module:
    """Draw a layer that accepts this shape."""
    channels, height, width = shape
    kind = draw(st.sampled_from(["conv", "grouped", "bn", "relu", "mask", "poly", "both", "avg", "max", "shortcut"]))
    kernel = draw(st.integers(1, min(3, height, width)))
    padding, stride = draw(st.integers(0, kernel // 2)), draw(st.integers(1, 2))
    if kind in {"conv", "grouped"}:
        groups = channels if kind == "grouped" else 1
        out = channels * draw(st.integers(1, 2)) if kind == "grouped" else draw(st.integers(1, 5))
        return nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=draw(st.booleans()))
    if kind in {"mask", "both"}:
        masked = MaskedReLU(shape) if kind == "mask" else MaskedQuadratic(shape)
        masked.mask.copy_(torch.rand(shape) < draw(st.sampled_from([0.0, 0.3, 1.0])))
        return masked
    simple = {
        "bn": nn.BatchNorm2d(channels),
        "relu": nn.ReLU(),
        "poly": Quadratic(channels),
        "avg": nn.AvgPool2d(kernel, stride, padding),
        "max": nn.MaxPool2d(kernel, stride, padding),
        "shortcut": Add(nn.Conv2d(channels, channels, 3, padding=1)),
    }
    return simple[kind]


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(draw(st.integers(0, 1000)))
    shape: tuple[int, ...] = (draw(st.integers(1, 4)), draw(st.integers(4, 9)), draw(st.integers(4, 9)))
    network, current = nn.Sequential(), shape
    for _ in range(draw(st.integers(1, 6))):
        network.append(layers(draw, current))
        current = tuple(network(torch.zeros(2, *shape)).shape[1:])
    if draw(st.booleans()):
        network.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(current[0], 3))
    return network.eval(), shape


@settings(max_examples=40, deadline=None)
@given(networks())
def test_agrees_with_torch_on_random_networks(case: tuple[nn.Module, tuple[int, ...]]) -> None:
    network, shape = case
    images = torch.randn(3, *shape)
    program, weights = lower(network, shape)
    with torch.no_grad():
        expected = network(images)
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(evaluate(program, weights, images), expected, atol=1e-4 * scale, rtol=1e-4)


@pytest.mark.parametrize("name", everything())
def test_float64_is_closer_to_itself_than_float32(name: str) -> None:
    program, weights = program_of(name)
    images = torch.randn(2, *program.input_shape)
    double = evaluate(program, weights, images, torch.float64)
    assert double.dtype == torch.float64
    torch.testing.assert_close(evaluate(program, weights, images), double.float(), atol=1e-4, rtol=1e-4)


def test_images_of_another_shape_are_refused() -> None:
    program, weights = program_of("residual")
    with pytest.raises(UsageError, match=r"images have shape \(3, 8, 9\), the program takes \(3, 8, 8\)"):
        evaluate(program, weights, torch.zeros(1, 3, 8, 9))


def test_a_program_of_nothing_returns_its_input() -> None:
    images = torch.randn(2, 3)
    assert torch.equal(evaluate(Program((Input(name="input", inputs=(), shape=(3,)),)), {}, images), images)
