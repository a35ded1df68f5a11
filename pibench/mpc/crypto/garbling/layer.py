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
from pibench.mpc.crypto.garbling.circuit import Circuit
from pibench.mpc.crypto.garbling.garbling import evaluate
from pibench.mpc.crypto.garbling.gates import LABEL_BYTES
from pibench.mpc.crypto.garbling.layout import Keys, choices, colours, encode, filled
from pibench.mpc.crypto.garbling.store import Held
from pibench.mpc.crypto.transfers import GARBLING_KEYS
from pibench.mpc.ring.randomness import Stream

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]
Message = NDArray[np.uint64] | NDArray[np.uint8]  # words, as they are or as the bytes that came
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

    def labels(self, *words: Words) -> Iterator[Words]:
        """Yield the active labels (flat) of its inputs, piece by piece: each goes to the evaluator.

        `words` (count,) each, as many as the circuit takes, of equally many bits.
        """
        self.use()
        stream, wires = Stream(self.seed), self.layer.circuit.garbler
        width = wires // len(words)
        for piece in self.layer.pieces:
            zero = labels_from(stream, piece, wires)
            made = np.empty_like(zero)
            for index, word in enumerate(words):
                encode(zero, word[piece], index * width, width, wires, self.offset, made)
            yield made


@dataclass
class OfflineEvaluator(_Once):
    """Evaluator whose inputs were known offline: their active labels, and the ciphertexts."""

    salt: Words
    labels: Held
    tables: Held

    def evaluate(self, index: int, garbler: Message) -> Words:
        """Return the colours of one piece's outputs, a word a lane, from the garbler's active labels."""
        return colours_of(self.layer, self.outputs(index, garbler), self.layer.pieces[index])

    def outputs(self, index: int, garbler: Message) -> Words:
        """Return the active labels of one piece's outputs, flat."""
        if index == 0:
            self.use()
        piece, circuit = self.layer.pieces[index], self.layer.circuit
        own = self.labels.read(span_of(piece, circuit.evaluator))
        tables = self.tables.read(span_of(piece, 2 * circuit.ands))
        made = evaluate(circuit, self.layer.keys(self.salt, piece), garbler.view(np.uint64), own, tables)
        if piece.stop == self.layer.lanes:
            self.labels.drop()
            self.tables.drop()
        return made


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
            yield self.masks[span_of(piece, wires)] ^ times(wrong, self.offset)


@dataclass
class OnlineEvaluator(_Once):
    """Evaluator whose inputs come online: rows of random choices, the garbler's active labels, ciphertexts, colours."""

    salt: Words
    bits: NDArray[np.uint8]
    rows: Held
    labels: Held
    tables: Held
    decode: Words

    def corrections(self, *words: Words) -> NDArray[np.uint8]:
        """Return the bits to send, one a wire: its inputs (words as of `labels`), hidden by the random choices."""
        self.use()
        width = self.layer.circuit.evaluator // len(words)
        return chosen(self.layer, [(word, width) for word in words]) ^ self.bits

    def evaluate(self, index: int, answer: Message) -> Words:
        """Return the outputs of one piece, a word a lane, from the garbler's answer to the corrections."""
        piece, circuit = self.layer.pieces[index], self.layer.circuit
        own = self.rows.read(span_of(piece, circuit.evaluator)) ^ answer.view(np.uint64)
        labels = self.labels.read(span_of(piece, circuit.garbler))
        tables = self.tables.read(span_of(piece, 2 * circuit.ands))
        made = evaluate(circuit, self.layer.keys(self.salt, piece), labels, own, tables)
        if piece.stop == self.layer.lanes:
            for held in (self.rows, self.labels, self.tables):
                held.drop()
        return colours_of(self.layer, made, piece) ^ self.decode[piece]


def as_words(part: Ints) -> Words:
    """Return a part of a value as a word a lane, flat."""
    return np.ascontiguousarray(part).reshape(-1).view(np.uint64)


def as_part(words: Words | list[Words]) -> Ints:
    """Return words, or those of all pieces, as a flat part of a value."""
    whole = np.concatenate(words) if isinstance(words, list) else words
    return whole.view(np.int64)


def chosen(layer: Layer, columns: list[Column]) -> NDArray[np.uint8]:
    """Return the bits of words side by side, a byte each, in the order of the labels of the whole layer."""
    wires, first = sum(width for _, width in columns), 0
    bits = np.empty(wires * layer.lanes, np.uint8)
    for words, width in columns:
        choices(np.ascontiguousarray(words), first, width, wires, layer.lanes, bits)
        first += width
    return bits


def span_of(piece: slice, wires: int) -> slice:
    """Return where the labels of a piece lie among the words of so many wires."""
    return slice(2 * wires * piece.start, 2 * wires * piece.stop)


def times(bits: NDArray[np.uint8], offset: Words) -> Words:
    """Return the offset where a bit is set and zero elsewhere, flat."""
    return (np.negative(bits.astype(np.uint64))[:, None] & offset).reshape(-1)


def colours_of(layer: Layer, labels: Words, piece: slice | None = None) -> Words:
    """Return the colours of the outputs of a whole layer, or of one piece, a word a lane."""
    there = piece or slice(0, layer.lanes)
    made = np.empty(min(there.stop, layer.count) - there.start, np.uint64)
    colours(labels, layer.circuit.outputs, made)
    return made


def labels_from(stream: Stream, piece: slice, wires: int) -> Words:
    """Return the next labels of zero, flat, for so many wires of a piece."""
    return stream.bytes(LABEL_BYTES * wires * (piece.stop - piece.start)).view(np.uint64)
