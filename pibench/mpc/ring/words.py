"""Products of full words, modulo 2^64: matrices, and convolutions where both operands are uniform."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from pibench.lowering.program import Pair, Shape

Ints = NDArray[np.int64]


class RingMatrix:
    """A matrix of fixed integers: call with int64 (N, inputs), get int64 (N, outputs), plus `add` of that shape."""

    def __init__(self, weight: Tensor) -> None:
        narrow = weight.abs().max() < 1 << 31  # half the memory to read, which is what takes the time
        self.matrix: Ints = weight.to(torch.int32 if narrow else torch.int64).contiguous().numpy()

    def __call__(self, x: Ints, add: Ints | None = None) -> Ints:
        """Return matrix x + add, modulo 2^64."""
        out = np.zeros((len(x), len(self.matrix)), np.int64) if add is None else add.copy()
        _multiply(self.matrix, np.ascontiguousarray(x), out)
        return out


def output_size(size: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Return height and width of a convolution's output."""
    rows, columns = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return rows, columns


def conv_words(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Tensor:
    """Convolve full 64-bit words modulo 2^64 (offline work, where both operands are uniform)."""
    n, channels = x.shape[:2]
    kernel: Pair = (weight.shape[2], weight.shape[3])
    h, w = output_size(tuple(x.shape[2:]), kernel, stride, padding, dilation)
    padded = torch.nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0])).contiguous()
    sn, sc, sh, sw = padded.stride()
    view = padded.as_strided(
        (groups, channels // groups, *kernel, n, h, w),
        (sc * channels // groups, sc, sh * dilation[0], sw * dilation[1], sn, sh * stride[0], sw * stride[1]),
    )
    columns = view.reshape(groups, channels // groups * kernel[0] * kernel[1], n * h * w)
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    out = torch.empty(groups, rows.shape[1], n * h * w, dtype=torch.int64)
    for g in range(groups):
        _matmul_words(rows[g].contiguous().numpy(), columns[g].contiguous().numpy(), out[g].numpy())
    return out.view(weight.shape[0], n, h, w).transpose(0, 1).contiguous()


@njit(cache=True, nogil=True)
def round_down(words: Ints, bias: Ints, unused: int, shift: int) -> None:
    """Add to words (N, C, pixels) a bias (C,), drop their `unused` top bits and divide by 2^shift to the nearest."""
    half = 1 << (shift - 1)
    for b in range(words.shape[0]):
        for c in range(words.shape[1]):
            line, add = words[b, c], bias[c]
            for k in range(line.size):
                line[k] = (((line[k] + add) << unused >> unused) + half) >> shift


@njit(cache=True, nogil=True)
def _matmul_words(a: Ints, b: Ints, out: Ints) -> None:
    """Compute out = a b modulo 2^64: four rows of b at a time, in blocks that stay in the cache."""
    rows, inner = a.shape
    columns = b.shape[1]
    out[:] = 0
    for k0 in range(0, inner, 64):
        k1 = min(k0 + 64, inner)
        for j0 in range(0, columns, 512):
            j1 = min(j0 + 512, columns)
            for i in range(rows):
                line = out[i, j0:j1]
                for k in range(k0, k1 - 3, 4):
                    p, q, r, s = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
                    w, x, y, z = b[k, j0:j1], b[k + 1, j0:j1], b[k + 2, j0:j1], b[k + 3, j0:j1]
                    for j in range(line.size):
                        line[j] += p * w[j] + q * x[j] + r * y[j] + s * z[j]
                for k in range(k1 - (k1 - k0) % 4, k1):
                    p, w = a[i, k], b[k, j0:j1]
                    for j in range(line.size):
                        line[j] += p * w[j]


@njit(cache=True, nogil=True)
def _multiply(weight: Ints, x: Ints, out: Ints) -> None:
    """out[n] += weight x[n], modulo 2^64: with one column there is nothing to gain from limbs."""
    for b in range(x.shape[0]):
        for o in range(weight.shape[0]):
            total = out[b, o]
            for k in range(weight.shape[1]):
                total += np.int64(weight[o, k]) * x[b, k]
            out[b, o] = total
