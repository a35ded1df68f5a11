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

_BLOCKS = 8  # of a transform, after whose first levels each fits the first cache


def forward(x: Lanes, ring: Ring) -> None:
    """Transform (groups, primes, n, LANES) in place, from values below 2p to values below p."""
    _forward_all(x, ring.roots, ring.moduli)


def backward(x: Lanes, ring: Ring) -> None:
    """Undo `forward` in place, from values below 2p to values below p."""
    _backward_all(x, ring.inverse_roots, ring.inverse_n, ring.moduli)


@njit(cache=True, nogil=True)
def _levels_down(x: Lanes, first: int, last: int, half: int, at: int, roots: Lanes, p: np.uint32) -> None:
    p2 = np.uint32(p + p)
    size = half * LANES
    for i in range(first, last):
        w, s = roots[0, i], roots[1, i]
        start = (at + (i - first) * 2 * half) * LANES
        low, high = x[start : start + size], x[start + size : start + 2 * size]
        for j in range(size):
            u, v = low[j], high[j]
            quotient = np.uint32((np.uint64(v) * np.uint64(s)) >> np.uint64(32))
            r = np.uint32(np.uint32(v * w) - np.uint32(quotient * p))
            low[j] = np.uint32(u + r)
            high[j] = np.uint32(np.uint32(u + p2) - r)


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
    """Kernel: transform one prime's (n, LANES)."""
    n, flat = x.shape[0], x.reshape(-1)
    half, m = n // 2, 1
    while m < _BLOCKS:
        _levels_down(flat, m, 2 * m, half, 0, roots, p)
        m *= 2
        half //= 2
    for b in range(_BLOCKS):
        half, m = n // (2 * _BLOCKS), 1
        while half >= 1:
            first = (_BLOCKS + b) * m
            _levels_down(flat, first, first + m, half, b * (n // _BLOCKS), roots, p)
            m *= 2
            half //= 2
    scale(flat, np.uint32(1), np.uint32((np.uint64(1) << np.uint64(32)) // np.uint64(p)), p)


@njit(cache=True, nogil=True)
def _levels_up(x: Lanes, first: int, last: int, half: int, at: int, roots: Lanes, p: np.uint32) -> None:
    p2 = np.uint32(p + p)
    size = half * LANES
    for i in range(first, last):
        w, s = roots[0, i], roots[1, i]
        start = (at + (i - first) * 2 * half) * LANES
        low, high = x[start : start + size], x[start + size : start + 2 * size]
        for j in range(size):
            u, v = low[j], high[j]
            total, d = np.uint32(u + v), np.uint32(np.uint32(u + p2) - v)
            low[j] = min(total, np.uint32(total - p2))
            quotient = np.uint32((np.uint64(d) * np.uint64(s)) >> np.uint64(32))
            high[j] = np.uint32(np.uint32(d * w) - np.uint32(quotient * p))


@njit(cache=True, nogil=True)
def backward_one(x: Lanes, roots: Lanes, inverse_n: Lanes, p: np.uint32) -> None:
    """Kernel: undo `forward_one`."""
    n, flat = x.shape[0], x.reshape(-1)
    for b in range(_BLOCKS):
        half, m = 1, n // (2 * _BLOCKS)
        while m >= 1:
            first = (_BLOCKS + b) * m
            _levels_up(flat, first, first + m, half, b * (n // _BLOCKS), roots, p)
            m //= 2
            half *= 2
    half, m = n // _BLOCKS, _BLOCKS // 2
    while m >= 1:
        _levels_up(flat, m, 2 * m, half, 0, roots, p)
        m //= 2
        half *= 2
    scale(flat, inverse_n[0], inverse_n[1], p)


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
