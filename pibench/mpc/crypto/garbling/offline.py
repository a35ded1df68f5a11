"""Making a garbled layer offline: choices one way, the circuit the other (layer.py says what each party then holds).

A layer is made in *acts*: a generator stops wherever the other party speaks next, so that all layers of an inference go
side by side, in two messages whatever the depth (`through` carries one to its end). The garbler holds every row until
the last choices have come: both parties extend transfers at the same time, and later one garbles while the other
takes what comes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pibench.links.transport import Channel
from pibench.mpc.crypto.garbling.garbling import garble, table_bytes
from pibench.mpc.crypto.garbling.gates import LABEL_BYTES
from pibench.mpc.crypto.garbling.layer import (
    Column,
    Layer,
    OfflineEvaluator,
    OfflineGarbler,
    OnlineEvaluator,
    OnlineGarbler,
    Words,
    chosen,
    colours_of,
    labels_from,
    span_of,
    times,
)
from pibench.mpc.crypto.garbling.store import Held, Store
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender, message_bytes
from pibench.mpc.ring.packing import pack, unpack
from pibench.mpc.ring.randomness import Stream, fresh_seed

MadeT = TypeVar("MadeT")
Acts = Generator[None, None, MadeT]  # offline, side by side with other layers; stops where the other party speaks next


@dataclass(frozen=True)
class Ends:
    """What one party garbles with: the channel, its half of transfers in either direction, and where circuits wait."""

    channel: Channel
    sender: OtSender
    receiver: OtReceiver
    store: Store


def through(acts: Acts[MadeT]) -> MadeT:
    """Carry one layer's acts to their end, with none beside it."""
    while True:
        try:
            next(acts)
        except StopIteration as end:
            made: MadeT = end.value
            return made


# ---- server garbles: the garbler's inputs online, the evaluator's offline; its choices, then the circuit


def garble_for_offline(ends: Ends, layer: Layer, keep: bool = False) -> Acts[OnlineGarbler]:
    """Garbler: take the evaluator's transfers, send the circuit; `keep` the outputs' labels of zero."""
    circuit, seed, ot, store = layer.circuit, fresh_seed(), ends.sender, ends.store
    rows = store.memory(_row_words(layer))
    for piece in layer.pieces:
        _take_rows(ends, layer, piece, rows)
    yield
    stream, decode, kept = Stream(seed), np.empty(layer.count, np.uint64), []
    for piece, tables in _tables(store, layer):
        zero, row = labels_from(stream, piece, circuit.garbler), rows[span_of(piece, circuit.evaluator)]
        _, out = garble(circuit, layer.keys(ot.salt, piece), zero, row, ot.delta, tables)
        ends.channel.send(tables)
        decode[piece] = colours_of(layer, out, piece)
        kept.append(out if keep else out[:0])
    store.give(rows)
    return OnlineGarbler(layer, ot.delta, seed, decode, np.concatenate(kept))


def receive_offline(ends: Ends, layer: Layer, columns: list[Column]) -> Acts[OfflineEvaluator]:
    """Choose the evaluator's labels and take the circuit; `columns` are its inputs in the order of their wires."""
    circuit, labels = layer.circuit, ends.store.take(_row_words(layer))
    _give_choices(ends, layer, chosen(layer, columns), labels)
    yield
    tables = ends.store.take(4 * circuit.ands * layer.lanes)
    for piece in layer.pieces:
        _hear(ends.channel, tables, span_of(piece, 2 * circuit.ands))
    return OfflineEvaluator(layer, ends.receiver.salt, labels, tables)


# ---- client garbles: the garbler's inputs offline, the evaluator's online; random choices, then the circuit


def garble_for_online(ends: Ends, layer: Layer, columns: list[Column]) -> Acts[OfflineGarbler]:
    """Garbler: take transfers of random choices, send active labels of its own inputs, circuit and colours."""
    yield
    circuit, ot, own = layer.circuit, ends.sender, chosen(layer, columns)
    masks = np.empty(_row_words(layer), np.uint64)
    for piece in layer.pieces:
        _take_rows(ends, layer, piece, masks)
    yield
    stream, decode = Stream(fresh_seed()), np.empty(layer.count, np.uint64)
    for piece, tables in _tables(ends.store, layer):
        mine, theirs = labels_from(stream, piece, circuit.garbler), labels_from(stream, piece, circuit.evaluator)
        _, out = garble(circuit, layer.keys(ot.salt, piece), mine, theirs, ot.delta, tables)
        bits = own[piece.start * circuit.garbler : piece.stop * circuit.garbler]
        ends.channel.send(mine ^ times(bits, ot.delta))
        ends.channel.send(tables)
        masks[span_of(piece, circuit.evaluator)] ^= theirs
        decode[piece] = colours_of(layer, out, piece)
    ends.channel.send(pack(decode.view(np.int64), layer.wire_bytes))
    return OfflineGarbler(layer, ot.delta, masks)


