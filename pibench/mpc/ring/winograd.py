"""Winograd's minimal filtering of 3x3 convolutions, exact in a ring: F(2x2, 3x3) and F(4x4, 3x3).

The transforms of input and output are integer (Lavin and Gray, CVPR 2016, 4.1 and 4.3). That of the weights is made
integer by a factor that the output carries, `Tiling.factor`: its odd part has an inverse modulo a power of two, its
even part wants spare bits, `Tiling.spare_bits`, which the words must have above those of the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tiling:
    """One of the two filterings: `side` output pixels a side of a tile, (side + 2)^2 products a tile and channel."""

    side: int
    weight_transform: tuple[tuple[int, int, int], ...]  # G times the factor's root
    spare_bits: int
    odd_factor: int

    @property
    def positions(self) -> int:
        """Products of a tile."""
        return (self.side + 2) ** 2

    @property
    def growth(self) -> int:
        """How many times as large as the largest weight a transformed one is at most."""
        return max(sum(map(abs, row)) for row in self.weight_transform) ** 2

    def tiles(self, rows: int, columns: int) -> tuple[int, int]:
        """How many tiles lie over an output (down, across), one across more than cover it.

        With it, tile (i + 1, j) is as far from (i, j) everywhere, and every loop runs over a whole plane of tiles.
        """
        return -(-rows // self.side), -(-columns // self.side) + 1

    def transform(self, weight: Tensor) -> Tensor:
        """Return the transformed filters: int64 (O, C, 3, 3) to (positions, O, C)."""
        g = torch.tensor(self.weight_transform, dtype=torch.int64)
        left = (g[None, None, :, :, None] * weight[:, :, None, :, :]).sum(3)  # (O, C, side + 2, 3)
        both = (left[:, :, :, None, :] * g[None, None, None, :, :]).sum(4)  # (O, C, side + 2, side + 2)
        return both.permute(2, 3, 0, 1).reshape(self.positions, *weight.shape[:2]).contiguous()


F2 = Tiling(2, ((2, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 2)), 2, 1)  # factor 4
F4 = Tiling(4, ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24)), 6, 9)  # factor 64 * 9


@njit(cache=True, nogil=True)
def split_plane(plane: Ints, ph: int, pw: int, wide: int, split: Ints) -> None:
    """Lay out a padded plane (H, W) by its pixels' places in a tile: split (side, side, tiles), zeros elsewhere."""
    side = split.shape[0]
    height, width = plane.shape
    for y in range(height):
        py, first = np.uintp((y + ph) % side), (y + ph) // side * wide
        for px in range(side):
            k = (pw - px + side - 1) // side  # of the first pixel at or beyond the left border
            for x in range(k * side + px - pw, width, side):
                split[py, np.uintp(px), np.uintp(first + k)] = plane[np.uintp(y), np.uintp(x)]
                k += 1


@njit(cache=True, nogil=True)
def tiles_2(split: Ints, wide: int, t: Ints, u: Ints) -> None:
    """B^T d B of all 4x4 tiles of a split plane: u (16, tiles); t is working memory (4, 2, tiles + 1)."""
    below = np.uintp(wide)
    for half in range(2):
        q = np.uintp(half)
        for f in range(u.shape[1] + 1):
            at = np.uintp(f)
            d0, d1 = split[0, q, at], split[1, q, at]
            d2, d3 = split[0, q, at + below], split[1, q, at + below]
            t[0, q, at] = d0 - d2
            t[1, q, at] = d1 + d2
            t[2, q, at] = d2 - d1
            t[3, q, at] = d1 - d3
    for i in range(4):
        row, to = np.uintp(i), np.uintp(4 * i)
        for f in range(u.shape[1]):
            at = np.uintp(f)
            d0, d1 = t[row, 0, at], t[row, 1, at]
            d2, d3 = t[row, 0, at + np.uintp(1)], t[row, 1, at + np.uintp(1)]
            u[to, at] = d0 - d2
            u[to + np.uintp(1), at] = d1 + d2
            u[to + np.uintp(2), at] = d2 - d1
            u[to + np.uintp(3), at] = d1 - d3


