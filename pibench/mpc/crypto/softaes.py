"""AES-128 without AES instructions, for numba targets that have none: the usual four tables (Daemen and Rijmen, 1999).

Bit for bit what the instructions compute, and a hundred times slower; its reads depend on what is encrypted, which
whoever shares the machine's caches could time. Local timing is out of scope.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def _double(x: int) -> int:
    return (x << 1) ^ (0x11B if x & 0x80 else 0)


def _boxes() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the S-box (FIPS 197, 5.1.1: inverse in GF(2^8), then affine) and the table of its MixColumns column."""
    powers = [1]
    for _ in range(254):
        powers.append(powers[-1] ^ _double(powers[-1]))  # 3 generates the field
    logs = {value: k for k, value in enumerate(powers)}
    box = []
    for x in range(256):
        inverse = powers[-logs[x] % 255] if x else 0
        turned = [(inverse << k | inverse >> (8 - k)) & 0xFF for k in range(5)]
        box.append(0x63 ^ turned[0] ^ turned[1] ^ turned[2] ^ turned[3] ^ turned[4])
    column = [_double(s) | s << 8 | s << 16 | (s ^ _double(s)) << 24 for s in box]
    return np.array(box, np.uint32), np.array(column, np.uint32)


_BOX, _COLUMN = _boxes()


@njit(cache=True, nogil=True, inline="always")
def _turn(x: np.uint32, bits: int) -> np.uint32:
    return np.uint32((x << np.uint32(bits)) | (x >> np.uint32(32 - bits)))


@njit(cache=True, nogil=True, inline="always")
def _mixed(c0: np.uint32, c1: np.uint32, c2: np.uint32, c3: np.uint32) -> Any:
    """Return a column after SubBytes, ShiftRows and MixColumns; c0 to c3 are the columns from its own on."""
    byte = np.uint32(255)
    low = _COLUMN[c0 & byte] ^ _turn(_COLUMN[(c1 >> np.uint32(8)) & byte], 8)
    return low ^ _turn(_COLUMN[(c2 >> np.uint32(16)) & byte], 16) ^ _turn(_COLUMN[c3 >> np.uint32(24)], 24)


@njit(cache=True, nogil=True, inline="always")
def _moved(c0: np.uint32, c1: np.uint32, c2: np.uint32, c3: np.uint32) -> Any:
    """Return the same without MixColumns, for the last round."""
    byte = np.uint32(255)
    low = _BOX[c0 & byte] | _BOX[(c1 >> np.uint32(8)) & byte] << np.uint32(8)
    return low | _BOX[(c2 >> np.uint32(16)) & byte] << np.uint32(16) | _BOX[c3 >> np.uint32(24)] << np.uint32(24)


@njit(cache=True, nogil=True)
def encrypt_one(a: np.uint64, b: np.uint64, keys: Words, ki: int) -> tuple[np.uint64, np.uint64]:
    """Encrypt the block (a, b) under the round keys keys[ki : ki + 22]."""
    half = np.uint64(32)
    a ^= keys[ki]
    b ^= keys[ki + 1]
    for r in range(1, 11):
        c0, c1, c2, c3 = np.uint32(a), np.uint32(a >> half), np.uint32(b), np.uint32(b >> half)
        if r < 10:
            d0, d1, d2, d3 = (
                _mixed(c0, c1, c2, c3),
                _mixed(c1, c2, c3, c0),
                _mixed(c2, c3, c0, c1),
                _mixed(c3, c0, c1, c2),
            )
        else:
            d0, d1, d2, d3 = (
                _moved(c0, c1, c2, c3),
                _moved(c1, c2, c3, c0),
                _moved(c2, c3, c0, c1),
                _moved(c3, c0, c1, c2),
            )
        a = (np.uint64(d0) | np.uint64(d1) << half) ^ keys[ki + 2 * r]
        b = (np.uint64(d2) | np.uint64(d3) << half) ^ keys[ki + 2 * r + 1]
    return a, b


@njit(cache=True, nogil=True)
def expand_one(key: Words, k: int, keys: Words, ki: int) -> None:
    """Expand the key at key[k : k + 2] into the round keys keys[ki : ki + 22]."""
    half, byte = np.uint64(32), np.uint32(255)
    keys[ki], keys[ki + 1] = key[k], key[k + 1]
    c0, c1 = np.uint32(key[k]), np.uint32(key[k] >> half)
    c2, c3 = np.uint32(key[k + 1]), np.uint32(key[k + 1] >> half)
    rcon = np.uint32(1)
    for r in range(1, 11):
        x = _turn(np.uint32(c3), 24)
        low = _BOX[x & byte] | _BOX[(x >> np.uint32(8)) & byte] << np.uint32(8)
        c0 ^= low | _BOX[(x >> np.uint32(16)) & byte] << np.uint32(16) | _BOX[x >> np.uint32(24)] << np.uint32(24)
        c0 ^= rcon
        c1 ^= c0
        c2 ^= c1
        c3 ^= c2
        rcon = np.uint32((rcon << np.uint32(1)) ^ (np.uint32(0x11B) if rcon & np.uint32(0x80) else np.uint32(0)))
        keys[ki + 2 * r] = np.uint64(c0) | np.uint64(c1) << half
        keys[ki + 2 * r + 1] = np.uint64(c2) | np.uint64(c3) << half
