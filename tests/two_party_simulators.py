"""Simulators of what each party sees offline where both make their randomness alone (docs/protocol.md).

They drive the real code of one party's source against messages that know nothing of the other one: uniform choices,
corrections, ciphertexts and public key; the server's answers to ciphertexts are made of the client's own key and of a
uniform output, as the argument in `crypto/rlwe/bfv.py` says. What comes out is material for the online simulators.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pibench.links.meter import Meter
from pibench.lowering.program import Weights
from pibench.mpc.crypto.rlwe import bfv, ntt
from pibench.mpc.crypto.rlwe.arithmetic import add, multiply_add, scaled
from pibench.mpc.crypto.rlwe.bfv import Answer, Answering, PublicKey, SecretKey, _masks, gather
from pibench.mpc.crypto.rlwe.linear import LinearClient, LinearServer, _checked, weight_class
from pibench.mpc.crypto.rlwe.residues import add_flood, to_fraction
from pibench.mpc.crypto.rlwe.sampling import SEED_BYTES, expand, public_seed
from pibench.mpc.crypto.rlwe.wire import CHECK_BYTES, pack_residues, pack_words
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender, SenderSetup, answer_setup
from pibench.mpc.masked.gadgets.gadget import Gadgets
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.sources import two_party
from pibench.mpc.masked.sources.source import Material
from pibench.mpc.protocol import CLIENT, SERVER, Party
from pibench.mpc.ring.randomness import Stream, fresh_seed

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Nobody:
    """A peer that says uniform bytes, or what stands in line, and hears nothing."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.waiting: list[Bytes] = []
        self._stream = Stream(fresh_seed())

    def send(self, data: Any) -> None:
        """Drop what is said."""

    def recv_into(self, into: Any) -> None:
        """Say what stands in line, else uniform bytes."""
        view = np.frombuffer(memoryview(into).cast("B"), np.uint8)
        view[:] = self.waiting.pop(0) if self.waiting else self._stream.bytes(view.size)
        self.heard.append(view.tobytes())


def transfers() -> tuple[OtSender, OtReceiver]:
    """Return the sender of one set of transfers and the receiver of another; their peers are forgotten."""
    made: list[tuple[OtSender, OtReceiver]] = []
    for _ in range(2):
        setup = SenderSetup(b"simulated", b"one")
        receiver, answer = answer_setup(setup.offer, b"simulated", b"one")
        made.append((setup.finish(answer), receiver))
    return made[0][0], made[1][1]


def answer_for(linear: LinearClient, name: str, stream: Stream) -> Bytes:
    """Return an answer made of the client's key alone: c1 uniform, c0 what decrypts to uniform words, and a flood."""
    exchange, key = linear.exchange, linear._key
    packing, p = exchange.packings[name], exchange.parameters[name]
    ring, said = p.ring, list[Bytes]()
    for _ in range(exchange.images):
        for places in packing.places:
            c1 = expand(public_seed(), packing.outputs, ring)
            c0 = np.zeros_like(c1)
            multiply_add(c0, c1, key._minus, ring.moduli)
            ntt.backward(c0, ring)
            ntt.backward(c1, ring)
            body = gather(c0, places)
            words = stream.words(places.size).view(np.uint64) & np.uint64((1 << p.bits) - 1)
            add(body[None], scaled(words, p.bits, ring)[None], ring.moduli)
            add_flood(body, stream.words(2 * places.size).view(np.uint64).reshape(2, -1), p.flood, ring)
            made = Answer(_masks(c1, packing.outputs, p), to_fraction(body, 8 * p.body_bytes, ring))
            said += pack_words(made.masks, p.mask_bytes) + pack_words(made.bodies, p.body_bytes)
    return _checked(said)


def request_for(linear: LinearServer, name: str) -> Bytes:
    """Return ciphertexts that encrypt nothing: a seed, and residues uniform below their primes."""
    count, ring = linear.exchange.ciphertexts(name), linear.exchange.parameters[name].ring
    seed = np.frombuffer(public_seed(), np.uint8)
    return _checked([seed, pack_residues(expand(public_seed(), count, ring), count)])


