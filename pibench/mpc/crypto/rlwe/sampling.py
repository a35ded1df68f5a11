"""Polynomials at random: public ones from a seed, secrets and errors from a cryptographic stream.

* Public: uniform modulo every prime, from SHAKE128 of a seed of 32 bytes and the position (FIPS 202), 27 bits of each
  four bytes, numbers from the prime up rejected. In the random oracle model a seed's expansion is as good as a uniform
  polynomial that is sent whole, which a stream cipher under a *known* key does not promise.
* Secrets: uniform in {-1, 0, 1}, 62 bits a coefficient (off by less than 2^-61).
* Errors: centred binomial of 21 + 21 bits, deviation sqrt(10.5) = 3.24; the standard has 3.19.

Rejection depends on public numbers only, and nothing branches on a secret; more is not claimed of local timing.
"""

from __future__ import annotations

import os

import numpy as np
from numba import njit

from pibench.mpc.crypto.rlwe.arithmetic import Small, Words
from pibench.mpc.crypto.rlwe.primes import LANES, Lanes, Ring
from pibench.mpc.crypto.rlwe.shake import uniform_lanes
from pibench.mpc.ring.randomness import Stream

SEED_BYTES = 32
ERROR_COINS = 21  # bits on either side of a centred binomial
ERROR_BOUND = ERROR_COINS
ERROR_VARIANCE = ERROR_COINS / 2


def public_seed() -> bytes:
    """Return a fresh seed of public polynomials from the operating system."""
    return os.urandom(SEED_BYTES)


def expand(seed: bytes, count: int, ring: Ring) -> Lanes:
    """Return `count` public uniform polynomials as residues (groups, primes, n, LANES), transformed domain.

    The last group is filled up with zeros.
    """
    groups = -(-count // LANES)
    out = np.empty((groups, ring.count, ring.n, LANES), np.uint32)
    heads = np.empty((SEED_BYTES // 8 + 1, LANES), np.uint64)
    heads[:-1] = np.frombuffer(seed, np.uint64)[:, None]
    for g in range(groups):
        for i, p in enumerate(ring.primes):  # the seed, then polynomial and prime as 32-bit numbers
            heads[-1] = np.arange(g * LANES, (g + 1) * LANES, dtype=np.uint64) + np.uint64(i << 32)
            uniform_lanes(heads, p, out[g, i])
    out[-1, :, :, count - (groups - 1) * LANES :] = 0
    return out


def ternary(stream: Stream, groups: int, n: int) -> Small:
    """Return (groups, n, LANES) secret coefficients, uniform in {-1, 0, 1}."""
    out = np.empty(groups * n * LANES, np.int32)
    _ternary(stream.words(out.size).view(np.uint64), out)
    return out.reshape(groups, n, LANES)


@njit(cache=True, nogil=True)
def _ternary(words: Words, out: Small) -> None:
    for i in range(words.size):
        out[i] = np.int32(np.uint64((words[i] >> np.uint64(2)) * np.uint64(3)) >> np.uint64(62)) - np.int32(1)


def error(stream: Stream, groups: int, n: int) -> Small:
    """Return (groups, n, LANES) secret errors, centred binomial."""
    out = np.empty(groups * n * LANES, np.int32)
    _binomial(stream.words(out.size).view(np.uint64), out)
    return out.reshape(groups, n, LANES)


@njit(cache=True, nogil=True)
def _ones(x: np.uint64) -> np.uint64:
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.uint64(x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(cache=True, nogil=True)
def _binomial(words: Words, out: Small) -> None:
    mask = np.uint64((1 << ERROR_COINS) - 1)
    for i in range(words.size):
        w = words[i]
        out[i] = np.int32(_ones(w & mask)) - np.int32(_ones((w >> np.uint64(ERROR_COINS)) & mask))
