"""What a square uses up, and the pads of a ring extension, from transfers alone.

Square: r = r0 ^ r1 as in `signs.py`; shares by addition of r, rho = -(r >> shift), rho^2, r's top bit, and that times
rho. With rho = rho0 + rho1 its square needs 2 rho0 rho1: a transfer from the client for every bit of rho0 (Gilboa,
CRYPTO 1999), which the server knows when it has taken the client's choices. Three messages, as for a ReLU.

Pads: the client holds two random words an element, the server the one that its random choice names (Beaver, CRYPTO
1995): one message, the server's choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pibench.mpc.crypto import shares
from pibench.mpc.crypto.aes import Words
from pibench.mpc.crypto.planes import Bytes, bit_planes, whole_bytes
from pibench.mpc.crypto.signs import HALF_BITS, message_widths
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender
from pibench.mpc.crypto.transfers import PAD_KEYS, pads, receiver_pads, sender_pads

_NOTHING = np.zeros(2, np.uint64)
_HALF = HALF_BITS // 8


@dataclass(frozen=True)
class SquareLayout:
    """Public shape of r: `bits`, of which `shift` are cut before the square; results modulo 2^`width`."""

    bits: int
    shift: int
    width: int

    @cached_property
    def widths(self) -> list[int]:
        """Bytes of every bit's message, as in `signs.Layout`; the top bit's product with rho has one of its own."""
        return message_widths(self.bits, self.shift, self.width, self.width)

    @property
    def factor_widths(self) -> list[int]:
        """Bytes of the message of every bit of rho0, whose product counts 2^(bit + 1)."""
        return [whole_bytes(self.width - bit - 1) for bit in range(self.width)]

    @property
    def chosen(self) -> int:
        """Transfers an element from client to server: a bit of rho0 each, and the top bit."""
        return self.width + 1

    def sizes(self, n: int) -> tuple[int, int]:
        """Return the bytes of the server's corrections and of the client's, for n elements."""
        return (sum(self.widths) + _HALF) * n, (sum(self.factor_widths) + _HALF) * n


@dataclass
class SquareShares:
    """One party's shares for n elements: 64-bit words, good modulo 2^width (those with top: 2^32)."""

    r: Words
    cut: Words  # rho
    squared: Words
    top: Words
    top_cut: Words

    @classmethod
    def zeros(cls, n: int) -> SquareShares:
        """Return shares of zero."""
        return cls(*(np.zeros(n, np.uint64) for _ in range(5)))

    def add_bit(self, layout: SquareLayout, i: int, share: Words) -> None:
        """Add bit i of r to the sums."""
        shares.add_shifted(share, i, 0, self.r)
        if i >= layout.shift:
            shares.add_shifted(-share, i, layout.shift, self.cut)
        if i == layout.bits - 1:
            self.top[:] = share


class ServerSquares:
    """The server's side for one piece of n elements; own (n) is its half of r."""

    def __init__(self, layout: SquareLayout, own: Words) -> None:
        self.layout, self.own, self.n, self.shares = layout, own, own.size, SquareShares.zeros(own.size)

    def answer(self, sender: OtSender, message: Words) -> Bytes:
        """Take the client's choices; return the corrections."""
        layout, n, made, start = self.layout, self.n, self.shares, sender.position
        rows = sender.extend(message).reshape(-1)
        pad0, pad1, share = np.empty(2 * n, np.uint64), np.empty(2 * n, np.uint64), np.empty(n, np.uint64)
        said, at = np.empty(layout.sizes(n)[0], np.uint8), 0
        for i, width in enumerate(layout.widths):
            plane = rows[2 * n * i : 2 * n * (i + 1)]
            pads(plane, start + n * i, _NOTHING, sender.salt, PAD_KEYS, pad0)
            pads(plane, start + n * i, sender.delta, sender.salt, PAD_KEYS, pad1)
            shares.send_bit(self.own, i, pad0, pad1, 0, width, said[at : at + n * width], share)
            made.add_bit(layout, i, share)
            at += n * width
        shares.send_product(self.own, layout.bits - 1, made.cut, pad0, pad1, 1, _HALF, said[at:], made.top_cut)
        return said

    def choose(self, receiver: OtReceiver) -> Words:
        """Return the message of the server's own choices: the bits of its share of rho, and its half of the top bit."""
        layout, self._factor = self.layout, self.shares.cut.copy()
        top = (self.own >> np.uint64(layout.bits - 1)) & np.uint64(1)
        self._start = receiver.position
        planes = np.concatenate([bit_planes(self._factor, layout.width), bit_planes(top, 1)])
        rows, message = receiver.extend(planes)
        self._rows = rows.reshape(-1)
        return message

    def finish(self, receiver: OtReceiver, heard: Bytes) -> SquareShares:
        """Take the client's corrections and return the shares."""
        layout, n, made, at = self.layout, self.n, self.shares, 0
        pad, share = np.empty(2 * n, np.uint64), np.empty(n, np.uint64)
        made.squared += self._factor * self._factor
        for bit, width in enumerate([*layout.factor_widths, _HALF]):
            plane = self._rows[2 * n * bit : 2 * n * (bit + 1)]
            pads(plane, self._start + n * bit, _NOTHING, receiver.salt, PAD_KEYS, pad)
            words, i = (self._factor, bit) if bit < layout.width else (self.own, layout.bits - 1)
            shares.take_product(words, i, pad, 0, width, heard[at : at + n * width], share)
            if bit < layout.width:
                made.squared += share << np.uint64(bit + 1)
            else:
                made.top_cut += share
            at += n * width
        return made