def receive_online(ends: Ends, layer: Layer) -> Acts[OnlineEvaluator]:
    """Choose at random, and take the garbler's labels, circuit and colours."""
    yield
    circuit, lanes, store = layer.circuit, layer.lanes, ends.store
    bits, rows = Stream(fresh_seed()).small(circuit.evaluator * lanes, 1), store.take(_row_words(layer))
    _give_choices(ends, layer, bits, rows)
    yield
    labels, tables = (store.take(2 * wires * lanes) for wires in (circuit.garbler, 2 * circuit.ands))
    for piece in layer.pieces:
        _hear(ends.channel, labels, span_of(piece, circuit.garbler))
        _hear(ends.channel, tables, span_of(piece, 2 * circuit.ands))
    heard = np.empty(layer.count * layer.wire_bytes, np.uint8)
    ends.channel.recv_into(heard)
    decode = unpack(heard, layer.wire_bytes).view(np.uint64) & np.uint64((1 << circuit.outputs) - 1)
    return OnlineEvaluator(layer, ends.receiver.salt, bits, rows, labels, tables, decode)


def waiting_bytes(layer: Layer, client_garbles: bool) -> int:
    """Bytes that the evaluator keeps until the circuit's one use: ciphertexts and the labels of inputs."""
    circuit = layer.circuit
    labels = circuit.evaluator + (circuit.garbler if client_garbles else 0)
    return layer.lanes * (table_bytes(circuit) + LABEL_BYTES * labels)


def transfer_bytes(layer: Layer) -> int:
    """Bytes of the choosing party's messages for the evaluator's inputs of a layer."""
    wires = layer.circuit.evaluator
    return sum(message_bytes(_rounded((piece.stop - piece.start) * wires)) for piece in layer.pieces)


def _take_rows(ends: Ends, layer: Layer, piece: slice, rows: Words) -> None:
    """As the garbler, put one piece's rows in their place: whole groups of 64 transfers, which may end behind it."""
    span = _whole(span_of(piece, layer.circuit.evaluator))
    message = np.empty(message_bytes((span.stop - span.start) // 2) // 8, np.uint64)
    ends.channel.recv_into(message)
    ends.sender.extend(message, rows[span])


def _give_choices(ends: Ends, layer: Layer, bits: NDArray[np.uint8], rows: Held) -> None:
    """As the evaluator, send the choices of a whole layer, and keep their rows."""
    wires = layer.circuit.evaluator
    for piece in layer.pieces:
        span = _whole(span_of(piece, wires))
        packed = np.zeros((span.stop - span.start) // 16, np.uint8)
        said = np.packbits(bits[piece.start * wires : piece.stop * wires], bitorder="little")
        packed[: said.size] = said
        _, message = ends.receiver.extend(packed.view(np.uint64), rows.room(span))
        rows.keep(span)
        ends.channel.send(message)


def _row_words(layer: Layer) -> int:
    return 2 * _rounded(layer.lanes * layer.circuit.evaluator)


def _whole(span: slice) -> slice:
    """Return a span of rows that ends with a whole group of 64 transfers."""
    return slice(span.start, span.start + 2 * _rounded((span.stop - span.start) // 2))


def _tables(store: Store, layer: Layer) -> Iterator[tuple[slice, Words]]:
    """Yield every piece with memory for its ciphertexts, which is that of the piece before."""
    words = 4 * layer.circuit.ands
    whole = store.memory(words * layer.pieces[0].stop)
    for piece in layer.pieces:
        yield piece, whole[: words * (piece.stop - piece.start)]
    store.give(whole)


def _hear(channel: Channel, held: Held, span: slice) -> None:
    channel.recv_into(held.room(span))
    held.keep(span)


def _rounded(count: int) -> int:
    return -(-count // 64) * 64
