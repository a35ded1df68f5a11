"""1x1 convolutions with a stride: what torch's own backward pass breaks on some processors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from pibench.training.convolutions import trained_convolutions


@pytest.mark.parametrize("channels", [1, 4, 6, 12])
@pytest.mark.parametrize("stride", [2, (1, 2), 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_and_gradients_are_those_of_the_definition(channels, stride, layout):
    torch.manual_seed(1)
    layer = nn.Conv2d(channels, 8, 1, stride).to(memory_format=layout)
    images = torch.randn(32, channels, 8, 8).to(memory_format=layout).requires_grad_()
    with trained_convolutions(layer):
        made = layer(images)
    down, across = layer.stride
    read = images.detach()[:, :, ::down, ::across]
    want = torch.einsum("nchw,oc->nohw", read, layer.weight.detach()[:, :, 0, 0]) + layer.bias.detach()[:, None, None]
    assert made.shape == functional.conv2d(images.detach(), layer.weight, layer.bias, layer.stride).shape
    torch.testing.assert_close(made, want)
    outputs = torch.randn(made.shape)
    made.backward(outputs)
    torch.testing.assert_close(
        layer.weight.grad[:, :, 0, 0], torch.einsum("nohw,nchw->oc", outputs, read), atol=1e-3, rtol=1e-4
    )
    back = torch.zeros_like(images.detach())
    back[:, :, ::down, ::across] = torch.einsum("nohw,oc->nchw", outputs, layer.weight.detach()[:, :, 0, 0])
    torch.testing.assert_close(images.grad, back)


@pytest.mark.parametrize(
    ("layer", "taken"),
    [
        (nn.Conv2d(4, 8, 1, 2), True), (nn.Conv2d(16, 32, 1, 2), False), (nn.Conv2d(4, 8, 1), False),
        (nn.Conv2d(4, 8, 3, 2), False), (nn.Conv2d(4, 8, 1, 2, padding=1), False),
        (nn.Conv2d(4, 8, 1, 2, groups=2), False),
    ],
)  # fmt: skip
def test_others_stay_torchs_own(layer, taken):
    with trained_convolutions(layer):
        assert ("forward" in vars(layer)) is taken
    assert "forward" not in vars(layer)
