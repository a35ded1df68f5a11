"""One garbled layer between two parties: what flows offline, and what each holds until its one use.

Either party garbles. The garbler's part of x may be known offline or online, and so may the evaluator's:

* *server garbles* (DELPHI): its part comes online, so it keeps the seed of its labels of zero, and sends the active
  ones then. The client's part and its mask are known offline: they are choices of correlated transfers, whose rows are
  the labels as they stand (same offset, lowest bit 1), so labels cost 4 bytes a wire and no message of their own.
* *client garbles*: its part and mask are known offline, and their active labels are sent with the circuit. The server
  chooses its own online: transfers of random choices are made offline, and corrected (a bit there, a label back).

Of a wire the evaluator gets one label, whose partner differs by the garbler's secret offset. Colours of outputs decode
them: they stay with the server, which alone learns the output, masked by the client. Semi-honest, unaudited, for
measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pibench.errors import MaterialError
from pibench.links.transport import Channel
from pibench.mpc.crypto.garbling.circuit import Circuit
from pibench.mpc.crypto.garbling.garbling import evaluate, garble
from pibench.mpc.crypto.garbling.layout import Keys, choices, colours, encode, filled
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender, message_bytes
from pibench.mpc.crypto.transfers import GARBLING_KEYS
from pibench.mpc.ring.packing import pack, unpack
from pibench.mpc.ring.randomness import Stream, fresh_seed

Words = NDArray[np.uint64]
Column = tuple[Words, int]  # a word a lane, and how many of its bits are inputs
PIECE = 4096  # lanes at a time: what is in flight and in the making


@dataclass(frozen=True)
class Layer:
    """A circuit over `count` lanes, and its number in the life of a connection (both parties count alike)."""

    circuit: Circuit
    count: int
    number: int

    @property
    def lanes(self) -> int:
        """Lanes with those that fill the layer up."""
        return filled(self.count)

    @property
    def wire_bytes(self) -> int:
        """Bytes of a lane's outputs, as colours, on the wire."""
        return -(-self.circuit.outputs // 8)

    @property
    def pieces(self) -> list[slice]:
        """Return the layer's lanes, piece by piece."""
        return [slice(at, min(at + PIECE, self.lanes)) for at in range(0, self.lanes, PIECE)]

    def keys(self, salt: Words, piece: slice) -> Keys:
        """Return the public keys of one piece."""
        return Keys(salt, GARBLING_KEYS << 56 | self.number).at(piece.start)


@dataclass
class _Once:
    """What serves one evaluation."""

    layer: Layer
    spent: bool = field(default=False, init=False)

    def use(self) -> None:
        """Say that it is being used; raises MaterialError the second time."""
        if self.spent:
            raise MaterialError("a garbled circuit serves one evaluation", remedy="run the offline phase again")
        self.spent = True


@dataclass
class OnlineGarbler(_Once):
    """Garbler whose inputs come online: seed of its labels of zero, and the colours of the outputs' labels of zero."""

    offset: Words
    seed: bytes
    decode: Words
    outputs: Words = field(default_factory=lambda: np.empty(0, np.uint64))  # labels of zero, flat, where they are kept

    def labels(self, words: Words) -> Iterator[Words]:
        """Yield the active labels (flat) of its inputs, words (count,), piece by piece: each goes to the evaluator."""
        self.use()
        stream, wires = Stream(self.seed), self.layer.circuit.garbler
        for piece in self.layer.pieces:
            zero = _labels(stream, piece, wires)
            made = np.empty_like(zero)
            encode(zero, words[piece], wires, self.offset, made)
            yield made


@dataclass
class OfflineEvaluator(_Once):
    """Evaluator whose inputs were known offline: their active labels, and the ciphertexts."""

    salt: Words
    labels: Words
    tables: Words

    def evaluate(self, index: int, garbler: Words) -> Words:
        """Return the colours of one piece's outputs, a word a lane, from the garbler's active labels."""
        return _colours(self.layer, self.layer.pieces[index], self.outputs(index, garbler))

    def outputs(self, index: int, garbler: Words) -> Words:
        """Return the active labels of one piece's outputs, flat."""
        if index == 0:
            self.use()
        piece, circuit = self.layer.pieces[index], self.layer.circuit
        own, ciphers = self.labels[_span(piece, circuit.evaluator)], self.tables[_span(piece, 2 * circuit.ands)]
        return evaluate(circuit, self.layer.keys(self.salt, piece), garbler, own, ciphers)


@dataclass
class OfflineGarbler(_Once):
    """Garbler whose inputs were known offline: its offset, and what turns transferred rows into labels."""

    offset: Words
    masks: Words  # row ^ label of zero of the evaluator's inputs, flat, for the whole layer

    def labels(self, corrections: NDArray[np.uint8]) -> Iterator[Words]:
        """Yield what the evaluator adds to its rows, piece by piece; a bit a wire says how its choice was wrong."""
        self.use()
        wires = self.layer.circuit.evaluator
        for piece in self.layer.pieces:
            wrong = corrections[piece.start * wires : piece.stop * wires]
            yield self.masks[_span(piece, wires)] ^ _times(wrong, self.offset)


@dataclass
class OnlineEvaluator(_Once):
    """Evaluator whose inputs come online: rows of random choices, the garbler's active labels, ciphertexts, colours."""

    salt: Words
    bits: NDArray[np.uint8]
    rows: Words
    labels: Words
    tables: Words
    decode: Words

    def corrections(self, words: Words) -> NDArray[np.uint8]:
        """Return the bits to send, one a wire: its inputs, hidden by the random choices."""
        self.use()
        return chosen(self.layer, [(words, self.layer.circuit.evaluator)]) ^ self.bits

    def evaluate(self, index: int, answer: Words) -> Words:
        """Return the outputs of one piece, a word a lane, from the garbler's answer to the corrections."""
        piece = self.layer.pieces[index]
        own = self.rows[_span(piece, self.layer.circuit.evaluator)] ^ answer
        keys = self.layer.keys(self.salt, piece)
        tables = self.tables[_span(piece, 2 * self.layer.circuit.ands)]
        made = evaluate(self.layer.circuit, keys, self.labels[_span(piece, self.layer.circuit.garbler)], own, tables)
        return _colours(self.layer, piece, made) ^ self.decode[piece]


# ---- server garbles: the garbler's inputs online, the evaluator's offline


def garble_for_offline(channel: Channel, ot: OtSender, layer: Layer, keep: bool = False) -> OnlineGarbler:
    """Garbler: take the evaluator's transfers, send the circuit; `keep` the outputs' labels of zero."""
    circuit, seed = layer.circuit, fresh_seed()
    stream, decode = Stream(seed), np.empty(layer.count, np.uint64)
    rows, kept = [_take_rows(channel, ot, piece, circuit.evaluator) for piece in layer.pieces], []
    for piece, row in zip(layer.pieces, rows, strict=True):
        zero = _labels(stream, piece, circuit.garbler)
        tables, out = garble(circuit, layer.keys(ot.salt, piece), zero, row, ot.delta)
        channel.send(tables)
        decode[piece] = _colours(layer, piece, out)
        kept.append(out if keep else out[:0])
    return OnlineGarbler(layer, ot.delta, seed, decode, np.concatenate(kept))


def receive_offline(channel: Channel, ot: OtReceiver, layer: Layer, columns: list[Column]) -> OfflineEvaluator:
    """Choose the evaluator's labels and take the circuit; `columns` are its inputs in the order of their wires."""
    circuit, bits = layer.circuit, chosen(layer, columns)
    labels = np.empty(2 * circuit.evaluator * layer.lanes, np.uint64)
    for piece in layer.pieces:
        labels[_span(piece, circuit.evaluator)] = _give_choices(channel, ot, piece, circuit.evaluator, bits)
    tables = np.empty(4 * circuit.ands * layer.lanes, np.uint64)
    for piece in layer.pieces:
        channel.recv_into(tables[_span(piece, 2 * circuit.ands)])
    return OfflineEvaluator(layer, ot.salt, labels, tables)


# ---- client garbles: the garbler's inputs offline, the evaluator's online


def garble_for_online(channel: Channel, ot: OtSender, layer: Layer, columns: list[Column]) -> OfflineGarbler:
    """Garbler: take transfers of random choices, send active labels of its own inputs, circuit and colours."""
    circuit, own = layer.circuit, chosen(layer, columns)
    masks = np.concatenate([_take_rows(channel, ot, piece, circuit.evaluator) for piece in layer.pieces])
    stream, decode = Stream(fresh_seed()), np.empty(layer.count, np.uint64)
    for piece in layer.pieces:
        mine, theirs = _labels(stream, piece, circuit.garbler), _labels(stream, piece, circuit.evaluator)
        tables, out = garble(circuit, layer.keys(ot.salt, piece), mine, theirs, ot.delta)
        channel.send(mine ^ _times(own[piece.start * circuit.garbler : piece.stop * circuit.garbler], ot.delta))
        channel.send(tables)
        masks[_span(piece, circuit.evaluator)] ^= theirs
        decode[piece] = _colours(layer, piece, out)
    channel.send(pack(decode.view(np.int64), layer.wire_bytes))
    return OfflineGarbler(layer, ot.delta, masks)


def receive_online(channel: Channel, ot: OtReceiver, layer: Layer) -> OnlineEvaluator:
    """Choose at random, and take the garbler's labels, circuit and colours."""
    circuit, lanes = layer.circuit, layer.lanes
    bits = Stream(fresh_seed()).small(circuit.evaluator * lanes, 1)
    rows = [_give_choices(channel, ot, piece, circuit.evaluator, bits) for piece in layer.pieces]
    labels, tables = (np.empty(2 * wires * lanes, np.uint64) for wires in (circuit.garbler, 2 * circuit.ands))
    for piece in layer.pieces:
        channel.recv_into(labels[_span(piece, circuit.garbler)])
        channel.recv_into(tables[_span(piece, 2 * circuit.ands)])
    heard = np.empty(layer.count * layer.wire_bytes, np.uint8)
    channel.recv_into(heard)
    decode = unpack(heard, layer.wire_bytes).view(np.uint64) & np.uint64((1 << circuit.outputs) - 1)
    return OnlineEvaluator(layer, ot.salt, bits, np.concatenate(rows), labels, tables, decode)


# ---- what both have in common


def chosen(layer: Layer, columns: list[Column]) -> NDArray[np.uint8]:
    """Return the bits of words side by side, a byte each, in the order of the labels of the whole layer."""
    wires, first = sum(width for _, width in columns), 0
    bits = np.empty(wires * layer.lanes, np.uint8)
    for words, width in columns:
        choices(np.ascontiguousarray(words), first, width, wires, layer.lanes, bits)
        first += width
    return bits


def transfer_bytes(layer: Layer) -> int:
    """Bytes of the choosing party's messages for the evaluator's inputs of a layer."""
    wires = layer.circuit.evaluator
    return sum(message_bytes(_rounded((piece.stop - piece.start) * wires)) for piece in layer.pieces)


def _take_rows(channel: Channel, ot: OtSender, piece: slice, wires: int) -> Words:
    count = (piece.stop - piece.start) * wires
    message = np.empty(message_bytes(_rounded(count)) // 8, np.uint64)
    channel.recv_into(message)
    return ot.extend(message)[:count].reshape(-1)


def _give_choices(channel: Channel, ot: OtReceiver, piece: slice, wires: int, bits: NDArray[np.uint8]) -> Words:
    count = (piece.stop - piece.start) * wires
    packed = np.zeros(_rounded(count) // 8, np.uint8)
    packed[: -(-count // 8)] = np.packbits(bits[piece.start * wires : piece.stop * wires], bitorder="little")
    rows, message = ot.extend(packed.view(np.uint64))
    channel.send(message)
    return rows[:count].reshape(-1)


def _rounded(count: int) -> int:
    return -(-count // 64) * 64


def _span(piece: slice, wires: int) -> slice:
    return slice(2 * wires * piece.start, 2 * wires * piece.stop)


def _labels(stream: Stream, piece: slice, wires: int) -> Words:
    return stream.bytes(16 * wires * (piece.stop - piece.start)).view(np.uint64)


def _times(bits: NDArray[np.uint8], offset: Words) -> Words:
    """Return the offset where a bit is set and zero elsewhere, flat."""
    return (np.negative(bits.astype(np.uint64))[:, None] & offset).reshape(-1)


def colours_of(layer: Layer, labels: Words) -> Words:
    """Return the colours of a whole layer's outputs, a word a lane."""
    return _colours(layer, slice(0, layer.lanes), labels)


def _colours(layer: Layer, piece: slice, labels: Words) -> Words:
    made = np.empty(min(piece.stop, layer.count) - piece.start, np.uint64)
    colours(labels, layer.circuit.outputs, made)
    return made
