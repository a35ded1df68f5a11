"""Ciphertexts as bytes: residues in 27 bits each, fractions of q in whole bytes, and a check that notices damage.

The check is no authentication: parties are semi-honest. It turns a damaged or misplaced message into an error instead
of wrong logits. Parsing reads all of a message whatever is in it, and says afterwards what was wrong.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pibench.errors import MalformedError
from pibench.mpc.crypto.rlwe.arithmetic import Words
from pibench.mpc.crypto.rlwe.primes import LANES, PRIME_BITS, Lanes, Ring
from pibench.mpc.ring.packing import pack, unpack

Bytes = NDArray[np.uint8]
CHECK_BYTES = 16


def residue_bytes(count: int, ring: Ring) -> int:
    """Bytes of `count` polynomials as residues."""
    return count * ring.count * ring.n * PRIME_BITS // 8


def pack_residues(x: Lanes, count: int) -> Bytes:
    """Return the first `count` polynomials of (groups, primes, n, LANES) in 27 bits a residue; n a multiple of 32."""
    out = np.empty((count, x.shape[1], x.shape[2] * PRIME_BITS // 32), np.uint32)
    _pack(x, out)
    return out.reshape(-1).view(np.uint8)


def unpack_residues(data: Bytes, count: int, ring: Ring, what: str) -> Lanes:
    """Return (groups, primes, n, LANES), filled up with zeros; raises MalformedError if a residue is none."""
    out = np.zeros((-(-count // LANES), ring.count, ring.n, LANES), np.uint32)
    lines = data.view(np.uint32).reshape(count, ring.count, -1)
    if _unpack(lines, ring.moduli, out):
        raise MalformedError(f"{what} from the peer holds numbers that are no residues: damaged, or of another version")
    return out


@njit(cache=True, nogil=True)
def _pack(x: Lanes, out: NDArray[np.uint32]) -> None:
    for k in range(out.shape[0]):
        group, lane = k // LANES, k % LANES
        for i in range(out.shape[1]):
            held, bits, at = np.uint64(0), np.uint64(0), 0
            for j in range(x.shape[2]):
                held |= np.uint64(x[group, i, j, lane]) << bits
                bits += np.uint64(PRIME_BITS)
                if bits >= np.uint64(32):  # positions, not values
                    out[k, i, at] = np.uint32(held)
                    held >>= np.uint64(32)
                    bits -= np.uint64(32)
                    at += 1


@njit(cache=True, nogil=True)
def _unpack(lines: NDArray[np.uint32], moduli: Lanes, out: Lanes) -> int:
    mask, most = np.uint64((1 << PRIME_BITS) - 1), np.uint64(0)
    for k in range(lines.shape[0]):
        group, lane = k // LANES, k % LANES
        for i in range(lines.shape[1]):
            held, bits, at, p = np.uint64(0), np.uint64(0), 0, np.uint64(moduli[i])
            for j in range(out.shape[2]):
                if bits < np.uint64(PRIME_BITS):
                    held |= np.uint64(lines[k, i, at]) << bits
                    bits += np.uint64(32)
                    at += 1
                v = held & mask
                most |= np.uint64(v >= p)
                out[group, i, j, lane] = np.uint32(v)
                held >>= np.uint64(PRIME_BITS)
                bits -= np.uint64(PRIME_BITS)
    return int(most)


def pack_words(words: Words, width: int) -> list[Bytes]:
    """Return (2, count) low and high words, `width` bytes a number, as planes."""
    low = pack(np.ascontiguousarray(words[0]).view(np.int64), min(width, 8)).view(np.uint8)
    return [low] if width <= 8 else [low, pack(np.ascontiguousarray(words[1]).view(np.int64), width - 8).view(np.uint8)]


def unpack_words(data: Bytes, count: int, width: int) -> Words:
    """Undo `pack_words`."""
    out = np.zeros((2, count), np.uint64)
    for row, first, size in ((0, 0, min(width, 8)), (1, min(width, 8), max(width - 8, 0))):
        if size:
            words = unpack(data[first * count : (first + size) * count], size).view(np.uint64)
            out[row] = words & np.uint64((1 << (8 * size)) - 1)
    return out


def check_of(data: Bytes) -> Bytes:
    """Return 16 bytes that change with any damage: two running sums over the message's words."""
    out = np.zeros(CHECK_BYTES // 8, np.uint64)
    whole = data.size // 8 * 8
    _sums(data[:whole].view(np.uint64), data[whole:], out)
    return out.view(np.uint8)


@njit(cache=True, nogil=True)
def _sums(words: Words, rest: Bytes, out: Words) -> None:
    total, second = np.uint64(words.size), np.uint64(rest.size)
    for i in range(words.size):
        total += words[i]
        second += total
    for i in range(rest.size):
        total += np.uint64(rest[i])
        second += total
    out[0], out[1] = total, second
