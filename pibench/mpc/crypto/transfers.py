"""What rows become: pads, and from them random, chosen and additively correlated transfers of words.

A pad of a row is its hash under a public key that changes every 1,024 rows; the sender has the pads of q and of
q ^ Delta, the receiver that of t, which is the one that its choice names. The key's number is the row's place in its
connection, which both count, so that no key, row or pad serves twice.

Security: circular correlation robustness of the hash (`aes.py`), Delta's 127 bits unknown. A key sees 2 * 1,024 blocks
of a connection, and the multi-instance bound (Guo, Katz, Wang, Weng and Yu, CRYPTO 2020) is that of one use times as
many: `SECURITY_BITS` = 127 - 11 = 116 remain, however many connections there are.
Cost: random transfers none; a correlated transfer of w bits one message of w bits from the sender.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pibench.mpc.crypto.aes import Words, derive_key, hash_blocks

ROWS_A_KEY = 1024
SECURITY_BITS = 127 - math.log2(2 * ROWS_A_KEY)  # Delta's lowest bit is known; both pads of a row, under one key
PAD_KEYS = 1  # purposes of derived keys, their top byte; no two may be alike
PAD_KEYS_MORE = 2  # the second block of a row's pad
GARBLING_KEYS = 3


@njit(cache=True, nogil=True)
def pads(rows: Words, start: int, offset: Words, salt: Words, purpose: int, out: Words) -> None:
    """Kernel: hashes of rows ^ offset (flat, 2 n words) into out, from place `start` of the connection on.

    `offset` (2,) is zero, or Delta for the sender's second pad.
    """
    key, turned = np.empty(22, np.uint64), np.empty(2 * ROWS_A_KEY, np.uint64)
    at, count = 0, rows.size // 2
    while at < count:
        number = (start + at) // ROWS_A_KEY
        size = min(count - at, (number + 1) * ROWS_A_KEY - start - at)
        derive_key(salt, purpose << 56, number, key, 0)
        for i in range(0, 2 * size, 2):
            turned[i] = rows[2 * at + i] ^ offset[0]
            turned[i + 1] = rows[2 * at + i + 1] ^ offset[1]
        hash_blocks(out, 2 * at, turned, 0, size, key, 0)
        at += size


def sender_pads(rows: Words, start: int, delta: Words, salt: Words, purpose: int = PAD_KEYS) -> tuple[Words, Words]:
    """Return the pads (n, 2) of choices 0 and 1 for rows (n, 2) of the sender."""
    made = np.empty((2, *rows.shape), np.uint64)
    flat = np.ascontiguousarray(rows).reshape(-1)
    for out, offset in zip(made, (np.zeros(2, np.uint64), delta), strict=True):
        pads(flat, start, offset, salt, purpose, out.reshape(-1))
    return made[0], made[1]


def receiver_pads(rows: Words, start: int, salt: Words, purpose: int = PAD_KEYS) -> Words:
    """Return the pads (n, 2) that the receiver's choices name."""
    made = np.empty(rows.shape, np.uint64)
    pads(np.ascontiguousarray(rows).reshape(-1), start, np.zeros(2, np.uint64), salt, purpose, made.reshape(-1))
    return made


def send_correlated(pad0: Words, pad1: Words, difference: Words) -> tuple[Words, Words]:
    """Sender: return its shares and the message, for products choice * difference modulo 2^64; all (n,)."""
    return -pad0, pad0 - pad1 + difference


def take_correlated(pad: Words, message: Words, choices: Words) -> Words:
    """Receiver: return its shares of the products; choices (n,) are 0 or 1."""
    return pad + (message & -choices)
