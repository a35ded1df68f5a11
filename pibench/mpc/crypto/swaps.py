"""Shares by XOR of a vector whose places are moved by a secret: entry v comes to place v ^ c, a transfer a bit of c.

The server knows the vector, the client c. For every bit b of c, places that differ in b alone change places where the
bit is one: v becomes v ^ c_b (v ^ v moved). What is added is alike at both places of a pair, so half of the vector's
bits go over the wire, under the pads of one transfer; the client does the same to its own share by itself. A vector
with a single one at place a becomes the one-hot words of a ^ c.

A vector of 64 bits is a word; longer ones are `per` words, 2 or 4, and pairs of words make one word of message. A
vector of one word sends half a word, two elements in each word of message.

Security: the server learns nothing; the client's messages are one-time padded by the pad that its choice does not name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pibench.mpc.crypto.aes import Words

_ONES = (1 << 64) - 1
_EVEN = np.array([_ONES // ((1 << (1 << bit)) + 1) for bit in range(6)], np.uint64)  # places whose bit is zero


def message_words(per: int, n: int) -> int:
    """Words that one bit's transfers send for n elements (even)."""
    return per * n // 2


@njit(cache=True, nogil=True, inline="always")
def _pair(per: int, k: int, bit: int) -> tuple[int, int]:
    """Words that share message word k: neighbours, or those that bit 6 or 7 of a place tells apart."""
    return (k, k + 2) if bit == 7 else (2 * k, 2 * k + 1)


@njit(cache=True, nogil=True, inline="always")
def _gap(x: np.uint64, y: np.uint64, bit: int) -> Any:
    """Return what a move by this bit would add to both words of a pair, packed into one."""
    if bit >= 6:
        return x ^ y
    step, even = np.uint64(1 << bit), _EVEN[bit]
    return ((x ^ (x >> step)) & even) | (((y ^ (y >> step)) & even) << step)


@njit(cache=True, nogil=True, inline="always")
def _spread(packed: np.uint64, second: bool, bit: int) -> Any:
    """Take the first or second word's additions apart again, to both places of every pair."""
    if bit >= 6:
        return packed
    step, even = np.uint64(1 << bit), _EVEN[bit]
    half = ((packed >> step) if second else packed) & even
    return half | (half << step)


@njit(cache=True, nogil=True)
def send_swap(words: Words, bit: int, k: int, pad0: Words, pad1: Words, stride: int, at: int, message: Words) -> None:
    """Server: move its share words (per, n) by one bit of the client's, message word k of an element.

    Pads of element e are pad0[stride e + at] and pad1[...]; message (n), or (n / 2) where per is 1.
    """
    per, n = words.shape
    if per > 1:
        a, b = _pair(per, k, bit)
        for e in range(n):
            p, x, y = pad0[stride * e + at], words[a, e], words[b, e]
            message[e] = p ^ pad1[stride * e + at] ^ _gap(x, y, bit)
            words[a, e] = x ^ _spread(p, False, bit)
            words[b, e] = y ^ _spread(p, True, bit)
        return
    even, step = _EVEN[bit], np.uint64(1 << bit)
    for e in range(0, n, 2):
        p, q = pad0[stride * e + at], pad0[stride * (e + 1) + at]
        x, y = words[0, e], words[0, e + 1]
        first = (p ^ pad1[stride * e + at]) & even
        second = (q ^ pad1[stride * (e + 1) + at]) & even
        message[e >> 1] = (first | (second << step)) ^ _gap(x, y, bit)
        words[0, e] = x ^ _spread(p, False, bit)
        words[0, e + 1] = y ^ _spread(q, False, bit)


@njit(cache=True, nogil=True)
def take_swap(
    words: Words, bit: int, k: int, pad: Words, stride: int, at: int, message: Words, own: Words, i: int
) -> None:
    """Client: move its share by its choice, bit i of own (n), with the pad of that choice and the server's message."""
    per, n = words.shape
    if per > 1:
        a, b = _pair(per, k, bit)
        for e in range(n):
            chosen = -((own[e] >> np.uint64(i)) & np.uint64(1))
            x, y = words[a, e], words[b, e]
            add = pad[stride * e + at] ^ (chosen & (message[e] ^ _gap(x, y, bit)))
            words[a, e] = x ^ _spread(add, False, bit)
            words[b, e] = y ^ _spread(add, True, bit)
        return
    step = np.uint64(1 << bit)
    for e in range(n):
        chosen = -((own[e] >> np.uint64(i)) & np.uint64(1))
        x, heard = words[0, e], message[e >> 1]
        if e & 1:
            heard >>= step
        add = pad[stride * e + at] ^ (chosen & (heard ^ _gap(x, np.uint64(0), bit)))
        words[0, e] = x ^ _spread(add, False, bit)
