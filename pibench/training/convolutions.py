"""Convolutions that a CPU trains otherwise than torch does, with the same results: faster ones, and one that is broken.

oneDNN's 1x1 convolutions with a stride write beyond their memory in the backward pass where a layer has fewer input
channels than a vector register (AVX2: 8, AVX-512: 16) and its images are channels_last: wrong gradients, or the end of
the process (uxlfoundation/oneDNN, issue 6035). What such a layer does not read is left out first here; then it has no
stride.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from pibench.training.smallmaps import convolve_by_products, products_pay
from pibench.training.winograd import convolve_in_tiles, tiles_pay

FEW_CHANNELS = 16
WAYS = ((tiles_pay, convolve_in_tiles), (products_pay, convolve_by_products))  # the first that pays is taken


@contextmanager
def trained_convolutions(module: nn.Module) -> Iterator[None]:
    """Let a CPU module's convolutions be those that train right and fast; the module is as it was afterwards.

    Outputs and gradients are the same up to rounding.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.weight.device.type == "cpu"]
    wide, sampled = ([layer for layer in layers if fits(layer)] for fits in (_is_plain, _is_sampled))
    for layer in wide:
        layer.forward = partial(_convolve, layer)  # type: ignore[method-assign]
    for layer in sampled:
        layer.forward = partial(_sampled_first, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in wide + sampled:
            del layer.forward


def _is_plain(layer: nn.Conv2d) -> bool:
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.bias)
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, None) and layer.padding_mode == "zeros"


def _convolve(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """Convolve by what is fastest for these images and their gradients."""
    reduced = torch.is_autocast_enabled("cpu")
    kind = torch.get_autocast_dtype("cpu") if reduced else images.dtype
    convolve = next((way for pays, way in WAYS if pays(layer, images.shape, kind)), None)
    if convolve is None or not torch.is_grad_enabled():
        return nn.Conv2d.forward(layer, images)
    with torch.autocast("cpu", enabled=False):
        return convolve(images.to(kind), layer.weight.to(kind))


def _is_sampled(layer: nn.Conv2d) -> bool:
    point = layer.kernel_size == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
    return point and max(layer.stride) > 1 and layer.in_channels < FEW_CHANNELS


def _sampled_first(layer: nn.Conv2d, images: Tensor) -> Tensor:
    down, across = layer.stride
    return functional.conv2d(images[:, :, ::down, ::across], layer.weight, layer.bias)
