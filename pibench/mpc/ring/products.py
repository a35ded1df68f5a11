"""Exact products of ring elements (int64, modulo 2^64): convolution and linear layers.

torch multiplies 64-bit integers exactly with wrap-around, but its int64 convolution is about ten times slower than
copying the patches and one matrix product, which is what happens here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pibench.lowering.program import Pair


def conv2d(
    x: Tensor, weight: Tensor, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1
) -> Tensor:
    """Return the convolution of (N, C, H, W) with (O, C/groups, kh, kw), modulo 2^64."""
    patches = _patches(x, weight.shape[2:], stride, padding, dilation)
    batch, channels, kh, kw, height, width = patches.shape
    columns = patches.reshape(batch, groups, channels // groups * kh * kw, height * width)
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    return torch.matmul(rows, columns).reshape(batch, weight.shape[0], height, width)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return (N, I) times the transpose of (O, I), modulo 2^64."""
    return torch.matmul(x, weight.t())


def _patches(x: Tensor, kernel: torch.Size, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """Return a view (N, C, kh, kw, H', W') of the padded input: nothing is copied yet."""
    if padding != (0, 0):
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    x = x.contiguous()
    size = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    sn, sc, sh, sw = x.stride()
    return x.as_strided(
        (*x.shape[:2], *kernel, *size), (sn, sc, sh * dilation[0], sw * dilation[1], sh * stride[0], sw * stride[1])
    )
