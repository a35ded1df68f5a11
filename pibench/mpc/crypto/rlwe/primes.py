"""Primes of 27 bits with roots of unity, and what number-theoretic transforms and residue arithmetic need of them.

A ring is Z[x]/(x^n + 1) modulo a product of the first primes. Every prime is 1 modulo 2 * 8192, so that a root of
x^n = -1 exists for every n up to 8192. 27 bits let a transform run in 32-bit lanes without reducing before its end
(2 + 2 * 13 = 28 multiples of a prime stay below 2^32), and 512 products be summed in 64 bits.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[np.uint32]
LANES = 8  # polynomials side by side in every array: (groups, primes, n, LANES), one register of 32-bit numbers
DEGREE = 8192
PRIME_BITS = 27
_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)  # decide primality below 3.3e24


def is_prime(number: int) -> bool:
    """Return whether an odd number is prime (Miller and Rabin; exact for numbers below 3.3e24)."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in _WITNESSES:
        if base % number == 0:
            continue
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        if not any((power := power * power % number) == number - 1 for _ in range(twos - 1)):
            return False
    return number > 1


@functools.cache
def primes(count: int) -> tuple[int, ...]:
    """Return the `count` largest primes of 27 bits that are 1 modulo 2 * 8192, largest first."""
    found: list[int] = []
    candidate = (1 << PRIME_BITS) + 1
    while len(found) < count:
        candidate -= 2 * DEGREE
        if is_prime(candidate):
            found.append(candidate)
    return tuple(found)


@dataclass(frozen=True)
class Ring:
    """Z_q[x]/(x^n + 1), q a product of primes, with tables for the kernels; a factor's `shoup` is floor(w 2^32 / p)."""

    n: int
    primes: tuple[int, ...]
    moduli: Lanes  # (primes,)
    roots: Lanes  # (primes, 2, n): powers of the root in bit-reversed order, and their shoup numbers
    inverse_roots: Lanes  # (primes, 2, n)
    inverse_n: Lanes  # (primes, 2)

    @property
    def q(self) -> int:
        """The modulus."""
        return math.prod(self.primes)

    @property
    def count(self) -> int:
        """How many primes there are."""
        return len(self.primes)


@functools.cache
def ring(count: int, n: int = DEGREE) -> Ring:
    """Return the ring of degree n modulo the first `count` primes."""
    ps = primes(count)
    tables = [_tables(p, n) for p in ps]
    forward, backward, scale = (np.stack([table[i] for table in tables]) for i in range(3))
    return Ring(n, ps, np.array(ps, np.uint32), forward, backward, scale)


def with_shoup(numbers: list[int] | NDArray[np.unsignedinteger], p: int) -> Lanes:
    """Return (2, len): numbers below p, and floor(number 2^32 / p) of each."""
    x = np.asarray(numbers, np.uint64)
    return np.stack([x, (x << np.uint64(32)) // np.uint64(p)]).astype(np.uint32)


@functools.cache
def _tables(p: int, n: int) -> tuple[Lanes, Lanes, Lanes]:
    psi = next(r for g in range(2, p) if pow(r := pow(g, (p - 1) // (2 * n), p), n, p) == p - 1)
    return _powers(psi, p, n), _powers(pow(psi, -1, p), p, n), with_shoup([pow(n, -1, p)], p)[:, 0]


def _powers(root: int, p: int, n: int) -> Lanes:
    """Return (2, n): root^i modulo p in bit-reversed order of i, with shoup numbers."""
    made = np.ones(1, np.uint64)
    for bit in reversed(range(n.bit_length() - 1)):  # the first step tells even places from odd: i's highest bit
        made = np.stack([made, made * np.uint64(pow(root, n >> (bit + 1), p)) % np.uint64(p)], 1).reshape(-1)
    return with_shoup(made, p)
