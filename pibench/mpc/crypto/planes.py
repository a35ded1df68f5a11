"""Bits of words as planes of choices, and words as whole bytes of messages: kernels that both sides share."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pibench.mpc.crypto.aes import Words

Bytes = NDArray[np.uint8]
GROUP = 64  # elements are taken in groups of as many choices as a word holds


def padded(count: int) -> int:
    """Return the count of transfers for as many elements: whole words of choices."""
    return -(-count // GROUP) * GROUP


def whole_bytes(bits: int) -> int:
    """Return the bytes of a number of so many bits, at least one."""
    return max(1, -(-bits // 8))


@njit(cache=True, nogil=True)
def bit_planes(words: Words, count: int) -> Words:
    """Return planes (flat, count * n / 64): bit e of plane i is bit i of words[e]; n is a multiple of 64."""
    groups = words.size // GROUP
    planes = np.empty(count * groups, np.uint64)
    square = np.empty(GROUP, np.uint64)
    for g in range(groups):
        for e in range(GROUP):
            square[e] = words[GROUP * g + e]
        step, mask = 32, np.uint64(0x00000000FFFFFFFF)
        while step:  # transpose 64 x 64 bits (Warren, Hacker's Delight, 7-3)
            for start in range(0, GROUP, 2 * step):
                for k in range(start, start + step):
                    moved = ((square[k] >> np.uint64(step)) ^ square[k + step]) & mask
                    square[k + step] ^= moved
                    square[k] ^= moved << np.uint64(step)
            step >>= 1
            mask ^= mask << np.uint64(step)
        for i in range(count):
            planes[i * groups + g] = square[i]
    return planes


@njit(cache=True, nogil=True, inline="always")
def put(message: Bytes, at: int, value: np.uint64, width: int) -> None:
    """Write the low `width` bytes of a word."""
    for k in range(width):
        message[at + k] = np.uint8((value >> np.uint64(8 * k)) & np.uint64(255))


@njit(cache=True, nogil=True, inline="always")
def get(message: Bytes, at: int, width: int) -> np.uint64:
    """Read a word of `width` bytes."""
    value = np.uint64(0)
    for k in range(width):
        value |= np.uint64(message[at + k]) << np.uint64(8 * k)
    return value
