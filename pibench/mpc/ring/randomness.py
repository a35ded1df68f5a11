"""Masks from a cryptographic source: AES-128 in counter mode, one fresh seed a stream, each byte handed out once.

CrypTen draws from a Mersenne Twister, which is predictable from its output; a mask must not be.
Both ends of a seed (the dealer and the party that it is given to) draw in the same order and get the same masks.
"""

from __future__ import annotations

import os
import threading

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from numpy.typing import NDArray

SEED_BYTES = 16
_SLACK = 15  # OpenSSL wants room for one block more than it writes
_zeros = threading.local()


def fresh_seed() -> bytes:
    """Return a seed from the operating system."""
    return os.urandom(SEED_BYTES)


class Stream:
    """A keystream read in order; it never hands out a byte twice."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._cipher = Cipher(AES(seed), CTR(bytes(16))).encryptor()

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """Return `count` uniform bytes, writable."""
        out = np.empty(count + _SLACK, np.uint8)
        self._cipher.update_into(_zero_bytes(count), memoryview(out.data))
        return out[:count]

    def words(self, count: int) -> NDArray[np.int64]:
        """Return `count` uniform ring elements."""
        return self.bytes(8 * count).view(np.int64)

    def small(self, count: int, mask: int) -> NDArray[np.uint8]:
        """Return `count` uniform numbers from 0 to `mask` (a power of two less one), a byte each."""
        out = self.bytes(count)
        np.bitwise_and(out, np.uint8(mask), out=out)
        return out

    def halves(self, count: int) -> NDArray[np.uint32]:
        """Return `count` uniform 32-bit words."""
        return self.bytes(4 * count).view(np.uint32)


def blocks_at(key: bytes, places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return (places, 2) uniform words: AES-128 of each place, so that whoever has the key finds any of them alone.

    A place of a key serves once; a key that is read so is no seed of a stream.
    """
    counters = np.zeros((places.size, 2), np.uint64)
    counters[:, 0] = places.view(np.uint64)
    out = np.empty(counters.nbytes + _SLACK, np.uint8)
    Cipher(AES(key), ECB()).encryptor().update_into(counters.data.cast("B"), memoryview(out.data))
    return out[: counters.nbytes].view(np.uint64).reshape(-1, 2)


def _zero_bytes(count: int) -> memoryview:
    """Return that many zero bytes, from a buffer that only grows."""
    buffer = getattr(_zeros, "buffer", None)
    if buffer is None or len(buffer) < count:
        buffer = _zeros.buffer = bytes(max(count, 1 << 16))
    return memoryview(buffer)[:count]
