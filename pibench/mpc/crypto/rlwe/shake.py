"""Eight SHAKE128 streams side by side (FIPS 202), for the public polynomials of ciphertexts: bit for bit hashlib's."""

from __future__ import annotations

import numpy as np
from numba import njit

from pibench.mpc.crypto.rlwe.arithmetic import Words
from pibench.mpc.crypto.rlwe.primes import LANES, PRIME_BITS, Lanes
from pibench.mpc.crypto.rlwe.vectors import keccak_round

RATE_WORDS = 21  # of 64 bits that a permutation gives


def _round_constants() -> Words:
    """Return iota's constants from their linear feedback register (FIPS 202, 3.2.5)."""
    register, constants = 1, []
    for _ in range(24):
        constant = 0
        for j in range(7):
            constant |= (register & 1) << ((1 << j) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    return np.array(constants, np.uint64)


_CONSTANTS = _round_constants()


@njit(cache=True, nogil=True)
def absorb(heads: Words, constants: Words) -> Words:
    """Kernel: the states after messages heads (words, LANES) of whole words, less than one block; flat."""
    state = np.zeros(25 * LANES, np.uint64)
    for k in range(heads.shape[0]):
        for lane in range(LANES):
            state[k * LANES + lane] = heads[k, lane]
    for lane in range(LANES):
        state[heads.shape[0] * LANES + lane] = np.uint64(0x1F)
        state[(RATE_WORDS - 1) * LANES + lane] ^= np.uint64(1) << np.uint64(63)
    _permute(state, constants)
    return state


@njit(cache=True, nogil=True)
def _permute(state: Words, constants: Words) -> None:
    for r in range(24):
        keccak_round(state, constants[r])


@njit(cache=True, nogil=True)
def _uniform(heads: Words, p: np.uint32, constants: Words, out: Lanes) -> None:
    """Kernel: out (n, LANES) uniform below p, from 27 bits of every 32 of each stream, numbers from p up left out."""
    n, mask = out.shape[0], np.uint32((1 << PRIME_BITS) - 1)
    state, found, least = absorb(heads, constants), np.zeros(LANES, np.int64), 0
    flat = out.reshape(-1)
    while least < n:
        for k in range(RATE_WORDS):
            for lane in range(LANES):
                word = state[k * LANES + lane]
                for half in range(2):
                    v = np.uint32(np.uint32(word >> np.uint64(32 * half)) & mask)
                    if v < p and found[lane] < n:  # public numbers
                        flat[found[lane] * LANES + lane] = v
                        found[lane] += 1
        least = found.min()
        if least < n:
            _permute(state, constants)


def uniform_lanes(heads: Words, p: int, out: Lanes) -> None:
    """Fill out (n, LANES) with numbers uniform below p, lane k from SHAKE128 of the words heads[:, k]."""
    _uniform(heads, np.uint32(p), _CONSTANTS, out)
