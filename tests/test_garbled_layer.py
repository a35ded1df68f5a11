"""A garbled layer between two parties: right for either garbler, once only, and one label of a wire on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from two_threads import both

from pibench.errors import MaterialError
from pibench.links.transport import Channel
from pibench.mpc.crypto.garbling import layer as layers
from pibench.mpc.crypto.garbling import offline
from pibench.mpc.crypto.garbling.circuits import relu_circuit
from pibench.mpc.crypto.garbling.garbling import table_bytes
from pibench.mpc.crypto.garbling.layer import Layer
from pibench.mpc.crypto.garbling.offline import Ends, through, transfer_bytes
from pibench.mpc.crypto.garbling.store import Store
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender, set_up_receiver, set_up_sender

WIDTH, OUT, SHIFT, COUNT = 13, 15, 3, 300


@pytest.fixture(scope="module")
def pair() -> tuple[OtSender, OtReceiver]:
    made, _ = both(
        lambda channel: set_up_sender(channel, b"session", b"garbling"),
        lambda channel: set_up_receiver(channel, b"session", b"garbling"),
    )
    return made[0], made[1]


class Inputs:
    """x = a + b of one layer, the mask n, and what comes out."""

    def __init__(self, seed: int, x: int | None = None) -> None:
        rng = np.random.default_rng(seed)
        signed = rng.integers(-(1 << (WIDTH - 1)), 1 << (WIDTH - 1), COUNT) if x is None else np.full(COUNT, x)
        self.b = rng.integers(0, 1 << WIDTH, COUNT, np.uint64)
        self.n = rng.integers(0, 1 << OUT, COUNT, np.uint64)
        self.a = (signed.astype(np.uint64) - self.b) & np.uint64((1 << WIDTH) - 1)
        self.z = ((np.maximum(signed, 0) >> SHIFT).astype(np.uint64) + self.n) & np.uint64((1 << OUT) - 1)


def server_garbles(pair: tuple[OtSender, OtReceiver], inputs: Inputs, number: int) -> tuple[Any, bytes, Any]:
    """Both phases; returns z, all that the garbler said, and the evaluator's half."""
    layer, said, rows = Layer(relu_circuit(WIDTH, OUT, SHIFT), COUNT, number), list[bytes](), list[np.ndarray]()

    def server(channel: Channel) -> Any:
        tap = _tapped(channel, said)
        half = through(offline.garble_for_offline(ends(tap, pair), layer))
        for labels in half.labels(inputs.a):
            tap.send(labels)
        seen = np.empty(COUNT, np.uint64)
        channel.recv_into(seen)
        return half, seen ^ half.decode

    def client(channel: Channel) -> Any:
        half = through(offline.receive_offline(ends(channel, pair), layer, [(inputs.b, WIDTH), (inputs.n, OUT)]))
        rows.append(half.labels.read(slice(0, 2 * (WIDTH + OUT) * layer.lanes)).copy())
        shown = []
        for index, piece in enumerate(layer.pieces):
            labels = np.empty(2 * WIDTH * (piece.stop - piece.start), np.uint64)
            channel.recv_into(labels)
            shown.append(half.evaluate(index, labels))
        channel.send(np.concatenate(shown))
        return half

    ((garbler, z), evaluator), _ = both(server, client)
    return z, b"".join(said), (garbler, evaluator, rows)


def client_garbles(pair: tuple[OtSender, OtReceiver], inputs: Inputs, number: int) -> tuple[Any, bytes, Any]:
    layer = Layer(relu_circuit(WIDTH, OUT, SHIFT, garbler_masks=True), COUNT, number)
    said, rows = list[bytes](), list[np.ndarray]()

    def client(channel: Channel) -> Any:
        tap = _tapped(channel, said)
        half = through(offline.garble_for_online(ends(tap, pair), layer, [(inputs.b, WIDTH), (inputs.n, OUT)]))
        wrong = np.empty(WIDTH * layer.lanes, np.uint8)
        channel.recv_into(wrong)
        for labels in half.labels(wrong):
            tap.send(labels)
        return half

    def server(channel: Channel) -> Any:
        half = through(offline.receive_online(ends(channel, pair), layer))
        for held, wires in ((half.labels, WIDTH + OUT), (half.rows, WIDTH)):
            rows.append(held.read(slice(0, 2 * wires * layer.lanes)).copy())
        channel.send(half.corrections(inputs.a))
        made = []
        for index, piece in enumerate(layer.pieces):
            answer = np.empty(2 * WIDTH * (piece.stop - piece.start), np.uint64)
            channel.recv_into(answer)
            made.append(half.evaluate(index, answer))
        return half, np.concatenate(made)

    (garbler, (evaluator, z)), _ = both(client, server)
    return z, b"".join(said), (garbler, evaluator, rows)


