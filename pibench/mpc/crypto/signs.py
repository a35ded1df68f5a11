"""What a ReLU by one-time truth tables uses up, from transfers alone: no third party.

r = r0 ^ r1 masks an opening, each party's half uniform and its own; nobody knows r. Of it the parties get, for every
element: shares by XOR of the one-hot words of r's four digits and of a permuted table of 64 bits, and shares by
addition of r, -(r >> shift), r's top bit, a bit s that nobody knows, and s times the last two.

Three messages, whatever the number of elements and layers: the client's choices; the server's corrections and its
own choices; the client's corrections. An element takes `Layout.asked` transfers from server to client and one back.

Security: a party's view is its own random bits, rows, and messages padded by what it lacks; pads, and so its shares,
are uniform (docs/protocol.md has the simulators). Cost: `Layout.sizes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pibench.mpc.crypto import shares, swaps
from pibench.mpc.crypto.aes import Words
from pibench.mpc.crypto.planes import Bytes, bit_planes, whole_bytes
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender
from pibench.mpc.crypto.transfers import PAD_KEYS, PAD_KEYS_MORE, pads

CHOICE_BITS = 6  # of the table's place
HALF_BITS = 32  # of the shares of the top bit
_NOTHING = np.zeros(2, np.uint64)


def message_widths(bits: int, shift: int, width: int, top: int) -> list[int]:
    """Return the bytes of every bit's message: twice its product counts 2^i in r, and 2^(i - shift) in the cut r.

    r has `bits`, of which `shift` are cut, modulo 2^`width`; the top bit is also a number modulo 2^`top`.
    """
    made = []
    for i in range(bits):
        wanted = [bits - i - 1]
        wanted += [width - (i - shift) - 1] if i >= shift else []
        wanted += [top - 1] if i == bits - 1 else []
        made.append(whole_bytes(max(wanted)))
    return made


@dataclass(frozen=True)
class Layout:
    """Public shape of r: digits of so many bits each from bit `low` up, then the sign, then the top bit, `bits` in all.

    The mask is cut by `shift` before it meets the sign; results are wanted modulo 2^`width`.
    """

    bits: int
    low: int
    digits: tuple[int, ...]
    shift: int
    width: int

    @property
    def sign(self) -> int:
        """Place of the bit that the table's entries are turned by."""
        return self.low + sum(self.digits)

    @cached_property
    def places(self) -> list[tuple[int, int, slice]]:
        """By digit: its lowest bit in r, its bits, and its one-hot vector's words."""
        made, at, word = [], self.low, 0
        for bits in self.digits:
            made.append((at, bits, slice(word, word + (1 << (bits - 6)))))
            at, word = at + bits, word + (1 << (bits - 6))
        return made

    @property
    def digit_words(self) -> int:
        """Words of all one-hot vectors."""
        return int(self.places[-1][2].stop)

    @property
    def asked(self) -> int:
        """Transfers an element from server to client: a bit of r each, of the table's place, and s."""
        return self.bits + CHOICE_BITS + 1

    @cached_property
    def widths(self) -> list[int]:
        """Bytes of every bit's arithmetic message; the top bit's has the ring of the halves too."""
        return message_widths(self.bits, self.shift, self.width, HALF_BITS)

    @property
    def product_bytes(self) -> int:
        """Bytes of a word of the results' ring."""
        return whole_bytes(self.width)

    def sizes(self, n: int) -> tuple[int, int, int]:
        """Return the bytes of the server's swaps, its other corrections, and the client's, for n elements."""
        moved = sum(bits * swaps.message_words(1 << (bits - 6), n) for bits in self.digits)
        moved += CHOICE_BITS * swaps.message_words(1, n)
        told = sum(self.widths) + 2 * self.product_bytes + HALF_BITS // 8
        return 8 * moved, told * n, (self.product_bytes + HALF_BITS // 8) * n

    def needs_more(self, i: int) -> bool:
        """Whether transfer i wants two blocks of pads."""
        wide = any(bits > 7 and at <= i < at + bits for at, bits, _ in self.places)
        return wide or i == self.asked - 1


@dataclass
class Shares:
    """One party's shares for n elements; arithmetic ones are 64-bit words, good modulo 2^width (top: 2^32)."""

    words: Words  # (digit words, n), by XOR
    table: Words  # (1, n), by XOR
    s: Words
    r: Words
    cut: Words  # -(r >> shift)
    s_cut: Words
    top: Words
    s_top: Words

    @classmethod
    def zeros(cls, layout: Layout, n: int) -> Shares:
        """Return shares of zero."""
        rest = [np.zeros(n, np.uint64) for _ in range(6)]
        return cls(np.zeros((layout.digit_words, n), np.uint64), np.zeros((1, n), np.uint64), *rest)

    def add_bit(self, layout: Layout, i: int, share: Words) -> None:
        """Add bit i of r to the sums."""
        shares.add_shifted(share, i, 0, self.r)
        if i >= layout.shift:
            shares.add_shifted(-share, i, layout.shift, self.cut)
        if i == layout.bits - 1:
            self.top[:] = share


@dataclass(frozen=True)
class Own:
    """A party's random bits of n elements: its half of r, and its halves of the table's place and, above it, of s."""

    r: Words
    rest: Words

    @classmethod
    def of(cls, r: Words, place: Bytes, s: Bytes) -> Own:
        """Put the bits together."""
        return cls(r, place.astype(np.uint64) | (s.astype(np.uint64) << np.uint64(CHOICE_BITS)))

    def bit(self, layout: Layout, i: int) -> tuple[Words, int]:
        """Return where transfer i's choice stands: a word, and its bit."""
        return (self.r, i) if i < layout.bits else (self.rest, i - layout.bits)

    def planes(self, layout: Layout) -> Words:
        """Return all choices, transfer by transfer."""
        return np.concatenate([bit_planes(self.r, layout.bits), bit_planes(self.rest, CHOICE_BITS + 1)])

    def flips(self, layout: Layout) -> Words:
        """Return all ones where the halves of r's sign bit and of s differ: they turn every entry of the table."""
        return -(((self.r >> np.uint64(layout.sign)) ^ (self.rest >> np.uint64(CHOICE_BITS))) & np.uint64(1))


class ServerSigns:
    """The server's side for one piece of n elements."""

    def __init__(self, layout: Layout, own: Own, permuted: Words) -> None:
        """`permuted` (64) holds the table moved by every place; n is a multiple of 64."""
        self.layout, self.own, self.n = layout, own, own.r.size
        self.shares = made = Shares.zeros(layout, self.n)
        element = np.arange(self.n)
        for at, bits, rows in layout.places:
            value = (own.r >> np.uint64(at)) & np.uint64((1 << bits) - 1)
            made.words[rows.start + (value >> np.uint64(6)), element] = np.uint64(1) << (value & np.uint64(63))
        place = own.rest & np.uint64(63)
        made.table[0] = permuted[place] ^ own.flips(layout)

    def answer(self, sender: OtSender, message: Words) -> tuple[Words, Bytes]:
        """Take the client's choices; return the corrections: those of the swaps, and the others."""
        layout, n, start = self.layout, self.n, sender.position
        rows = sender.extend(message).reshape(-1)
        sizes = layout.sizes(n)
        moved, said = np.empty(sizes[0] // 8, np.uint64), np.empty(sizes[1], np.uint8)
        pad0, pad1, share = np.empty(2 * n, np.uint64), np.empty(2 * n, np.uint64), np.empty(n, np.uint64)
        more0, more1 = np.empty(2 * n, np.uint64), np.empty(2 * n, np.uint64)
        at = go = 0
        for i in range(layout.asked):
            plane, place = rows[2 * n * i : 2 * n * (i + 1)], start + n * i
            pads(plane, place, _NOTHING, sender.salt, PAD_KEYS, pad0)
            pads(plane, place, sender.delta, sender.salt, PAD_KEYS, pad1)
            if layout.needs_more(i):
                pads(plane, place, _NOTHING, sender.salt, PAD_KEYS_MORE, more0)
                pads(plane, place, sender.delta, sender.salt, PAD_KEYS_MORE, more1)
            if i < layout.bits:
                width = layout.widths[i]
                shares.send_bit(self.own.r, i, pad0, pad1, 0, width, said[at : at + n * width], share)
                self.shares.add_bit(layout, i, share)
                at += n * width
            for words, bit, k in _swaps(layout, self.shares, i):
                size = swaps.message_words(words.shape[0], n) // max(1, words.shape[0] // 2)
                first, second, column = (pad0, pad1, 1) if k == 0 else (more0, more1, 0)
                swaps.send_swap(words, bit, k, first, second, 2, column, moved[go : go + size])
                go += size
        self._send_sign(pad0, pad1, more0, more1, said[at:])
        return moved, said

    def _send_sign(self, pad0: Words, pad1: Words, more0: Words, more1: Words, said: Bytes) -> None:
        """Last transfer: s, and its products with the server's shares."""
        n, made, own, width = self.n, self.shares, self.own.rest, self.layout.product_bytes
        shares.send_product(own, CHOICE_BITS, made.cut, pad0, pad1, 0, width, said[: n * width], made.s_cut)
        shares.send_product(own, CHOICE_BITS, made.top, pad0, pad1, 1, 4, said[n * width : n * (width + 4)], made.s_top)
        shares.send_bit(own, CHOICE_BITS, more0, more1, 0, width, said[n * (width + 4) :], made.s)

    def choose(self, receiver: OtReceiver) -> Words:
        """Return the message of the server's own choices: its half of s."""
        plane = bit_planes(self.own.rest >> np.uint64(CHOICE_BITS), 1)
        self._start = receiver.position
        rows, message = receiver.extend(plane)
        self._rows = rows.reshape(-1)
        return message

    def finish(self, receiver: OtReceiver, heard: Bytes) -> Shares:
        """Take the client's corrections and return the shares."""
        n, own, width, made = self.n, self.own.rest, self.layout.product_bytes, self.shares
        pad, share = np.empty(2 * n, np.uint64), np.empty(n, np.uint64)
        pads(self._rows, self._start, _NOTHING, receiver.salt, PAD_KEYS, pad)
        shares.take_product(own, CHOICE_BITS, pad, 0, width, heard[: n * width], share)
        made.s_cut += share
        shares.take_product(own, CHOICE_BITS, pad, 1, 4, heard[n * width :], share)
        made.s_top += share
        return made


class ClientSigns:
    """The client's side for one piece of n elements: `message`, then `take`, then `finish`."""

    def __init__(self, layout: Layout, own: Own, receiver: OtReceiver) -> None:
        self.layout, self.own, self.n = layout, own, own.r.size
        self._start = receiver.position
        rows, self.message = receiver.extend(own.planes(layout))
        self._rows = rows.reshape(-1)
        self.shares = Shares.zeros(layout, self.n)
        self.shares.table[0] = own.flips(layout)

    def take(self, receiver: OtReceiver, moved: Words, heard: Bytes) -> None:
        """Take the server's corrections."""
        layout, n, made = self.layout, self.n, self.shares
        pad, more, share = np.empty(2 * n, np.uint64), np.empty(2 * n, np.uint64), np.empty(n, np.uint64)
        at = go = 0
        for i in range(layout.asked):
            plane, place = self._rows[2 * n * i : 2 * n * (i + 1)], self._start + n * i
            pads(plane, place, _NOTHING, receiver.salt, PAD_KEYS, pad)
            if layout.needs_more(i):
                pads(plane, place, _NOTHING, receiver.salt, PAD_KEYS_MORE, more)
            if i < layout.bits:
                width = layout.widths[i]
                shares.take_bit(self.own.r, i, pad, 0, width, heard[at : at + n * width], share)
                made.add_bit(layout, i, share)
                at += n * width
            for words, bit, k in _swaps(layout, made, i):
                size = swaps.message_words(words.shape[0], n) // max(1, words.shape[0] // 2)
                held, column = (pad, 1) if k == 0 else (more, 0)
                swaps.take_swap(words, bit, k, held, 2, column, moved[go : go + size], *self.own.bit(layout, i))
                go += size
        own, width, rest = self.own.rest, layout.product_bytes, heard[at:]
        shares.take_product(own, CHOICE_BITS, pad, 0, width, rest[: n * width], made.s_cut)
        shares.take_product(own, CHOICE_BITS, pad, 1, 4, rest[n * width : n * (width + 4)], made.s_top)
        shares.take_bit(own, CHOICE_BITS, more, 0, width, rest[n * (width + 4) :], made.s)
        self._rows = _NOTHING

    def finish(self, sender: OtSender, message: Words) -> Bytes:
        """Take the server's choices; return the client's corrections, with which its shares are complete."""
        n, own, width, made = self.n, self.own.rest, self.layout.product_bytes, self.shares
        start = sender.position
        rows = sender.extend(message).reshape(-1)
        pad0, pad1, share = np.empty(2 * n, np.uint64), np.empty(2 * n, np.uint64), np.empty(n, np.uint64)
        pads(rows, start, _NOTHING, sender.salt, PAD_KEYS, pad0)
        pads(rows, start, sender.delta, sender.salt, PAD_KEYS, pad1)
        said = np.empty(self.layout.sizes(n)[2], np.uint8)
        shares.send_product(own, CHOICE_BITS, made.cut, pad0, pad1, 0, width, said[: n * width], share)
        made.s_cut += share
        shares.send_product(own, CHOICE_BITS, made.top, pad0, pad1, 1, 4, said[n * width :], share)
        made.s_top += share
        return said


def _swaps(layout: Layout, made: Shares, i: int) -> list[tuple[Words, int, int]]:
    """Return what transfer i moves: share words, the bit of a place, the word of message an element."""
    if layout.bits <= i < layout.bits + CHOICE_BITS:
        return [(made.table, i - layout.bits, 0)]
    for at, bits, rows in layout.places:
        if at <= i < at + bits:
            words = made.words[rows]
            return [(words, i - at, k) for k in range(max(1, len(words) // 2))]
    return []
