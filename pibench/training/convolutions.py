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

from torch import Tensor, nn
from torch.nn import functional

from pibench.training.smallmaps import convolve, is_small_map_layer

FEW_CHANNELS = 16


@contextmanager
def trained_convolutions(module: nn.Module) -> Iterator[None]:
    """Let a CPU module's convolutions be those that train right and fast; the module is as it was afterwards.

    Outputs and gradients are the same up to rounding.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.weight.device.type == "cpu"]
    small, sampled = ([layer for layer in layers if fits(layer)] for fits in (is_small_map_layer, _is_sampled))
    for layer in small:
        layer.forward = partial(convolve, layer)  # type: ignore[method-assign]
    for layer in sampled:
        layer.forward = partial(_sampled_first, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in small + sampled:
            del layer.forward


def _is_sampled(layer: nn.Conv2d) -> bool:
    point = layer.kernel_size == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
    return point and max(layer.stride) > 1 and layer.in_channels < FEW_CHANNELS


def _sampled_first(layer: nn.Conv2d, images: Tensor) -> Tensor:
    down, across = layer.stride
    return functional.conv2d(images[:, :, ::down, ::across], layer.weight, layer.bias)
