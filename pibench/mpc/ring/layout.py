"""How a convolution's words lie in memory: cut into limbs, spread as a matrix for a product, and put together again.

A matrix of columns lies in panels (batches, panels, rows, width): in narrow ones for registers (registers.py), else in
one of all columns. Loops index element by element and unsigned: slices would be counted references, and
a signed index is looked at for its sign, both in the innermost loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pibench.mpc.ring.winograd import join_plane, split_plane, tiles_2, tiles_4, untile_2, untile_4
from pibench.mpc.ring.words import Ints

Columns = NDArray[Any]  # float64 or int64


@njit(cache=True, nogil=True)
def _place(lines: Ints, batch: int, k: int, start: int, out: Columns) -> None:
    """Write line i into row k of matrix batch + i, in panels (B, panels, K, width), from column `start` on."""
    width, size = out.shape[3], lines.shape[1]
    panel, at, done, row = start // width, start % width, 0, np.uintp(k)
    while done < size:
        run = min(width - at, size - done)
        p, first, source = np.uintp(panel), np.uintp(at), np.uintp(done)
        for i in range(lines.shape[0]):
            line, to = np.uintp(i), np.uintp(batch + i)
            for n in range(run):
                out[to, p, row, first + np.uintp(n)] = lines[line, source + np.uintp(n)]
        done, panel, at = done + run, panel + 1, 0


@njit(cache=True, nogil=True)
def _cut(words: Ints, low: Ints, limb_bits: int) -> None:
    """Take the balanced low limb of every word: low, and what is left of words."""
    keep = 64 - limb_bits
    for k in range(words.size):
        low[k] = (words[k] << keep) >> keep
        words[k] = (words[k] - low[k]) >> limb_bits


@njit(cache=True, nogil=True)
def spread_tiles(
    x: Ints, ph: int, pw: int, side: int, tall: int, wide: int, limbs: int, limb_bits: int, drop: int, first: bool,
    out: Columns,
) -> None:  # fmt: skip
    """Transform the tiles of x (N, C, H, W), cut into limbs: out, a matrix of rows C and columns (limb, N, tile).

    `first`: words are cut before they are transformed, and each limb is transformed by itself.
    """
    n, channels = x.shape[:2]
    tiles, positions = tall * wide, (side + 2) ** 2
    height = x.shape[2]
    split = np.zeros((side, side, max(tall + 1, (height + ph) // side + 1) * wide + wide), np.int64)
    t, u = np.empty((side + 2, side, tiles + 1), np.int64), np.empty((positions, tiles), np.int64)
    low, plane, piece = np.empty_like(u), np.empty(x.shape[2:], np.int64), np.empty(x.shape[2:], np.int64)
    for c in range(channels):
        for b in range(n):
            plane[:] = x[b, c]
            for limb in range(limbs):
                start = (limb * n + b) * tiles
                if first and limb < limbs - 1:
                    _cut(plane.reshape(-1), piece.reshape(-1), limb_bits)
                if first or not limb:
                    split_plane(piece if first and limb < limbs - 1 else plane, ph, pw, wide, split)
                    if side == 2:
                        tiles_2(split, wide, t, u)
                    else:
                        tiles_4(split, wide, t, u)
                if (limb < limbs - 1 or not drop) and not first:
                    _cut(u.reshape(-1), low.reshape(-1), limb_bits)
                    _place(low, 0, c, start, out)
                else:  # modulo 2^52, the last limb is whatever is left
                    _place(u, 0, c, start, out)


@njit(cache=True, nogil=True)
def gather_tiles(
    product: Columns, side: int, tall: int, wide: int, limbs: int, limb_bits: int, drop: int, inverse: int,
    first: bool, add: Ints, out: Ints,
) -> None:  # fmt: skip
    """Put the limbs of product (positions, O, columns) together and transform the tiles back: out, with add.

    `first`: the limbs were cut before they were transformed, and are put together after they are transformed back.
    """
    n, channels = out.shape[:2]
    tiles = tall * wide
    m, v = np.empty((product.shape[0], tiles), np.int64), np.empty((side**2, tiles), np.int64)
    flat = v.reshape(-1)
    t = np.empty((side, side + 2, tiles), np.int64)
    for o in range(channels):
        for b in range(n):
            for limb in range(limbs if first else 1):
                _join(
                    product, 0, o, (limb * n + b) * tiles, n * tiles, 1 if first else limbs, limb_bits, drop, m
                )  # fmt: skip
                if side == 2:
                    untile_2(m, t, v)
                else:
                    untile_4(m, t, inverse, drop, v)
                if limb:
                    shift = limb * limb_bits
                    for k in range(flat.size):
                        flat[k] <<= shift
                join_plane(v, side, wide, out[b, o] if limb else add[b, o], out[b, o])


@njit(cache=True, nogil=True)
def _join(
    product: Columns, batch: int, o: int, start: int, step: int, limbs: int, limb_bits: int, drop: int, words: Ints
) -> None:
    """Put together row o of product[batch + i] for words[i]: the first limb from `start`, each next one `step` on."""
    row = np.uintp(o)
    for i in range(words.shape[0]):
        to, at = np.uintp(i), np.uintp(batch + i)
        for k in range(words.shape[1]):
            words[to, np.uintp(k)] = np.int64(product[at, row, np.uintp(start + k)])
        if limbs > 1:
            for k in range(words.shape[1]):
                words[to, np.uintp(k)] = (words[to, np.uintp(k)] << drop) >> drop
        for limb in range(1, limbs):
            first, shift = start + limb * step, limb * limb_bits
            for k in range(words.shape[1]):
                words[to, np.uintp(k)] += np.int64(product[at, row, np.uintp(first + k)]) << shift


@njit(cache=True, nogil=True)
def spread_patches(
    x: Ints, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int, rows: int, columns: int,
    limbs: int, limb_bits: int, drop: int, out: Columns,
) -> None:  # fmt: skip
    """Cut x (N, C, H, W) into limbs, then copy each into columns (limb, N, pixel): rows of out are (channel, tap)."""
    n, channels, height, width = x.shape
    pixels, taps = rows * columns, kh * kw
    inner = out.shape[2] // taps  # channels of a group
    padded = np.zeros((limbs, height + 2 * ph, width + 2 * pw), np.int64)
    row, low, lines = np.empty(width, np.int64), np.empty(width, np.int64), np.empty((1, pixels), np.int64)
    for c in range(channels):
        for b in range(n):
            for y in range(height):
                row[:] = x[b, c, y]
                for limb in range(limbs):
                    target = padded[limb, y + ph, pw : pw + width]
                    if limb < limbs - 1 or not drop:
                        _cut(row, low, limb_bits)
                        target[:] = low
                    else:
                        target[:] = row
            for tap in range(taps):
                ky, kx = tap // kw * dh, tap % kw * dw
                for limb in range(limbs):
                    for oy in range(rows):
                        at, to = np.uintp(oy * sh + ky), oy * columns
                        for ox in range(columns):
                            lines[0, np.uintp(to + ox)] = padded[np.uintp(limb), at, np.uintp(ox * sw + kx)]
                    _place(lines, c // inner, c % inner * taps + tap, (limb * n + b) * pixels, out)


@njit(cache=True, nogil=True)
def combine(product: Columns, limbs: int, limb_bits: int, drop: int, add: Ints, out: Ints) -> None:
    """Out (N, O, pixels) = add + the limbs of product (groups, rows, columns (limb, N, pixel)) together."""
    n, channels, pixels = out.shape
    each = channels // product.shape[0]  # of a group; rows may be padded beyond them
    for b in range(n):
        for o in range(channels):
            words = out[b, o : o + 1]
            _join(product, o // each, o % each, b * pixels, n * pixels, limbs, limb_bits, drop, words)
            for k in range(pixels):
                out[b, o, k] += add[b, o, k]
