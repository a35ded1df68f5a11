"""The weight gradient of 3x3 convolutions on small maps, as nine matrix products, in training alone.

Torch's own backward takes a multiple of its fair share where a map has few pixels: the products are long in the images
and short in the pixels. On shifted views of the padded input each of the nine taps is one product of (outputs x
images * pixels) by (images * pixels x inputs). Which maps are small enough was measured (batch 128, two cores, ms,
torch's own and these):

    channels, map    AMX, bfloat16    AVX-512 with bfloat16    AVX-512, bfloat16    AVX-512, float32
    512, 2x2            33 -> 4.5             9.9 -> 3.0            26.9 -> 16.2          28.7 -> 9.9
    256, 2x2                                                         4.8 -> 4.5            4.6 -> 2.9
    512, 4x4            43 -> 12             16.1 -> 11.9           54.4 -> 62.2          41.2 -> 37.2
    256, 4x4                                  4.5 -> 3.2            14.2 -> 16.8           8.2 -> 10.3
    256, 8x8            equal                12.4 -> 12.5           53.7 -> 64.1          29.4 -> 39.6

Below 256 channels there is nothing to gain (128 at 2x2, one core: 2.05 and 2.36 in bfloat16).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 256  # from which on the products win
ALWAYS = 4  # pixels of a map up to which the products win everywhere
IN_BFLOAT16 = 16  # and in bfloat16 where the CPU multiplies in it (AMX, AVX512_BF16)


class SmallMapConvolution(torch.autograd.Function):
    """A 3x3 convolution of stride 1 and padding 1 without bias; its weight gradient comes from nine products."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        """Convolve (N, C, H, W) with (O, C, 3, 3)."""
        ctx.save_for_backward(images, weight)
        return functional.conv2d(images, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of images and weight."""
        images, weight = ctx.saved_tensors
        to_images = None
        if ctx.needs_input_grad[0]:
            one, zero = [1, 1], [0, 0]
            wanted = (True, False, False)
            to_images = torch.ops.aten.convolution_backward(
                outputs[0], images, weight, None, one, one, one, False, zero, 1, wanted
            )[0]
        return to_images, weight_gradient(images, outputs[0]) if ctx.needs_input_grad[1] else None


def weight_gradient(images: Tensor, outputs: Tensor) -> Tensor:
    """Return dL/dW (O, C, 3, 3) from the input (N, C, H, W) and dL/d(output) (N, O, H, W)."""
    channels, height, width = images.shape[1:]
    count = outputs.shape[1]
    padded = functional.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    rows = outputs.permute(0, 2, 3, 1).reshape(-1, count).t()
    found = images.new_empty(count, 3, 3, channels)
    for y in range(3):
        for x in range(3):
            found[:, y, x] = rows @ padded[:, y : y + height, x : x + width].reshape(-1, channels)
    return found.permute(0, 3, 1, 2)


def products_pay(layer: nn.Conv2d, shape: torch.Size, kind: torch.dtype) -> bool:
    """Whether the products win for a layer's images (N, C, H, W) in this precision."""
    wide = min(layer.in_channels, layer.out_channels) >= CHANNELS
    return wide and len(shape) == 4 and shape[2] * shape[3] <= _largest(kind)


def convolve_by_products(images: Tensor, weight: Tensor) -> Tensor:
    """Convolve (N, C, H, W) with (O, C, 3, 3), the weight's gradient by products."""
    found: Tensor = SmallMapConvolution.apply(images, weight)  # type: ignore[no-untyped-call]
    return found


def _largest(kind: torch.dtype) -> int:
    """Return the pixels of the largest map that counts as small."""
    multiplied = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return IN_BFLOAT16 if kind == torch.bfloat16 and multiplied else ALWAYS
