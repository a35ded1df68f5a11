"""Local arithmetic of the interactive steps, on flat arrays; compiled once and kept on disk by numba.

Signs come from one-time truth tables (Ishai, Kushilevitz, Meldgaard, Orlandi, Paskin-Cherniavsky, TCC 2013) with half
the table that a comparison seems to need: of a digit r_j only the one-hot word of r_j is shared. A party's share of
[c_j = r_j] is one bit of its word, and its share of [c_j < r_j] is the parity of the bits above c_j, because shares by
XOR may be summed before they are opened.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pibench.mpc.backends.backend import BITS_MASK, DIGITS, Digits

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Halves = NDArray[np.uint32]
Bytes = NDArray[np.uint8]


def _popcount(typingctx: Any, word: Any) -> Any:
    """Count the bits of a 64-bit word: one instruction, in vectors too where the processor has it."""
    return types.uint64(types.uint64), lambda context, builder, signature, arguments: builder.ctpop(arguments[0])


popcount: Any = intrinsic(_popcount)


@njit(cache=True, nogil=True)
def open_masked(z: Ints, pre: Ints, low: int, c: Ints) -> None:
    """Compute c = (z + pre) >> low: what goes out, in whole bytes, since the mask is a whole word."""
    for i in range(z.size):
        c[i] = (z[i] + pre[i]) >> low


@njit(cache=True, nogil=True)
def read_digits(c: Ints, words: Words, mu: Bytes, digits: Digits, bits: Bytes) -> None:
    """Read this party's table shares at the public c: six bits masked by mu, and lt3 as bit 6.

    Words lie in planes, one a word of a digit. The parity of the bits above c_j and the bit at c_j are the shares of
    [c_j < r_j] and [c_j = r_j]: those above are the rest of c_j's own word and all higher planes.
    """
    one, low, plane = np.uint64(1), 0, 0
    bits[:] = mu
    for j in range(DIGITS):
        per, last, shift = 1 << (digits[j] - 6), np.uint64((1 << digits[j]) - 1), np.uint64(low)
        less, equal, equals = np.uint64(j if j < 3 else 6), np.uint64(2 + j), np.uint64(j > 0)
        if per == 2:  # the usual width: one pass, without a branch or working memory
            first, second = np.uintp(plane), np.uintp(plane + 1)
            for i in range(c.size):
                at = np.uintp(i)
                digit = (np.uint64(c[at]) >> shift) & last
                high = np.uint64(0) - (digit >> np.uint64(6))  # all ones where the second word holds c_j
                here = ((words[second, at] & high) | (words[first, at] & ~high)) >> (digit & np.uint64(63))
                above = (here >> one) ^ (words[second, at] & ~high)
                bits[at] ^= np.uint8(((popcount(above) & one) << less) | ((here & equals) << equal))
        else:
            for i in range(c.size):
                at = np.uintp(i)
                digit = (np.uint64(c[at]) >> shift) & last
                slot = np.int64(digit >> np.uint64(6))
                here = words[np.uintp(plane + slot), at] >> (digit & np.uint64(63))
                above = here >> one
                for k in range(slot + 1, per):
                    above ^= words[np.uintp(plane + k), at]
                bits[at] ^= np.uint8(((popcount(above) & one) << less) | ((here & equals) << equal))
        low += digits[j]
        plane += per


@njit(cache=True, nogil=True)
def answer(bits: Bytes, theirs: Bytes, table: Words, reply: Bytes) -> None:
    """Client: from all six masked bits to its share of the masked sign; both go into one byte."""
    for i in range(bits.size):
        u = (bits[i] ^ theirs[i]) & BITS_MASK
        sign = (table[i] >> np.uint64(u)) & np.uint64(1)
        reply[i] = (bits[i] & BITS_MASK) | (((bits[i] >> 6) ^ np.uint8(sign)) << 6)


@njit(cache=True, nogil=True)
def decide(bits: Bytes, reply: Bytes, table: Words, c: Ints, sign_bit: int, beta: Bytes) -> None:
    """Server: the masked sign beta = [x >= 0] xor s, public from here on."""
    for i in range(bits.size):
        u = (bits[i] ^ reply[i]) & BITS_MASK
        sign = np.uint8((table[i] >> np.uint64(u)) & np.uint64(1))
        beta[i] = (sign ^ (bits[i] >> 6) ^ (reply[i] >> 6) ^ np.uint8((c[i] >> sign_bit) & 1)) & 1


@njit(cache=True, nogil=True)
def offer_signs(bits: Bytes, reply: Bytes, c: Ints, sign_bit: int, signs: Bytes) -> None:
    """Client: the masked sign for which its offer at place 0 is; at place 1 lies that for the other one."""
    for i in range(bits.size):
        signs[i] = ((bits[i] >> 6) ^ (reply[i] >> 6) ^ np.uint8((c[i] >> sign_bit) & 1)) & 1


@njit(cache=True, nogil=True)
def deal_pads(table: Words, flip: Bytes, blocks: Words, width: int, pads: Bytes) -> None:
    """Dealer: of two pads of every element and entry (n, 64, 2), the one that the server's table bit opens.

    `pads` (n, 64 width) takes the lowest `width` bytes of each.
    """
    ones = ~np.uint64(0)
    for i in range(table.size):
        chosen = table[i] ^ (ones if flip[i] else np.uint64(0))
        for u in range(64):
            pad = blocks[i, u, (chosen >> np.uint64(u)) & np.uint64(1)]
            for b in range(width):
                pads[i, u * width + b] = np.uint8(pad >> np.uint64(8 * b))


@njit(cache=True, nogil=True)
def take_offer(
    bits: Bytes, reply: Bytes, table: Words, flip: Bytes, pads: Bytes, width: int, first: Ints, second: Ints, out: Ints
) -> None:  # fmt: skip
    """Server: add to `out` the one of two offers that the pad of the entry at hand opens.

    The entry is at the six bits that are opened by now, the offer's place by the server's own bit of the table there.
    """
    for i in range(bits.size):
        u = np.uint64((bits[i] ^ reply[i]) & BITS_MASK)
        place = ((table[i] >> u) ^ np.uint64(flip[i])) & np.uint64(1)
        pad, at = np.uint64(0), np.int64(u) * width
        for b in range(width):
            pad |= np.uint64(pads[i, at + b]) << np.uint64(8 * b)
        out[i] += (second[i] if place else first[i]) - np.int64(pad)


@njit(cache=True, nogil=True)
def select(
    c: Ints, beta: Bytes, s: Ints, rp: Ints, srp: Ints, rt: Halves, srt: Halves,
    sign_bit: int, raised: int, own: int, out: Ints,
) -> None:  # fmt: skip
    """Compute this party's share of y = t b 2^raised, b = beta ^ s, t = c - 2^sign_bit - rho + wrap.

    rho is the opening's mask without its low bits, c has its top bit above the sign. t b = beta t + (1 - 2 beta) t s;
    `own` is 1 on the server, which alone adds the public part of t.
    """
    less = np.int64(1) << sign_bit
    for i in range(c.size):
        tau = c[i] - less
        wrap = (np.int64(1) - ((c[i] >> (sign_bit + 1)) & 1)) << (sign_bit + 2)
        t = own * tau + rp[i] + wrap * np.int64(rt[i])
        ts = tau * s[i] + srp[i] + wrap * np.int64(srt[i])
        out[i] = (t - ts if beta[i] else ts) << raised


@njit(cache=True, nogil=True)
def deal_digits(r: Ints, digits: Digits, words: Words) -> None:
    """Dealer: put the one-hot words of r's digits onto shares of zero."""
    for i in range(r.size):
        rest, first = np.uint64(r[i]), 0
        for j in range(DIGITS):
            digit = np.int64(rest) & ((1 << digits[j]) - 1)
            words[first + (digit >> 6), i] ^= np.uint64(1) << np.uint64(digit & 63)
            rest >>= np.uint64(digits[j])
            first += 1 << (digits[j] - 6)