@njit(cache=True, nogil=True)
def tiles_4(split: Ints, wide: int, t: Ints, u: Ints) -> None:
    """B^T d B of all 6x6 tiles of a split plane: u (36, tiles); t is working memory (6, 4, tiles + 1)."""
    below = np.uintp(wide)
    for phase in range(4):
        q = np.uintp(phase)
        for f in range(u.shape[1] + 1):
            at = np.uintp(f)
            d0, d1, d2, d3 = split[0, q, at], split[1, q, at], split[2, q, at], split[3, q, at]
            d4, d5 = split[0, q, at + below], split[1, q, at + below]
            t[0, q, at] = 4 * d0 - 5 * d2 + d4
            t[1, q, at] = d3 + d4 - 4 * (d1 + d2)
            t[2, q, at] = d4 - d3 + 4 * (d1 - d2)
            t[3, q, at] = d4 - d2 + 2 * (d3 - d1)
            t[4, q, at] = d4 - d2 - 2 * (d3 - d1)
            t[5, q, at] = 4 * d1 - 5 * d3 + d5
    for i in range(6):
        row, to = np.uintp(i), np.uintp(6 * i)
        for f in range(u.shape[1]):
            at = np.uintp(f)
            d0, d1, d2, d3 = t[row, 0, at], t[row, 1, at], t[row, 2, at], t[row, 3, at]
            d4, d5 = t[row, 0, at + np.uintp(1)], t[row, 1, at + np.uintp(1)]
            u[to, at] = 4 * d0 - 5 * d2 + d4
            u[to + np.uintp(1), at] = d3 + d4 - 4 * (d1 + d2)
            u[to + np.uintp(2), at] = d4 - d3 + 4 * (d1 - d2)
            u[to + np.uintp(3), at] = d4 - d2 + 2 * (d3 - d1)
            u[to + np.uintp(4), at] = d4 - d2 - 2 * (d3 - d1)
            u[to + np.uintp(5), at] = 4 * d1 - 5 * d3 + d5


@njit(cache=True, nogil=True)
def untile_2(m: Ints, t: Ints, v: Ints) -> None:
    """A^T m A of all tiles, divided by 4: m (16, tiles) to v (4, tiles), a row a pixel of a tile; t (2, 4, tiles)."""
    for j in range(4):
        to, p0, p1, p2, p3 = np.uintp(j), np.uintp(j), np.uintp(4 + j), np.uintp(8 + j), np.uintp(12 + j)
        for f in range(m.shape[1]):
            at = np.uintp(f)
            t[0, to, at] = m[p0, at] + m[p1, at] + m[p2, at]
            t[1, to, at] = m[p1, at] - m[p2, at] - m[p3, at]
    for i in range(2):
        row, to = np.uintp(i), np.uintp(2 * i)
        for f in range(m.shape[1]):
            at = np.uintp(f)
            m1, m2 = t[row, 1, at], t[row, 2, at]
            v[to, at] = (t[row, 0, at] + m1 + m2) >> 2
            v[to + np.uintp(1), at] = (m1 - m2 - t[row, 3, at]) >> 2


@njit(cache=True, nogil=True)
def untile_4(m: Ints, t: Ints, inverse: int, drop: int, v: Ints) -> None:
    """A^T m A of all tiles, divided by 64 * 9: m (36, tiles) to v (16, tiles), a row a pixel; t (4, 6, tiles).

    m is valid modulo 2^(64 - drop): what lies above is dropped before the division by 64. `inverse` is that of 9.
    """
    for j in range(6):
        to, p0, p1, p2 = np.uintp(j), np.uintp(j), np.uintp(6 + j), np.uintp(12 + j)
        p3, p4, p5 = np.uintp(18 + j), np.uintp(24 + j), np.uintp(30 + j)
        for f in range(m.shape[1]):
            at = np.uintp(f)
            plus, minus = m[p1, at] + m[p2, at], m[p1, at] - m[p2, at]
            more, less = m[p3, at] + m[p4, at], m[p3, at] - m[p4, at]
            t[0, to, at] = m[p0, at] + plus + more
            t[1, to, at] = minus + 2 * less
            t[2, to, at] = plus + 4 * more
            t[3, to, at] = minus + 8 * less + m[p5, at]
    for i in range(4):
        row, to = np.uintp(i), np.uintp(4 * i)
        for f in range(m.shape[1]):
            at = np.uintp(f)
            m1, m2, m3, m4 = t[row, 1, at], t[row, 2, at], t[row, 3, at], t[row, 4, at]
            plus, minus, more, less = m1 + m2, m1 - m2, m3 + m4, m3 - m4
            v[to, at] = ((t[row, 0, at] + plus + more) * inverse << drop) >> (drop + 6)
            v[to + np.uintp(1), at] = ((minus + 2 * less) * inverse << drop) >> (drop + 6)
            v[to + np.uintp(2), at] = ((plus + 4 * more) * inverse << drop) >> (drop + 6)
            v[to + np.uintp(3), at] = ((minus + 8 * less + t[row, 5, at]) * inverse << drop) >> (drop + 6)


@njit(cache=True, nogil=True)
def join_plane(v: Ints, side: int, wide: int, add: Ints, out: Ints) -> None:
    """Put the pixels of all tiles in their places, plus add: v (side^2, tiles) to out (H', W')."""
    rows, columns = out.shape
    for y in range(rows):
        row, first = y % side * side, y // side * wide
        for px in range(side):
            pixel, tile = np.uintp(row + px), first
            for x in range(px, columns, side):
                out[np.uintp(y), np.uintp(x)] = v[pixel, np.uintp(tile)] + add[np.uintp(y), np.uintp(x)]
                tile += 1
