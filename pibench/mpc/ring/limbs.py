"""Exact linear algebra over Z_2^bits on int64 tensors, at the speed of floating-point matrix products.

An integer product of 64-bit words is slow on a CPU; a float64 product is not, and it is exact while every partial sum
stays below 2^53. So ring elements are cut into balanced limbs, small enough for the weights at hand (the bound is the
largest L1 norm of a filter, known once a model), multiplied as float64 and put together again modulo 2^64.
3x3 convolutions of stride 1 go through Winograd's F(2x2, 3x3) (Lavin and Gray, CVPR 2016): its input and output
transforms are integer additions, and with 2G for G its result is four times the convolution, exactly, so two spare
bits make it exact in the ring too.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from pibench.lowering.program import Pair, Shape

MANTISSA_BITS = 53
CACHED_FILTERS = 1 << 13  # of 16 float64 each: what a core's own cache holds
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


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


class RingConv:
    """A convolution with fixed small integer weights, prepared for one input shape.

    `weight` int64 (O, C/groups, kh, kw); call with int64 (N, C, H, W), valid modulo 2^bits, and get int64
    (N, O, H', W') valid modulo 2^bits; `add` (same shape as the result) is added on the way.
    """

    def __init__(
        self,
        weight: Tensor,
        input_shape: Shape,
        *,
        bits: int,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
        winograd: bool | None = None,
    ) -> None:
        self.bits, self.groups = bits, groups
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.kernel: Pair = (weight.shape[2], weight.shape[3])
        self.out_channels = weight.shape[0]
        self.out_size = output_size(input_shape[1:], self.kernel, stride, padding, dilation)
        suits = self.kernel == (3, 3) and stride == dilation == (1, 1) and groups == 1 and bits <= 62
        pays = min(weight.shape[:2]) >= 16 and self._many_enough(weight, self.out_size[0] * self.out_size[1])
        self.winograd = (suits and pays) if winograd is None else (winograd and suits)
        if self.winograd:
            self.matrix = _winograd_weight(weight)  # (16, O, C)
        else:
            self.matrix = weight.reshape(groups, self.out_channels // groups, -1)
        worst = self.matrix.abs().sum(2).max().item()
        self.limbs, self.limb_bits = limbs_for(worst, bits + 2 if self.winograd else bits)
        self.matrix = self.matrix.double()
        self._desks: dict[int, _Desk] = {}  # by batch size

    @staticmethod
    def _many_enough(weight: Tensor, pixels: int) -> bool:
        """Whether there are so many pixels that reading 16 weights a filter instead of 9 is not what takes the time."""
        return pixels >= 64 or (pixels >= 16 and weight.shape[0] * weight.shape[1] <= CACHED_FILTERS)

    def __call__(self, x: Ints, add: Ints | None = None) -> Ints:
        """Return the convolution of x modulo 2^bits, plus `add`."""
        out = np.empty((len(x), self.out_channels, *self.out_size), np.int64)
        if add is None:
            add = np.zeros_like(out)
        desk = self._desks.get(len(x))
        if desk is None or not desk.stands:
            desk = self._desks[len(x)] = _Desk(self, x.shape)
        x = np.ascontiguousarray(x)
        ph, pw = self.padding
        if self.winograd:
            _winograd_input(x, ph, pw, desk.tall, desk.wide, self.limb_bits, desk.columns)
            torch.bmm(self.matrix, desk.left, out=desk.right)
            _winograd_output(desk.product, desk.tall, desk.wide, self.limb_bits, add, out)
        else:
            (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
            _patches(x, kh, kw, sh, sw, ph, pw, dh, dw, self.limb_bits, desk.columns)
            torch.bmm(self.matrix, desk.left, out=desk.right)
            flat = (len(x), self.out_channels, -1)
            _combine(desk.product, self.limb_bits, add.reshape(flat), out.reshape(flat))
        return out


class _Desk:
    """The working memory of a convolution for one batch size, in the shapes that its parts want.

    Laid over the buffers that all convolutions share, once: making views costs more than small products do.
    """

    def __init__(self, conv: RingConv, shape: Shape) -> None:
        n, channels = shape[:2]
        rows, columns = conv.out_size
        spread: Shape
        made: Shape
        self.tall, self.wide = -(-rows // 2), -(-columns // 2)
        if conv.winograd:
            spread = (16, channels, conv.limbs, n, self.tall * self.wide)
            made = (16, conv.out_channels, conv.limbs, n, self.tall * self.wide)
        else:
            taps = conv.kernel[0] * conv.kernel[1]
            spread = (channels, taps, conv.limbs, n, rows, columns)
            made = (conv.out_channels, conv.limbs, n, rows * columns)
        batches, outputs, inputs = conv.matrix.shape
        self._held = _scratch("columns", math.prod(spread)), _scratch("product", math.prod(made))
        left, right = (held[: math.prod(size)] for held, size in zip(self._held, (spread, made), strict=True))
        self.left, self.right = left.view(batches, inputs, -1), right.view(batches, outputs, -1)
        self.columns: Floats = left.view(spread).numpy()
        self.product: Floats = right.view(made).numpy()

    @property
    def stands(self) -> bool:
        """Whether the shared buffers are still those that it lies over."""
        return self._held[0] is getattr(_buffers, "columns", None) and self._held[1] is getattr(
            _buffers, "product", None
        )


_buffers = threading.local()


def _scratch(name: str, size: int) -> Tensor:
    """Return a float64 buffer of at least `size`, shared and only growing: fresh pages cost more than the copy."""
    held: Tensor | None = getattr(_buffers, name, None)
    if held is None or held.numel() < size:
        held = torch.empty(size, dtype=torch.float64)
        setattr(_buffers, name, held)
    return held


def output_size(size: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Return height and width of a convolution's output."""
    rows, columns = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return rows, columns