def client_offline(plan: Plan, gadgets: Gadgets, monkeypatch: pytest.MonkeyPatch) -> tuple[Material, list[bytes]]:
    """Return a client's material and what it heard, from nothing of the server's."""
    nobody, stream = Nobody(), Stream(fresh_seed())
    source = two_party.CLIENT(plan, gadgets, Party(CLIENT, nobody, Meter(), batch=plan.batch))  # type: ignore[arg-type]
    source._sender, source._receiver = transfers()
    linear = source._linear = LinearClient(two_party.described(gadgets), plan.batch)
    linear._key = SecretKey(linear.exchange.settle(22), linear.exchange.degree)

    def take(self: two_party.ClientLinear) -> None:
        nobody.waiting = [answer_for(linear, self._name, stream)]
        plain(self)

    plain = two_party.ClientLinear.take
    with monkeypatch.context() as patched:
        patched.setattr(two_party.ClientLinear, "take", take)
        return next(source.make(1)), nobody.heard


def server_offline(
    plan: Plan, gadgets: Gadgets, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> tuple[Material, list[bytes]]:
    """Return a server's material and what it heard, from its weights alone."""
    nobody = Nobody()
    source = two_party.SERVER(plan, gadgets, Party(SERVER, nobody, Meter(), batch=plan.batch))  # type: ignore[arg-type]
    source._sender, source._receiver = transfers()
    integers = two_party._integers(gadgets, weights)
    linear = source._linear = LinearServer(two_party.described(gadgets), integers, plan.batch, kept_bytes=0)
    linear.exchange.settle(weight_class(integers))
    largest = max(linear.exchange.parameters.values(), key=lambda p: p.primes).ring
    uniform = np.ascontiguousarray(expand(public_seed(), 1, largest)[0, :, :, 0])
    linear._answering = Answering(PublicKey.of(uniform, public_seed(), largest))
    linear._prepare()

    def hear(self: two_party.ServerLinear) -> None:
        nobody.waiting = [request_for(linear, self._name)]
        plain(self)

    plain = two_party.ServerLinear.hear
    with monkeypatch.context() as patched:
        patched.setattr(two_party.ServerLinear, "hear", hear)
        return next(source.make(1)), nobody.heard


def watch_decryption(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray[Any, Any]]:
    """Return what fills with each layer's decrypted words, and the four bits below them: what noise is seen by."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    below: list[np.ndarray[Any, Any]] = []
    rounded, take = bfv._rounded, LinearClient.take

    def rounding(phase: Any, body: Any, width: int, up: int, bits: int, out: Any) -> None:
        rounded(phase, body, width, up, bits, out)
        assert width - bits <= 64  # the low word holds what lies below
        below.append(((phase[0] + (body[0] << np.uint64(up))) >> np.uint64(width - bits - 4)) & np.uint64(15))

    def taking(self: LinearClient, name: str, message: Bytes) -> Any:
        below.clear()
        made = take(self, name, message)
        found[f"{name} K1"] = made.reshape(-1)
        found[f"{name} noise"] = self.exchange.packings[name].join(below).reshape(-1).astype(np.uint8)
        return made

    monkeypatch.setattr(bfv, "_rounded", rounding)
    monkeypatch.setattr(LinearClient, "take", taking)
    return found


def numbers_of(heard: list[bytes], rank: int, gadgets: Gadgets) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield what a party heard offline as numbers, one an element of the step that they belong to, by name."""
    from pibench.mpc.masked.gadgets.extend import Extension
    from pibench.mpc.masked.gadgets.product import LinearLayer
    from pibench.mpc.masked.gadgets.relu_truth_tables import Tables
    from pibench.mpc.masked.gadgets.square import Squares
    from pibench.mpc.masked.sources.exchange import pieces
    from pibench.mpc.masked.sources.transferred import sign_layout, square_layout

    rest = [np.frombuffer(data, np.uint8) for data in heard]
    working = [g for g in gadgets.values() if isinstance(g, Tables | Squares | Extension)]
    layers = [g for g in gadgets.values() if isinstance(g, LinearLayer)]
    for gadget in working:
        n = gadget.n if isinstance(gadget, Squares) else gadget.size
        if rank == SERVER and isinstance(gadget, Extension):
            continue  # the client asks nothing
        found: dict[str, list[np.ndarray[Any, Any]]] = {}

        def put(label: str, values: np.ndarray[Any, Any], count: int, found: Any = found) -> None:
            found.setdefault(label, []).append(values[:count])

        for at, size in pieces(n):
            count = at.stop - at.start
            if rank == SERVER:
                assert not isinstance(gadget, Extension)
                asked = sign_layout(gadget).asked if isinstance(gadget, Tables) else square_layout(gadget).bits
                for i, column in enumerate(_choices(rest.pop(0), asked * size).reshape(asked, size)):
                    if i % 14 == 0 or i == asked - 1:  # a bit of every kind
                        put(f"choice {i}", column, count)
                continue
            if isinstance(gadget, Extension):
                put("choice", _choices(rest.pop(0), size), count)
            elif isinstance(gadget, Tables):
                layout = sign_layout(gadget)
                moved, told = rest.pop(0), rest.pop(0)
                for i, row in enumerate(_moved(moved, layout, size)):
                    if i % 11 == 0:
                        put(f"moved {i}", row, count)
                start = 0
                for i, width in enumerate(layout.widths):
                    if i % 15 == 0 or i == layout.bits - 1:
                        put(f"told {i}", _wide(told[start : start + size * width], width), count)
                    start += size * width
                put("told s", _wide(told[-size * layout.product_bytes :], layout.product_bytes), count)
                put("choice", _choices(rest.pop(0), size), count)
            else:
                told, chosen = rest.pop(0), square_layout(gadget).chosen
                put("told", _wide(told[: 2 * size], 2), count)
                put("choice", _choices(rest.pop(0), size * chosen).reshape(chosen, size)[0], count)
        for label, values in found.items():
            yield f"{gadget.step.out} offline {label}", np.concatenate(values)
    for layer in layers:
        message = rest.pop(0)
        if rank == CLIENT:
            bytes_each = -(-(layer.out.bits + 4) // 8)  # c0 comes last, before the check, in the order of its places
            end = message.size - CHECK_BYTES
            yield f"{layer.step.out} offline c0", _wide(message[end - layer.size * bytes_each : end], bytes_each)
        else:
            yield f"{layer.step.out} offline c0", message[SEED_BYTES : SEED_BYTES + layer.size]


def _wide(data: Bytes, width: int) -> np.ndarray[Any, Any]:
    """Return numbers of so many bytes, the first eight of each."""
    rows = data.reshape(-1, width)[:, :8]
    out = np.zeros((len(rows), 8), np.uint8)
    out[:, : rows.shape[1]] = rows
    return out.view(np.int64).reshape(-1)


def _choices(data: Bytes, size: int) -> np.ndarray[Any, Any]:
    """Return what a message of choices says of each transfer: a bit of each of 32 trees."""
    from pibench.mpc.crypto.rows import PIECE, TREES

    words, made = data.view(np.uint64), []
    for at in range(0, size // 64, PIECE):
        count = min(PIECE, size // 64 - at)
        part = np.ascontiguousarray(words[TREES * at : TREES * (at + count)]).reshape(TREES, count)
        bits = np.unpackbits(part.view(np.uint8), axis=1, bitorder="little").astype(np.int64)
        made.append((bits << np.arange(TREES)[:, None]).sum(0))
    return np.concatenate(made)


def _moved(data: Bytes, layout: Any, size: int) -> Iterator[np.ndarray[Any, Any]]:
    """Yield, a bit of a place at a time, what a message of swaps says of each element."""
    words, at = data.view(np.uint64), 0
    per_bit = [(1 << (bits - 6)) for bits in layout.digits for _ in range(bits)] + [1] * 6
    for per in per_bit:
        if per == 1:  # two elements share a word
            yield words[at : at + size // 2].view(np.uint32).astype(np.int64)
            at += size // 2
        else:
            yield words[at : at + size].view(np.int64)
            at += size * per // 2