class ClientSquares:
    """The client's side for one piece of n elements: `message`, then `take`, then `finish`."""

    def __init__(self, layout: SquareLayout, own: Words, receiver: OtReceiver) -> None:
        self.layout, self.own, self.n, self.shares = layout, own, own.size, SquareShares.zeros(own.size)
        self._start = receiver.position
        rows, self.message = receiver.extend(bit_planes(own, layout.bits))
        self._rows = rows.reshape(-1)

    def take(self, receiver: OtReceiver, heard: Bytes) -> None:
        """Take the server's corrections."""
        layout, n, made, at = self.layout, self.n, self.shares, 0
        pad, share = np.empty(2 * n, np.uint64), np.empty(n, np.uint64)
        for i, width in enumerate(layout.widths):
            plane = self._rows[2 * n * i : 2 * n * (i + 1)]
            pads(plane, self._start + n * i, _NOTHING, receiver.salt, PAD_KEYS, pad)
            shares.take_bit(self.own, i, pad, 0, width, heard[at : at + n * width], share)
            made.add_bit(layout, i, share)
            at += n * width
        shares.take_product(self.own, layout.bits - 1, pad, 1, _HALF, heard[at:], made.top_cut)
        self._rows = _NOTHING

    def finish(self, sender: OtSender, message: Words) -> Bytes:
        """Take the server's choices; return the client's corrections, with which its shares are complete."""
        layout, n, made, start, at = self.layout, self.n, self.shares, sender.position, 0
        rows = sender.extend(message).reshape(-1)
        pad0, pad1, share = np.empty(2 * n, np.uint64), np.empty(2 * n, np.uint64), np.empty(n, np.uint64)
        said, zero = np.empty(layout.sizes(n)[1], np.uint8), np.zeros(n, np.uint64)
        made.squared += made.cut * made.cut
        for bit, width in enumerate([*layout.factor_widths, _HALF]):
            plane, place = rows[2 * n * bit : 2 * n * (bit + 1)], start + n * bit
            pads(plane, place, _NOTHING, sender.salt, PAD_KEYS, pad0)
            pads(plane, place, sender.delta, sender.salt, PAD_KEYS, pad1)
            last = bit == layout.width
            words, i = (self.own, layout.bits - 1) if last else (zero, 0)  # of rho0's bits the client holds none
            shares.send_product(words, i, made.cut, pad0, pad1, 0, width, said[at : at + n * width], share)
            if last:
                made.top_cut += share
            else:
                made.squared += share << np.uint64(bit + 1)
            at += n * width
        return said


def choose_pads(receiver: OtReceiver, held: Words) -> tuple[Words, Words]:
    """Server: return the pads (n) that its choices, 0 or 1, name, and the message of the choices."""
    start = receiver.position
    rows, message = receiver.extend(bit_planes(held, 1))
    return receiver_pads(rows, start, receiver.salt)[:, 0], message


def both_pads(sender: OtSender, message: Words) -> tuple[Words, Words]:
    """Client: return both pads (n) of every element."""
    start = sender.position
    pad0, pad1 = sender_pads(sender.extend(message), start, sender.delta, sender.salt)
    return pad0[:, 0], pad1[:, 0]