def limbs_for(l1_norm: float, bits: int) -> tuple[int, int]:
    """Return how many balanced limbs of how many bits keep every partial sum below 2^53."""
    room = MANTISSA_BITS - math.ceil(math.log2(max(l1_norm, 1.0) + 1))
    limbs = -(-bits // max(room + 1, 1))  # a balanced limb of b bits is at most 2^(b-1)
    return limbs, -(-bits // limbs)


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


def _winograd_weight(weight: Tensor) -> Tensor:
    """(2G) g (2G)^T for every filter: int64 (16, O, C)."""
    g = torch.tensor([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], dtype=torch.int64)
    left = (g[None, None, :, :, None] * weight[:, :, None, :, :]).sum(3)  # (O, C, 4, 3)
    both = (left[:, :, :, None, :] * g[None, None, None, :, :]).sum(4)  # (O, C, 4, 4)
    return both.permute(2, 3, 0, 1).reshape(16, *weight.shape[:2]).contiguous()


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
def _patches(
    x: Ints, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int, limb_bits: int, out: Floats
) -> None:
    """Cut x into limbs, then copy each into columns: out (C, kh*kw, limbs, N, H', W').

    Elements are indexed one by one and unsigned: slices would be counted references, and a signed index is looked at
    for its sign, both in the innermost loop.
    """
    n, channels, height, width = x.shape
    limbs, rows, columns = out.shape[2], out.shape[4], out.shape[5]
    padded = np.zeros((limbs, height + 2 * ph, width + 2 * pw))
    row = np.empty(width, np.int64)
    keep = 64 - limb_bits
    for c in range(channels):
        for b in range(n):
            for y in range(height):
                at = np.uintp(y + ph)
                for k in range(width):
                    row[k] = x[b, c, y, k]
                for limb in range(limbs):
                    for k in range(width):
                        low = (row[k] << keep) >> keep
                        padded[limb, at, np.uintp(k + pw)] = low
                        row[k] = (row[k] - low) >> limb_bits
            for ky in range(kh):
                for kx in range(kw):
                    tap, first = ky * kw + kx, kx * dw
                    for limb in range(limbs):
                        for oy in range(rows):
                            at = np.uintp(oy * sh + ky * dh)
                            if sw == 1:
                                for ox in range(columns):
                                    out[c, tap, limb, b, oy, ox] = padded[limb, at, np.uintp(ox + first)]
                            else:
                                for ox in range(columns):
                                    out[c, tap, limb, b, oy, ox] = padded[limb, at, np.uintp(ox * sw + first)]


@njit(cache=True, nogil=True)
def _combine(product: Floats, limb_bits: int, add: Ints, out: Ints) -> None:
    """out[n, o] = add[n, o] + sum of limbs of product (O, limbs, N, pixels)."""
    channels, limbs, n, pixels = product.shape
    for b in range(n):
        for o in range(channels):
            for k in range(pixels):
                out[b, o, k] = add[b, o, k] + np.int64(product[o, 0, b, k])
            for limb in range(1, limbs):
                shift = limb_bits * limb
                for k in range(pixels):
                    out[b, o, k] += np.int64(product[o, limb, b, k]) << shift


@njit(cache=True, nogil=True)
def _winograd_input(x: Ints, ph: int, pw: int, tall: int, wide: int, limb_bits: int, out: Floats) -> None:
    """B^T d B of every 4x4 tile (step 2), cut into limbs: out (16, C, limbs, N, tiles).

    Even and odd columns are kept apart, so that everything runs over a row of tiles at once.
    """
    n, channels, height, width = x.shape
    limbs = out.shape[2]
    padded = np.zeros((2, 2 * tall + 2, wide + 1), np.int64)  # even or odd column, row, tile
    t = np.empty((2, 4, wide + 1), np.int64)
    u = np.empty((16, tall * wide), np.int64)
    keep = 64 - limb_bits
    for c in range(channels):
        for b in range(n):
            for y in range(height):
                at = np.uintp(y + ph)
                for column in range(width):
                    to = column + pw
                    padded[np.uintp(to & 1), at, np.uintp(to >> 1)] = x[b, c, y, column]
            for ty in range(tall):
                r0, r1, r2, r3 = np.uintp(2 * ty), np.uintp(2 * ty + 1), np.uintp(2 * ty + 2), np.uintp(2 * ty + 3)
                for half in range(2):
                    for k in range(wide + 1):
                        d0, d1, d2, d3 = (
                            padded[half, r0, k],
                            padded[half, r1, k],
                            padded[half, r2, k],
                            padded[half, r3, k],
                        )
                        t[half, 0, k] = d0 - d2
                        t[half, 1, k] = d1 + d2
                        t[half, 2, k] = d2 - d1
                        t[half, 3, k] = d1 - d3
                for i in range(4):
                    row = np.uintp(4 * i)
                    for k in range(wide):
                        tile, after = np.uintp(ty * wide + k), np.uintp(k + 1)
                        e0, f0, e1, f1 = t[0, i, k], t[1, i, k], t[0, i, after], t[1, i, after]
                        u[row, tile] = e0 - e1
                        u[row + np.uintp(1), tile] = f0 + e1
                        u[row + np.uintp(2), tile] = e1 - f0
                        u[row + np.uintp(3), tile] = f0 - f1
            for r in range(16):
                for limb in range(limbs):
                    for k in range(tall * wide):
                        low = (u[r, k] << keep) >> keep
                        out[r, c, limb, b, k] = low
                        u[r, k] = (u[r, k] - low) >> limb_bits


@njit(cache=True, nogil=True)
def _winograd_output(product: Floats, tall: int, wide: int, limb_bits: int, add: Ints, out: Ints) -> None:
    """A^T m A of every tile, divided by 4 (exact: the weights carry the factor), plus add."""
    channels, limbs, n = product.shape[1:4]
    rows, columns = out.shape[2:]
    m = np.empty((4, tall * wide), np.int64)
    t = np.empty((2, 4, tall * wide), np.int64)
    for o in range(channels):
        for b in range(n):
            for j in range(4):
                for i in range(4):
                    r = np.uintp(4 * i + j)
                    for k in range(tall * wide):
                        m[i, k] = np.int64(product[r, o, 0, b, k])
                    for limb in range(1, limbs):
                        shift = limb_bits * limb
                        for k in range(tall * wide):
                            m[i, k] += np.int64(product[r, o, limb, b, k]) << shift
                for k in range(tall * wide):
                    t[0, j, k] = m[0, k] + m[1, k] + m[2, k]
                    t[1, j, k] = m[1, k] - m[2, k] - m[3, k]
            for y in range(rows):
                half, first = np.uintp(y & 1), (y >> 1) * wide
                for k in range(columns >> 1):
                    at, even, odd = np.uintp(first + k), np.uintp(2 * k), np.uintp(2 * k + 1)
                    a1, a2 = t[half, 1, at], t[half, 2, at]
                    out[b, o, y, even] = ((t[half, 0, at] + a1 + a2) >> 2) + add[b, o, y, even]
                    out[b, o, y, odd] = ((a1 - a2 - t[half, 3, at]) >> 2) + add[b, o, y, odd]
                if columns & 1:
                    at, even = np.uintp(first + wide - 1), np.uintp(columns - 1)
                    out[b, o, y, even] = ((t[half, 0, at] + t[half, 1, at] + t[half, 2, at]) >> 2) + add[b, o, y, even]


@njit(cache=True, nogil=True)
def _multiply(weight: Ints, x: Ints, out: Ints) -> None:
    """out[n] += weight x[n], modulo 2^64: with one column there is nothing to gain from limbs."""
    for b in range(x.shape[0]):
        for o in range(weight.shape[0]):
            total = out[b, o]
            for k in range(weight.shape[1]):
                total += np.int64(weight[o, k]) * x[b, k]
            out[b, o] = total
