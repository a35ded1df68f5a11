"""Additive shares by transfers: of a bit held by XOR, and of a bit held by XOR times a word of one party.

Kernels, modulo 2^64; what a message carries is cut to the bytes that the result's ring needs. A bit is b = b0 ^ b1, b0
the sender's and b1 the receiver's choice: b = b0 + b1 - 2 b0 b1, and b w = b0 w + b1 (1 - 2 b0) w for the sender's
word w; both products with the choice are correlated transfers (Gilboa, CRYPTO 1999; Demmler, Schneider and Zohner,
*ABY*, NDSS 2015). Pads of element e are pad[2 e + column]: a row's block has two columns, each used once.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pibench.mpc.crypto.aes import Words
from pibench.mpc.crypto.planes import Bytes, get, put


@njit(cache=True, nogil=True)
def send_bit(own: Words, i: int, pad0: Words, pad1: Words, column: int, width: int, said: Bytes, share: Words) -> None:
    """Sender: its share of b from bit i of own (n); the message is `width` bytes an element."""
    for e in range(own.size):
        bit, p = (own[e] >> np.uint64(i)) & np.uint64(1), pad0[2 * e + column]
        put(said, e * width, p - pad1[2 * e + column] + bit, width)
        share[e] = bit + p + p


@njit(cache=True, nogil=True)
def take_bit(own: Words, i: int, pad: Words, column: int, width: int, heard: Bytes, share: Words) -> None:
    """Receiver: its share of b, good modulo 2^(8 width + 1); its choices are bit i of own."""
    for e in range(own.size):
        bit = (own[e] >> np.uint64(i)) & np.uint64(1)
        product = pad[2 * e + column] + (-bit & get(heard, e * width, width))
        share[e] = bit - product - product


@njit(cache=True, nogil=True)
def send_product(
    own: Words, i: int, word: Words, pad0: Words, pad1: Words, column: int, width: int, said: Bytes, share: Words
) -> None:
    """Sender: its share of b w for its words w (n), and the message."""
    for e in range(own.size):
        bit, p = (own[e] >> np.uint64(i)) & np.uint64(1), pad0[2 * e + column]
        put(said, e * width, p - pad1[2 * e + column] + (word[e] - ((bit * word[e]) << np.uint64(1))), width)
        share[e] = bit * word[e] - p


@njit(cache=True, nogil=True)
def take_product(own: Words, i: int, pad: Words, column: int, width: int, heard: Bytes, share: Words) -> None:
    """Receiver: its share of b w, good modulo 2^(8 width)."""
    for e in range(own.size):
        bit = (own[e] >> np.uint64(i)) & np.uint64(1)
        share[e] = pad[2 * e + column] + (-bit & get(heard, e * width, width))


@njit(cache=True, nogil=True)
def add_shifted(share: Words, left: int, right: int, total: Words) -> None:
    """Add shares times 2^left / 2^right (exact; `left` not below `right`)."""
    for e in range(share.size):
        total[e] += share[e] << np.uint64(left - right)