@njit(cache=True, nogil=True)
def deal_choice(r: Ints, mu: Bytes, s: Bytes, sign_bit: int, permuted: Words, table: Words) -> None:
    """Dealer: put the one-time table of the combination, permuted by mu, onto shares of zero.

    Entry u is g(u xor mu) xor r's sign bit xor s, so that what is read is already the masked [x >= 0]: the offset of
    the opening sets the sign bit of what is not negative.
    """
    ones = ~np.uint64(0)
    for i in range(r.size):
        flip = ((r[i] >> sign_bit) & 1) ^ s[i]
        table[i] ^= permuted[mu[i]] ^ (ones if flip else np.uint64(0))


def combination() -> Words:
    """Return the 64 permutations of the table g(u) = eq3 (lt2 ^ eq2 (lt1 ^ eq1 lt0)): entry mu holds g(u ^ mu)."""
    u = np.arange(64)
    lt0, lt1, lt2, eq1, eq2, eq3 = ((u >> k) & 1 for k in range(6))
    g = eq3 & (lt2 ^ (eq2 & (lt1 ^ (eq1 & lt0))))
    weights = np.uint64(1) << u.astype(np.uint64)
    return np.array([int((g[u ^ mu].astype(np.uint64) * weights).sum()) for mu in range(64)], np.uint64)


