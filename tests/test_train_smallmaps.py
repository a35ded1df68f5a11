"""The weight gradient by nine products: torch's own numbers, on small maps alone, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pibench.networks.build import build
from pibench.networks.spec import ResNetSpec
from pibench.training import smallmaps
from pibench.training.convolutions import trained_convolutions
from pibench.training.smallmaps import weight_gradient


@pytest.fixture(autouse=True)
def every_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let narrow layers count as wide ones: tests of 256 channels would show the same, slower."""
    monkeypatch.setattr(smallmaps, "CHANNELS", 1)


def gradients(layer: nn.Module, images: Tensor, *, fast: bool, reduced: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's output and the gradients of its input and weight, under a loss that is no constant."""
    images = images.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
        if fast:
            with trained_convolutions(layer):
                output = layer(images)
        else:
            output = layer(images)
    (output.float() * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    weight = next(layer.parameters())
    assert weight.grad is not None
    return output.detach(), images.grad, weight.grad.clone()


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 3), (4, 4)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_torchs_own(size: tuple[int, int], channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smallmaps, "_largest", lambda _kind: 16)
    torch.manual_seed(1)
    kept = torch.channels_last if channels_last else torch.contiguous_format
    layer = nn.Conv2d(6, 5, 3, padding=1, bias=False).to(memory_format=kept)  # type: ignore[call-overload]
    images = torch.randn(7, 6, *size).contiguous(memory_format=kept)
    for ours, theirs in zip(gradients(layer, images, fast=True), gradients(layer, images, fast=False), strict=True):
        assert ours.dtype == theirs.dtype == torch.float32
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_the_error_is_that_of_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smallmaps, "_largest", lambda _kind: 16)
    torch.manual_seed(1)
    layer, images = nn.Conv2d(32, 24, 3, padding=1, bias=False), torch.randn(64, 32, 4, 4)
    exact = gradients(layer, images, fast=False)
    ours, theirs = (gradients(layer, images, fast=fast, reduced=True) for fast in (True, False))
    assert ours[0].dtype == torch.bfloat16
    assert torch.equal(ours[0], theirs[0])
    for mine, own, true in zip(ours[1:], theirs[1:], exact[1:], strict=True):
        assert (mine - true).norm() <= 1.1 * (own - true).norm() < 0.02 * true.norm()


def test_a_missing_tap_would_be_seen() -> None:
    images, outputs = torch.randn(3, 2, 2, 2), torch.randn(3, 4, 2, 2)
    found = weight_gradient(images, outputs)
    weight = torch.zeros(4, 2, 3, 3, requires_grad=True)
    (nn.functional.conv2d(images, weight, padding=1) * outputs).sum().backward()
    assert weight.grad is not None
    assert torch.allclose(found, weight.grad, atol=1e-5)
    assert bool((found.abs().amax((0, 1)) > 0).all())


def test_large_maps_strides_and_inference_keep_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[torch.Size] = []
    real = smallmaps.SmallMapConvolution.apply

    def noted(images: Tensor, weight: Tensor) -> Tensor:
        ran.append(images.shape)
        result: Tensor = real(images, weight)  # type: ignore[no-untyped-call]
        return result

    monkeypatch.setattr(smallmaps.SmallMapConvolution, "apply", noted)
    monkeypatch.setattr(smallmaps, "_largest", lambda _kind: 4)
    spec = ResNetSpec.model_validate(
        {"family": "resnet", "base_width": 4, "multipliers": [2], "blocks": [1, 1], "classes": 3, "input": [1, 4, 4]}
    )
    module = build(spec)
    before = dict(module.named_modules())
    with trained_convolutions(module):
        module(torch.randn(2, 1, 4, 4))
        assert ran == [torch.Size([2, 8, 2, 2])]  # the second convolution of stage 2: the first one has a stride
        with torch.no_grad():
            module(torch.randn(2, 1, 4, 4))
    module(torch.randn(2, 1, 4, 4))
    assert len(ran) == 1
    assert dict(module.named_modules()) == before
    assert not any("forward" in vars(layer) for layer in module.modules())


def test_narrow_layers_keep_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    narrow, wide = (nn.Conv2d(n, n, 3, padding=1, bias=False) for n in (128, 256))
    shape = torch.Size((2, 1, 2, 2))
    assert [smallmaps.products_pay(layer, shape, torch.float32) for layer in (narrow, wide)] == [False, True]
