"""Between residues and binary words: floods of two words in, fractions of q out, and integers back together.

A ciphertext's coefficient c modulo q leaves the server as round(c 2^w / q) modulo 2^w: a power of two as the new
modulus, which needs no division by a prime and whose bits can be as few as decryption allows. Both ways are sums of
fixed-point products, the same operations for every value.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pibench.mpc.crypto.rlwe.arithmetic import Words, reduce_word, word_constants
from pibench.mpc.crypto.rlwe.primes import Lanes, Ring, with_shoup

_BLOCK = 512  # numbers that are worked on together, in the first cache
Limbs = NDArray[np.uint64]  # of 32 bits each


def _limbs(number: int, count: int) -> list[int]:
    return [(number >> (32 * i)) & 0xFFFFFFFF for i in range(count)]


@functools.cache
def _fraction_tables(ring_primes: tuple[int, ...], q: int) -> tuple[Lanes, Limbs]:
    inverse = np.concatenate([with_shoup([pow(q // p, -1, p)], p).T for p in ring_primes])
    return inverse, np.array([_limbs(((1 << 128) + p // 2) // p, 4) for p in ring_primes], np.uint64)


def to_fraction(x: Lanes, width: int, ring: Ring) -> Words:
    """Return (2, size): low and high words of round(c 2^width / q) mod 2^width; x (primes, size), width 33 to 96."""
    out = np.empty((2, x.shape[1]), np.uint64)
    inverse, fractions = _fraction_tables(ring.primes, ring.q)
    _to_fraction(x, width, inverse, fractions, ring.moduli, out)
    return out


@njit(cache=True, nogil=True)
def _to_fraction(x: Lanes, width: int, inverse: Lanes, fractions: Limbs, moduli: Lanes, out: Words) -> None:
    sums = np.empty((4, _BLOCK), np.uint64)  # of fixed-point products, limb by limb
    for start in range(0, x.shape[1], _BLOCK):
        stop = min(start + _BLOCK, x.shape[1])
        sums[:] = 0
        for i in range(moduli.size):
            _add_share(x[i, start:stop], inverse[i], fractions[i], moduli[i], sums)
        _carry(sums)
        if width <= 64:  # public
            _cut_low(sums, width, out[0, start:stop])
            out[1, start:stop] = 0
        else:
            _cut_high(sums, width, out[0, start:stop], out[1, start:stop])


@njit(cache=True, nogil=True)
def _add_share(x: Lanes, inverse: Lanes, limbs: Limbs, p: np.uint32, sums: Words) -> None:
    """Kernel: sums += (x / (q/p) mod p) / p, limb by limb."""
    w, s = inverse[0], inverse[1]
    f0, f1, f2, f3 = limbs[0], limbs[1], limbs[2], limbs[3]
    a0, a1, a2, a3 = sums[0], sums[1], sums[2], sums[3]
    for j in range(x.size):
        v = x[j]
        quotient = np.uint32((np.uint64(v) * np.uint64(s)) >> np.uint64(32))
        r = np.uint32(np.uint32(v * w) - np.uint32(quotient * p))
        z = np.uint64(min(r, np.uint32(r - p)))
        a0[j] += z * f0
        a1[j] += z * f1
        a2[j] += z * f2
        a3[j] += z * f3


@njit(cache=True, nogil=True)
def _carry(sums: Words) -> None:
    """Kernel: limbs 1 and 0 joined into row 0, limbs 3 and 2 into row 1; whole turns are lost."""
    u32, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    for j in range(sums.shape[1]):
        a1 = sums[1, j] + (sums[0, j] >> u32)
        a2 = sums[2, j] + (a1 >> u32)
        a3 = sums[3, j] + (a2 >> u32)
        sums[0, j] = (a1 << u32) | (sums[0, j] & low)
        sums[1, j] = (a3 << u32) | (a2 & low)


@njit(cache=True, nogil=True)
def _cut_low(sums: Words, width: int, out: Words) -> None:
    """Kernel: the top `width` bits, at most 64, rounded."""
    drop, mask, one = np.uint64(64 - width), ~np.uint64(0) >> np.uint64(64 - width), np.uint64(1)
    row, top = (0, np.uint64(63)) if width == 64 else (1, np.uint64(63 - width))  # where the next bit stands
    for j in range(out.size):
        out[j] = ((sums[1, j] >> drop) + ((sums[row, j] >> top) & one)) & mask


@njit(cache=True, nogil=True)
def _cut_high(sums: Words, width: int, low: Words, high: Words) -> None:
    """Kernel: the top `width` bits, more than 64, rounded; as low and high words."""
    more, drop, mask = (
        np.uint64(width - 64),
        np.uint64(128 - width),
        (np.uint64(1) << np.uint64(width - 64)) - np.uint64(1),
    )
    for j in range(low.size):
        kept = (sums[1, j] << more) | (sums[0, j] >> drop)
        total = kept + ((sums[0, j] >> np.uint64(127 - width)) & np.uint64(1))
        low[j] = total
        high[j] = ((sums[1, j] >> drop) + np.uint64(total < kept)) & mask


def from_words(words: Words, ring: Ring) -> Lanes:
    """Return residues (primes, size) of integers below 2^96, as (2, size) low and high words."""
    out = np.empty((ring.count, words.shape[1]), np.uint32)
    _from_words(words, word_constants(ring.primes), ring.moduli, out)
    return out


@njit(cache=True, nogil=True)
def _from_words(words: Words, constants: Lanes, moduli: Lanes, out: Lanes) -> None:
    for i in range(moduli.size):
        p = moduli[i]
        c, cs, one = constants[i, 0], constants[i, 1], constants[i, 2]
        for j in range(words.shape[1]):
            low, high = words[0, j], np.uint32(words[1, j])
            r = reduce_word(high, np.uint32(low >> np.uint64(32)), c, cs, one, p)
            r = reduce_word(r, np.uint32(low), c, cs, one, p)
            r = min(r, np.uint32(r - np.uint32(p + p)))
            out[i, j] = min(r, np.uint32(r - p))


def add_flood(x: Lanes, coins: Words, flood: int, ring: Ring) -> None:
    """Add to residues x (primes, size) integers uniform in [-2^flood, 2^flood), made of two uniform words each."""
    mask = (1 << (flood + 1)) - 1
    masks = np.array([mask & ((1 << 64) - 1), mask >> 64], np.uint64)
    offset = np.array([p - pow(2, flood, p) for p in ring.primes], np.uint32)
    _add_flood(x, coins, masks, offset, word_constants(ring.primes), ring.moduli)


@njit(cache=True, nogil=True)
def _add_flood(x: Lanes, coins: Words, masks: Words, offset: Lanes, constants: Lanes, moduli: Lanes) -> None:
    u32 = np.uint64(32)
    for i in range(moduli.size):
        p, o = moduli[i], offset[i]
        c, cs, one = constants[i, 0], constants[i, 1], constants[i, 2]
        for j in range(x.shape[1]):
            low, high = coins[0, j] & masks[0], coins[1, j] & masks[1]
            r = reduce_word(np.uint32(high >> u32), np.uint32(high), c, cs, one, p)
            r = reduce_word(r, np.uint32(low >> u32), c, cs, one, p)
            r = reduce_word(r, np.uint32(low), c, cs, one, p)
            r = min(r, np.uint32(r - np.uint32(p + p)))
            r = np.uint32(min(r, np.uint32(r - p)) + o)
            r = np.uint32(min(r, np.uint32(r - p)) + x[i, j])
            x[i, j] = min(r, np.uint32(r - p))


@functools.cache
def _joining_tables(ring_primes: tuple[int, ...], q: int) -> tuple[Lanes, Limbs, Limbs, Limbs]:
    inverse = np.concatenate([with_shoup([pow(q // p, -1, p)], p).T for p in ring_primes])
    parts = np.array([_limbs(q // p, 3) for p in ring_primes], np.uint64)
    shares = np.array([(1 << 62) // p for p in ring_primes], np.uint64)
    return inverse, parts, shares, np.array(_limbs(-q % (1 << 96), 3), np.uint64)


def to_words(x: Lanes, ring: Ring) -> Words:
    """Return (2, size): low and high words, modulo 2^96, of signed integers below q / 8; 4 primes at most."""
    out = np.empty((2, x.shape[1]), np.uint64)
    _to_words(x, *_joining_tables(ring.primes, ring.q), ring.moduli, out)
    return out


@njit(cache=True, nogil=True)
def _to_words(x: Lanes, inverse: Lanes, parts: Limbs, shares: Limbs, minus_q: Limbs, moduli: Lanes, out: Words) -> None:
    u32, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    for j in range(x.shape[1]):
        a0, a1, a2, turns = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(1) << np.uint64(61)
        for i in range(moduli.size):
            p, v = moduli[i], x[i, j]
            quotient = np.uint32((np.uint64(v) * np.uint64(inverse[i, 1])) >> u32)
            y = np.uint32(np.uint32(v * inverse[i, 0]) - np.uint32(quotient * p))
            z = np.uint64(min(y, np.uint32(y - p)))
            a0 += z * parts[i, 0]
            a1 += z * parts[i, 1]
            a2 += z * parts[i, 2]
            turns += z * shares[i]
        turns >>= np.uint64(62)
        a0 += turns * minus_q[0]
        a1 += turns * minus_q[1] + (a0 >> u32)
        a2 += turns * minus_q[2] + (a1 >> u32)
        out[0, j] = (a1 << u32) | (a0 & low)
        out[1, j] = a2 & low