@njit(cache=True, nogil=True)
def cut_part(value: Ints, shift: int, bits: int, offset: int, out: Ints, top: Bytes) -> None:
    """One party's part of a truncation: its share as an integer below 2^bits, cut, minus its top bit's weight.

    `offset`, added before, leaves again without what of it lies below the cut.
    """
    mask = (np.int64(1) << (bits - 1)) - 1
    for i in range(value.size):
        whole = value[i] + offset
        high = (whole >> (bits - 1)) & 1
        # (low bits + high 2^(bits-1)) >> shift, minus high 2^(bits-shift)
        out[i] = ((whole & mask) >> shift) - (high << (bits - 1 - shift)) - (offset >> shift)
        top[i] = np.uint8(high)


@njit(cache=True, nogil=True)
def wrap_offers(top: Bytes, d: Bytes, x: Halves, p0: Halves, p1: Halves, offers: Halves) -> None:
    """Client: both possible products of the top bits minus x, each under a pad of which the server holds one."""
    for i in range(top.size):
        first, second = (p1[i], p0[i]) if d[i] else (p0[i], p1[i])
        offers[i] = first - x[i]
        offers[top.size + i] = np.uint32(top[i]) - x[i] + second


@njit(cache=True, nogil=True)
def wrap_take(top: Bytes, offers: Halves, pad: Halves, weight: int, out: Ints) -> None:
    """Server: take the offer that its top bit opens, and add its weight (modulo 2^32 and no further)."""
    for i in range(top.size):
        offer = offers[top.size + i] if top[i] else offers[i]
        out[i] += np.int64(np.uint32(offer - pad[i])) << weight


@njit(cache=True, nogil=True)
def drop_and_mask(value: Ints, shift: int, mask: Ints, out: Ints) -> None:
    """Server: compute out = value / 2^shift, rounded up (see `rounding_up`), + mask."""
    up = (np.int64(1) << shift) - 1
    for i in range(value.size):
        out[i] = ((value[i] + up) >> shift) + mask[i]


@njit(cache=True, nogil=True)
def square(
    c: Ints, rp: Ints, sq: Ints, rt: Halves, rprt: Halves, sign_bit: int, raised: int, own: int, out: Ints
) -> None:
    """Compute this party's shares of t^2 and t 2^raised, alternating; t as in `select`.

    t = tau + rho with rho = rp + wrap rt, so t^2 = tau^2 + 2 tau rho + rp^2 + 2 wrap rp rt + wrap^2 rt.
    """
    less = np.int64(1) << sign_bit
    for i in range(c.size):
        tau = c[i] - less
        wrap = (np.int64(1) - ((c[i] >> (sign_bit + 1)) & 1)) << (sign_bit + 2)
        rho = rp[i] + wrap * np.int64(rt[i])
        rest = sq[i] + 2 * wrap * np.int64(rprt[i]) + wrap * wrap * np.int64(rt[i])
        out[2 * i] = own * tau * tau + 2 * tau * rho + rest
        out[2 * i + 1] = (own * tau + rho) << raised


def cut(values: Ints, bits: int) -> Ints:
    """Return the values modulo 2^bits, as non-negative numbers where bits < 64."""
    return values if bits == 64 else values & ((1 << bits) - 1)


def shift_down(values: Ints, shift: int) -> Ints:
    """Return the values, taken as unsigned, shifted right."""
    return (values.view(np.uint64) >> np.uint64(shift)).view(np.int64)
