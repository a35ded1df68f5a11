"""Kernels of the extension: keystreams of the leaves, their sums a tree, and columns turned into rows of 128 bits."""

from __future__ import annotations

import numpy as np
from numba import njit

from pibench.mpc.crypto.aes import Words, keystream

TREES, LEAVES, DEPTH = 32, 16, 4
PIECE = 256  # words (64 transfers each) at a time: sixteen keystreams of a piece stay in the first cache
_LANES = 8  # columns of words that are turned together


@njit(cache=True, nogil=True)
def _fold(leaves: Words, size: int, total: Words, sums: Words, row: int) -> None:
    """Put into total the sum of all leaves, and into sums[row + b] that of the leaves whose number has bit b."""
    for i in range(size):
        a1, a3, a5, a7 = leaves[1, i], leaves[3, i], leaves[5, i], leaves[7, i]
        a9, a11, a13, a15 = leaves[9, i], leaves[11, i], leaves[13, i], leaves[15, i]
        a2, a4, a6, a8 = leaves[2, i], leaves[4, i], leaves[6, i], leaves[8, i]
        a10, a12, a14 = leaves[10, i], leaves[12, i], leaves[14, i]
        b3, b7, b11, b15 = a2 ^ a3, a6 ^ a7, a10 ^ a11, a14 ^ a15
        odd = a1 ^ a3 ^ a5 ^ a7 ^ a9 ^ a11 ^ a13 ^ a15
        high = a8 ^ a9 ^ b11 ^ a12 ^ a13 ^ b15
        sums[row, i] = odd
        sums[row + 1, i] = b3 ^ b7 ^ b11 ^ b15
        sums[row + 2, i] = a4 ^ a5 ^ b7 ^ a12 ^ a13 ^ b15
        sums[row + 3, i] = high
        total[i] = leaves[0, i] ^ a1 ^ b3 ^ a4 ^ a5 ^ b7 ^ high


@njit(cache=True, nogil=True)
def _turn(columns: Words, size: int, rows: Words, at: int) -> None:
    """Bit i of word j of columns (128, size) becomes bit r of rows[at + 64 j + i] for column r."""
    part = np.empty((128, _LANES), np.uint64)
    for j in range(0, size, _LANES):
        lanes = min(_LANES, size - j)
        for r in range(128):
            for lane in range(lanes):
                part[r, lane] = columns[r, j + lane]
        for half in range(2):
            _turn_square(part[64 * half : 64 * half + 64])
        for lane in range(lanes):
            for i in range(64):
                rows[at + 64 * (j + lane) + i, 0] = part[i, lane]
                rows[at + 64 * (j + lane) + i, 1] = part[64 + i, lane]


@njit(cache=True, nogil=True)
def _turn_square(part: Words) -> None:
    """Transpose 64 x 64 bits in every lane: halves swap, then quarters within them (Warren, Hacker's Delight, 7-3)."""
    step, mask = 32, np.uint64(0x00000000FFFFFFFF)
    while step:
        for start in range(0, 64, 2 * step):
            for k in range(start, start + step):
                x, y = part[k], part[k + step]
                for lane in range(_LANES):
                    moved = ((x[lane] >> np.uint64(step)) ^ y[lane]) & mask
                    y[lane] ^= moved
                    x[lane] ^= moved << np.uint64(step)
        step >>= 1
        mask ^= mask << np.uint64(step)


@njit(cache=True, nogil=True)
def _streams(keys: Words, tree: int, first: int, size: int, block: int, leaves: Words) -> None:
    """Fill leaves[first:] (16, at least size) with the next keystream of a tree's leaves."""
    count = (size + 1) // 2
    for leaf in range(first, LEAVES):
        keystream(leaves[leaf], 0, count, block, keys, 22 * (LEAVES * tree + leaf))


@njit(cache=True, nogil=True)
def receive_rows(keys: Words, block: int, choices: Words, rows: Words, message: Words) -> int:
    """Receiver: rows (64 n, 2) and message (32 n) for choices (n); returns the next block of the keystreams.

    The message lies in pieces of PIECE words a tree, so that both sides go through it alike.
    """
    leaves, columns = np.empty((LEAVES, PIECE), np.uint64), np.empty((4 * TREES, PIECE), np.uint64)
    for at in range(0, choices.size, PIECE):
        size = min(PIECE, choices.size - at)
        for tree in range(TREES):
            _streams(keys, tree, 0, size, block, leaves)
            said = message[TREES * at + tree * size : TREES * at + (tree + 1) * size]
            _fold(leaves, size, said, columns, DEPTH * tree)
            for i in range(size):
                said[i] ^= choices[at + i]
        _turn(columns, size, rows, 64 * at)
        block += (size + 1) // 2
    return block


@njit(cache=True, nogil=True)
def send_rows(keys: Words, block: int, masks: Words, message: Words, rows: Words) -> int:
    """Sender: rows (64 n, 2) for a message (32 n); masks (128) are Delta's bits, each all ones or zero."""
    leaves, columns = np.zeros((LEAVES, PIECE), np.uint64), np.empty((4 * TREES, PIECE), np.uint64)
    junk = np.empty(PIECE, np.uint64)
    words = message.size // TREES
    for at in range(0, words, PIECE):
        size = min(PIECE, words - at)
        for tree in range(TREES):
            _streams(keys, tree, 1, size, block, leaves)
            _fold(leaves, size, junk, columns, DEPTH * tree)
            heard = message[TREES * at + tree * size : TREES * at + (tree + 1) * size]
            for bit in range(DEPTH * tree, DEPTH * tree + DEPTH):
                for i in range(size):
                    columns[bit, i] ^= masks[bit] & heard[i]
        _turn(columns, size, rows, 64 * at)
        block += (size + 1) // 2
    return block
