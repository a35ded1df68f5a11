"""Residues of polynomials: lifting small integers, products with known factors, scaling a plaintext, sums.

Arrays of residues are (groups, primes, n, LANES) in uint32, below their primes on the way in and out. Nothing
branches on a value: corrections are minima of wrapped differences. Casts are needed, see `ntt.py`.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pibench.mpc.crypto.rlwe.primes import Lanes, Ring, with_shoup

Words = NDArray[np.uint64]
Small = NDArray[np.int32]


def fixed_factor(x: Lanes, ring: Ring) -> Lanes:
    """Return (primes, 2, n): residues (primes, n) that many will be multiplied by, and their shoup numbers."""
    return np.stack([with_shoup(row.tolist(), p) for row, p in zip(x, ring.primes, strict=True)])


def lift(e: Small, ring: Ring) -> Lanes:
    """Return the residues of signed integers (groups, n, LANES) of less than 2^26 in absolute value."""
    out = np.empty((len(e), ring.count, *e.shape[1:]), np.uint32)
    _lift(e, ring.moduli, out)
    return out


@njit(cache=True, nogil=True)
def lift_one(e: Small, p: np.uint32, out: Lanes) -> None:
    """Kernel: residues modulo one prime of flat signed integers."""
    q = np.int32(p)
    for j in range(e.size):
        v = e[j]
        out[j] = np.uint32(np.int32(v + np.int32(q & np.int32(v >> np.int32(31)))))


@njit(cache=True, nogil=True)
def _lift(e: Small, moduli: Lanes, out: Lanes) -> None:
    for g in range(e.shape[0]):
        for i in range(moduli.size):
            lift_one(e[g].reshape(-1), moduli[i], out[g, i].reshape(-1))


@njit(cache=True, nogil=True)
def multiply_add(into: Lanes, x: Lanes, factor: Lanes, moduli: Lanes) -> None:
    """Kernel: into += x * factor, in the transformed domain; factor (primes, 2, n) serves every polynomial."""
    lanes = into.shape[3]
    for g in range(x.shape[0]):
        for i in range(moduli.size):
            p = moduli[i]
            a, b = into[g, i], x[g, i]
            for j in range(a.shape[0]):
                w, s = factor[i, 0, j], factor[i, 1, j]
                for lane in range(lanes):
                    v = b[j, lane]
                    quotient = np.uint32((np.uint64(v) * np.uint64(s)) >> np.uint64(32))
                    r = np.uint32(np.uint32(v * w) - np.uint32(quotient * p))
                    r = np.uint32(min(r, np.uint32(r - p)) + a[j, lane])
                    a[j, lane] = min(r, np.uint32(r - p))


@njit(cache=True, nogil=True)
def add(into: Lanes, x: Lanes, moduli: Lanes) -> None:
    """Kernel: into += x."""
    for g in range(x.shape[0]):
        for i in range(moduli.size):
            p, a, b = moduli[i], into[g, i].reshape(-1), x[g, i].reshape(-1)
            for j in range(a.size):
                r = np.uint32(a[j] + b[j])
                a[j] = min(r, np.uint32(r - p))


@njit(cache=True, nogil=True)
def reduce_word(
    high: np.uint32, low: np.uint32, c: np.uint32, cs: np.uint32, one: np.uint32, p: np.uint32
) -> np.uint32:
    """Kernel: high 2^32 + low modulo p, below 4p; c is 2^32 modulo p, cs its shoup number, one that of 1."""
    q0 = np.uint32((np.uint64(high) * np.uint64(cs)) >> np.uint64(32))
    q1 = np.uint32((np.uint64(low) * np.uint64(one)) >> np.uint64(32))
    r = np.uint32(np.uint32(high * c) - np.uint32(q0 * p))
    return np.uint32(r + np.uint32(low - np.uint32(q1 * p)))


@functools.cache
def word_constants(primes: tuple[int, ...]) -> Lanes:
    """Return (primes, 3): 2^32 modulo p, its shoup number, the shoup number of 1."""
    rows = [[c := (1 << 32) % p, (c << 32) // p, (1 << 32) // p] for p in primes]
    return np.array(rows, np.uint32)


def scaled(m: Words, bits: int, ring: Ring) -> Lanes:
    """Return residues (primes, size) of round(q m / 2^bits) for flat words m below 2^bits; exact.

    With r = (q m + 2^(bits-1)) mod 2^bits that is (q m + 2^(bits-1) - r) / 2^bits, of which q m vanishes modulo q.
    """
    out = np.empty((ring.count, m.size), np.uint32)
    low, half = np.uint64(ring.q & ((1 << 64) - 1)), np.uint64(1 << (bits - 1))
    inverse, halves = _scaling(bits, ring.primes)
    _scaled(m, low, half, np.uint64((1 << bits) - 1), halves, inverse, word_constants(ring.primes), ring.moduli, out)
    return out


@functools.cache
def _scaling(bits: int, primes: tuple[int, ...]) -> tuple[Lanes, Lanes]:
    inverse = np.concatenate([with_shoup([pow(2, -bits, p)], p).T for p in primes])
    return inverse, np.array([(1 << (bits - 1)) % p for p in primes], np.uint32)


@njit(cache=True, nogil=True)
def _scaled(
    m: Words, q: np.uint64, half: np.uint64, mask: np.uint64, halves: Lanes, inverse: Lanes, words: Lanes,
    moduli: Lanes, out: Lanes,
) -> None:  # fmt: skip
    for i in range(moduli.size):
        p = moduli[i]
        c, cs, one = words[i, 0], words[i, 1], words[i, 2]
        top = np.uint32(halves[i] + np.uint32(np.uint32(p + p) + np.uint32(p + p)))
        w, s = inverse[i, 0], inverse[i, 1]
        for j in range(m.size):
            r = np.uint64(np.uint64(q * m[j]) + half) & mask
            d = np.uint32(top - reduce_word(np.uint32(r >> np.uint64(32)), np.uint32(r), c, cs, one, p))
            quotient = np.uint32((np.uint64(d) * np.uint64(s)) >> np.uint64(32))
            v = np.uint32(np.uint32(d * w) - np.uint32(quotient * p))
            out[i, j] = min(v, np.uint32(v - p))
