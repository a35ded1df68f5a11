"""A garbled sign and the product that it chooses, of one layer between two parties: what each holds, and says once.

The circuit says [x >= 0] of the parts without their lowest `dropped` bits, and whether the parts' sum wrapped. With A
and B the parts cut by `shift`, whole numbers of w - shift bits, y = [x >= 0] (A + B - 2^(w - shift) [wrapped]): the
server's is rounded up, the client's down. The server garbles (Circa, Ghodsi et al., NeurIPS 2021). Semi-honest,
unaudited, for measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pibench.mpc.crypto.garbling import layer as garbled
from pibench.mpc.crypto.garbling import offline
from pibench.mpc.crypto.garbling.layer import Ints, Layer, Message, Words, as_words
from pibench.mpc.crypto.garbling.offline import Acts, Ends
from pibench.mpc.crypto.garbling.product import GarblerPads, evaluator_share, garbler_pads
from pibench.mpc.crypto.softspoken import message_bytes
from pibench.mpc.crypto.transfers import receiver_pads, send_correlated, sender_pads, take_correlated

_ONE = np.uint64(1)
_BITS = 2  # that are chosen by: the sign, and the wrap


@dataclass(frozen=True)
class Cut:
    """Which bits of a part count: its lowest `width`, without `dropped` in the circuit and `shift` in the product."""

    width: int
    shift: int
    dropped: int

    @property
    def weight(self) -> int:
        """Bit position of what a wrap is worth in the product."""
        return self.width - self.shift

    def compared(self, x: Words) -> Words:
        """Return what the circuit gets."""
        return x >> np.uint64(self.dropped)

    def multiplied(self, x: Words, *, up: bool) -> Words:
        """Return the whole number that is multiplied, rounded up or down."""
        more = np.uint64((1 << self.shift) - 1 if up else 0)
        return ((x & np.uint64((1 << self.width) - 1)) + more) >> np.uint64(self.shift)


@dataclass
class Garbler:
    """Server: its half of the circuit, pads of the sign's labels, and of transfers that its colours chose."""

    cut: Cut
    held: garbled.OnlineGarbler
    pads: GarblerPads
    chosen: list[Words]

    @classmethod
    def make(cls, ends: Ends, layer: Layer, cut: Cut) -> Acts[Garbler]:
        """Garble; then choose by the colours of both outputs."""
        held = yield from offline.garble_for_offline(ends, layer, keep=True)
        pads, chosen = garbler_pads(layer, held.outputs, ends.sender.delta, ends.sender.salt), []
        for bit in range(_BITS):
            colours = np.zeros(-(-layer.count // 64) * 8, np.uint8)
            packed = np.packbits(((held.decode >> np.uint64(bit)) & _ONE).astype(np.uint8), bitorder="little")
            colours[: packed.size] = packed
            at = ends.receiver.position
            rows, message = ends.receiver.extend(colours.view(np.uint64))
            ends.channel.send(message)
            chosen.append(receiver_pads(rows, at, ends.receiver.salt)[: layer.count, 0].copy())
        return cls(cut, held, pads, chosen)

    def labels(self, x: Ints) -> Iterator[Words]:
        """Yield the active labels of its part, piece by piece."""
        return self.held.labels(self.cut.compared(as_words(x)))

    def correct(self, x: Ints) -> tuple[Ints, Ints]:
        """Return its share of the sign's product, and the correction for the client."""
        own, correction = self.pads.correct(self.cut.multiplied(as_words(x), up=True))
        return own.view(np.int64), correction.view(np.int64)

    def open(self, product: Ints, wrap: Ints) -> Ints:
        """Return what its colours open of the client's two messages."""
        sign, wrapped = self.held.decode & _ONE, self.held.decode >> _ONE
        taken = take_correlated(self.chosen[0], as_words(product), sign)
        taken -= take_correlated(self.chosen[1], as_words(wrap), wrapped) << np.uint64(self.cut.weight)
        return taken.view(np.int64)


@dataclass
class Evaluator:
    """Client: its half of the circuit, its part of x cut, and both pads of the transfers."""

    cut: Cut
    held: garbled.OfflineEvaluator
    part: Words
    pads: list[tuple[Words, Words]]

    @classmethod
    def make(cls, ends: Ends, layer: Layer, cut: Cut, part: Ints) -> Acts[Evaluator]:
        """Take the circuit, and the server's choices."""
        x, sender = as_words(part), ends.sender
        column = (cut.compared(x), cut.width - cut.dropped)
        held, pads = (yield from offline.receive_offline(ends, layer, [column])), []
        for _ in range(_BITS):
            message = np.empty(message_bytes(-(-layer.count // 64) * 64) // 8, np.uint64)
            ends.channel.recv_into(message)
            at = sender.position
            first, second = sender_pads(sender.extend(message), at, sender.delta, sender.salt)
            pads.append((first[: layer.count, 0].copy(), second[: layer.count, 0].copy()))
        return cls(cut, held, cut.multiplied(x, up=False), pads)

    def answer(self, labels: list[Words], correction: Ints) -> tuple[Ints, Ints, Ints]:
        """Return its share, and the messages about product and wrap; `labels`: the outputs' active ones by piece."""
        layer, active, held = self.held.layer, np.concatenate(labels), self.part
        colours = garbled.colours_of(layer, active)
        sign, wrapped = colours & _ONE, colours >> _ONE
        share = evaluator_share(layer, active, self.held.salt, as_words(correction)) + sign * held
        mine, product = send_correlated(*self.pads[0], held - (sign * held << _ONE))
        rest, wrap = send_correlated(*self.pads[1], _ONE - (wrapped << _ONE))
        share += mine - ((wrapped + rest) << np.uint64(self.cut.weight))
        return share.view(np.int64), product.view(np.int64), wrap.view(np.int64)

    def outputs(self, index: int, labels: Message) -> Words:
        """Return the active labels of one piece's outputs, from the server's of its inputs."""
        return self.held.outputs(index, labels)


def transfer_bytes(layer: Layer) -> int:
    """Bytes of the server's choices."""
    return _BITS * message_bytes(-(-layer.count // 64) * 64)