def ends(channel: Channel, pair: tuple[OtSender, OtReceiver]) -> Ends:
    return Ends(channel, *pair, Store())


def _tapped(channel: Channel, said: list[bytes]) -> Channel:
    send = channel.send

    def listening(data: Any) -> None:
        said.append(bytes(memoryview(data).cast("B")))
        send(data)

    channel.send = listening  # type: ignore[method-assign]
    return channel


Garbling = Callable[[tuple[OtSender, OtReceiver], Inputs, int], tuple[Any, bytes, Any]]
NUMBERS = iter(range(1, 1 << 20))


@pytest.mark.parametrize("garbling", [server_garbles, client_garbles])
@pytest.mark.parametrize("piece", [128, 256, layers.PIECE])
def test_either_party_may_garble(
    pair: tuple[OtSender, OtReceiver], garbling: Garbling, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "PIECE", piece)
    inputs = Inputs(piece)
    z, _, _ = garbling(pair, inputs, next(NUMBERS))
    np.testing.assert_array_equal(z, inputs.z)


@pytest.mark.parametrize("garbling", [server_garbles, client_garbles])
def test_of_a_wire_one_label_leaves_the_garbler(pair: tuple[OtSender, OtReceiver], garbling: Garbling) -> None:
    """No two blocks that it sent, and no sums of what it sent with the evaluator's rows, differ by the offset."""
    _, said, (garbler, _, rows) = garbling(pair, Inputs(5), next(NUMBERS))
    seen = np.concatenate([np.frombuffer(said[: len(said) // 16 * 16], np.uint64), *rows]).reshape(-1, 2)
    if garbling is client_garbles:  # its decode colours, at the end, are no labels; its answers open rows
        answers = np.frombuffer(said, np.uint64)[-rows[1].size :]
        seen = np.concatenate([seen, (answers ^ rows[1]).reshape(-1, 2)])
    there = set(map(tuple, seen.tolist()))
    assert not there & set(map(tuple, (seen ^ garbler.offset).tolist()))
    assert tuple(garbler.offset.tolist()) not in there


@pytest.mark.parametrize("garbling", [server_garbles, client_garbles])
def test_a_circuit_serves_once(pair: tuple[OtSender, OtReceiver], garbling: Garbling) -> None:
    inputs = Inputs(7)
    _, _, (garbler, evaluator, _) = garbling(pair, inputs, next(NUMBERS))
    again = np.zeros(WIDTH * garbler.layer.lanes, np.uint8) if garbling is client_garbles else inputs.a
    with pytest.raises(MaterialError, match="serves one evaluation"):
        next(garbler.labels(again))
    use = evaluator.corrections if garbling is client_garbles else lambda words: evaluator.evaluate(0, words)
    with pytest.raises(MaterialError, match="serves one evaluation"):
        use(inputs.a)


@pytest.mark.parametrize("garbling", [server_garbles, client_garbles])
def test_bytes_do_not_depend_on_inputs_and_are_uniform(pair: tuple[OtSender, OtReceiver], garbling: Garbling) -> None:
    from scipy import stats

    lengths = set()
    for x in (0, -1, 77):
        _, said, _ = garbling(pair, Inputs(1, x), next(NUMBERS))
        lengths.add(len(said))
        counts = np.bincount(np.frombuffer(said, np.uint8), minlength=256)
        # colours that decode have spare bits above the outputs': they are not counted here
        assert stats.chisquare(counts).pvalue > 1e-6 or garbling is client_garbles
    assert len(lengths) == 1
    if garbling is server_garbles:
        layer = Layer(relu_circuit(WIDTH, OUT, SHIFT), COUNT, 0)
        assert lengths == {layer.lanes * (table_bytes(layer.circuit) + 16 * WIDTH)}
        assert transfer_bytes(layer) == 4 * layer.lanes * (WIDTH + OUT)
