"""The negacyclic number-theoretic transform of eight polynomials side by side, in lanes of 32 bits.

Forward by Cooley and Tukey's butterflies, backward by Gentleman and Sande's, twiddles in bit-reversed order with
Shoup's quotients: Longa and Naehrig, *Speeding up the Number Theoretic Transform for Faster Ideal Lattice-Based
Cryptography*, CANS 2016; lazy reductions after Harvey, *Faster arithmetic for number-theoretic transforms*, 2014.
Transformed values are in bit-reversed order, which no pointwise product minds. Nothing branches on a value.

The casts are not decoration: numba types uint32 + uint32 as uint64, which would halve the lanes of a register.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pibench.mpc.crypto.rlwe.primes import LANES, Lanes, Ring
from pibench.mpc.crypto.rlwe.vectors import (
    first_levels,
    last_levels,
    one_level_down,
    one_level_up,
    two_levels_down,
    two_levels_up,
)

_BLOCK = 512  # coefficients that are worked on together, 16 kB


def forward(x: Lanes, ring: Ring) -> None:
    """Transform (groups, primes, n, LANES) in place, from values below 2p to values below p."""
    _forward_all(x, ring.roots, ring.moduli)


def backward(x: Lanes, ring: Ring) -> None:
    """Undo `forward` in place, from values below 2p to values below p."""
    _backward_all(x, ring.inverse_roots, ring.inverse_n, ring.moduli)


@njit(cache=True, nogil=True)
def scale(x: Lanes, w: np.uint32, s: np.uint32, p: np.uint32) -> None:
    """Kernel: flat x times w modulo p, in place, from any 32-bit values to values below p; s is w's shoup number."""
    for j in range(x.size):
        v = x[j]
        quotient = np.uint32((np.uint64(v) * np.uint64(s)) >> np.uint64(32))
        r = np.uint32(np.uint32(v * w) - np.uint32(quotient * p))
        x[j] = min(r, np.uint32(r - p))


@njit(cache=True, nogil=True)
def forward_one(x: Lanes, roots: Lanes, p: np.uint32) -> None:
    """Kernel: transform one prime's (n, LANES); n is a power of two, 64 at least.

    One level if their number less three is odd, then two at a time, in the end three: first over the whole, then
    block by block, each of which stays in the first cache.
    """
    n, flat, factors = x.shape[0], x.reshape(-1), roots.reshape(-1)
    one = np.uint32((np.uint64(1) << np.uint64(32)) // np.uint64(p))
    blocks, half = 1, n // 2
    if _is_odd(n):
        for j in range(0, half * LANES, 2 * LANES):
            one_level_down(flat, j, half * LANES, factors, n, 1, p)
        blocks, half = 2, half // 2
    while 2 * half > _BLOCK:
        for b in range(blocks):
            _pairs_down(flat, factors, n, blocks, b, 1, half, p)
        blocks, half = 4 * blocks, half // 4
    for b in range(blocks):
        parts, h = 1, half
        while h >= 16:
            _pairs_down(flat, factors, n, blocks, b, parts, h, p)
            parts, h = 4 * parts, h // 4
        for block in range(b * half // 4, (b + 1) * half // 4, 2):
            last_levels(flat, 8 * LANES * block, factors, n, block, p, one)


@njit(cache=True, nogil=True)
def backward_one(x: Lanes, roots: Lanes, inverse_n: Lanes, p: np.uint32) -> None:
    """Kernel: undo `forward_one`."""
    n, flat, factors = x.shape[0], x.reshape(-1), roots.reshape(-1)
    odd = _is_odd(n)
    blocks, half = 1 + odd, n // 2 // (1 + odd)
    while 2 * half > _BLOCK:
        blocks, half = 4 * blocks, half // 4
    for b in range(blocks):
        for block in range(b * half // 4, (b + 1) * half // 4, 2):
            first_levels(flat, 8 * LANES * block, factors, n, block, p, p)
        h = 16
        while h <= half:
            _pairs_up(flat, factors, n, blocks, b, half // h, h, p)
            h *= 4
    while blocks > 2:
        blocks, half = blocks // 4, half * 4
        for b in range(blocks):
            _pairs_up(flat, factors, n, blocks, b, 1, half, p)
    if odd:
        for j in range(0, half * 2 * LANES, 2 * LANES):
            one_level_up(flat, j, half * 2 * LANES, factors, n, 1, p)
    scale(flat, inverse_n[0], inverse_n[1], p)


@njit(cache=True, nogil=True)
def _pairs_down(x: Lanes, factors: Lanes, n: int, blocks: int, b: int, parts: int, half: int, p: np.uint32) -> None:
    """Kernel: two levels, of `half` and half of that, on the `parts` parts of the b-th of `blocks` blocks."""
    step = half // 2 * LANES
    for i in range(b * parts, (b + 1) * parts):
        for j in range(4 * step * i, 4 * step * i + step, 2 * LANES):
            two_levels_down(x, j, step, factors, n, blocks * parts + i, p)


@njit(cache=True, nogil=True)
def _pairs_up(x: Lanes, factors: Lanes, n: int, blocks: int, b: int, parts: int, half: int, p: np.uint32) -> None:
    """Kernel: undo `_pairs_down`, but for the factors."""
    step = half // 2 * LANES
    for i in range(b * parts, (b + 1) * parts):
        for j in range(4 * step * i, 4 * step * i + step, 2 * LANES):
            two_levels_up(x, j, step, factors, n, blocks * parts + i, p)


@njit(cache=True, nogil=True)
def _is_odd(n: int) -> int:
    """Whether levels are left over by pairs and the last three."""
    odd = 1  # n = 64 has six
    while n > 64:
        n, odd = n // 2, 1 - odd
    return odd


@njit(cache=True, nogil=True)
def _forward_all(x: Lanes, roots: Lanes, moduli: Lanes) -> None:
    for g in range(x.shape[0]):
        for i in range(x.shape[1]):
            forward_one(x[g, i], roots[i], moduli[i])


@njit(cache=True, nogil=True)
def _backward_all(x: Lanes, roots: Lanes, inverse_n: Lanes, moduli: Lanes) -> None:
    for g in range(x.shape[0]):
        for i in range(x.shape[1]):
            backward_one(x[g, i], roots[i], inverse_n[i], moduli[i])
