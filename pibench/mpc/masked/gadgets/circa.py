"""ReLU by a garbled sign and a product (Circa, Ghodsi et al., NeurIPS 2021): a third of the circuit, two messages.

The circuit says [x >= 0] alone, of the parts without their lowest `dropped` bits, and whether the parts' sum wrapped.
With A and B the parts cut by `shift`, whole numbers of w - shift bits, y = [x >= 0] (A + B - 2^(w - shift) [wrapped]):
the server's is rounded up, the client's down, so y is x / 2^shift rounded down or up. Faults: the carry of what was
dropped is not seen, so a positive x below 2^dropped is taken for negative, and becomes zero, with probability
1 - (x + 1) / 2^dropped; nothing else changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from pibench.mpc.crypto.garbling import layer as garbled
from pibench.mpc.crypto.garbling import offline
from pibench.mpc.crypto.garbling.circuits import sign_circuit
from pibench.mpc.crypto.garbling.garbling import table_bytes
from pibench.mpc.crypto.garbling.gates import LABEL_BYTES
from pibench.mpc.crypto.garbling.layer import Layer
from pibench.mpc.crypto.garbling.offline import Acts, Ends
from pibench.mpc.crypto.garbling.product import GarblerPads, evaluator_share, garbler_pads
from pibench.mpc.crypto.softspoken import message_bytes
from pibench.mpc.crypto.transfers import receiver_pads, send_correlated, sender_pads, take_correlated
from pibench.mpc.masked import kernels
from pibench.mpc.masked.gadgets.gadget import Gadget, Parts
from pibench.mpc.masked.kernels import Ints, Words
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost
from pibench.mpc.ring.packing import pack, unpack
from pibench.mpc.ring.randomness import Stream

_ONE = np.uint64(1)


@dataclass(frozen=True, kw_only=True)
class SignedRelu(Step):
    """max(x, 0) / 2^shift by a garbled sign; `dropped` low bits are not compared."""

    rounds: ClassVar[int] = 2
    opens: ClassVar[bool] = True
    shift: int
    dropped: int = 0


@dataclass
class ServerHalf:
    """Its half of the circuit, pads of the sign's labels, and of transfers that its colours of both outputs chose."""

    held: garbled.OnlineGarbler = field(init=False)
    labels: GarblerPads = field(init=False)
    chosen: tuple[Words, Words] = field(init=False)


@dataclass
class ClientHalf:
    """Its part of the output (uniform), its half of the circuit, its part of x cut, and both pads of the transfers."""

    part: Ints
    held: garbled.OfflineEvaluator = field(init=False)
    cut: Words = field(init=False)
    pads: tuple[tuple[Words, Words], tuple[Words, Words]] = field(init=False)


class Circa(Gadget[SignedRelu, ServerHalf, ClientHalf]):
    """See SignedRelu; the server garbles."""

    server_half, client_half = ServerHalf, ClientHalf

    def __init__(self, plan: Plan, step: SignedRelu) -> None:
        super().__init__(plan, step)
        source = plan.values[step.inputs[0]]
        self.width = source.scale + source.beyond + plan.options.range_bits + 1
        self.compared = self.width - step.dropped
        self.circuit = sign_circuit(self.compared, wraps=True)
        self.weight = self.width - step.shift  # of the wrap
        self.wrap_bytes = max(1, -(-(self.out.bits - self.weight) // 8))

    def layer(self, number: int = 0) -> Layer:
        """Return the garbled layer, by its number in the life of a connection."""
        return Layer(self.circuit, self.size, number)

    # offline

    def draw_client(self, stream: Stream) -> ClientHalf:
        """Draw the part."""
        return ClientHalf(stream.words(self.size))

    def draw_server(self, stream: Stream) -> ServerHalf:
        """Nothing is drawn."""
        return ServerHalf()

    def make_server(self, ends: Ends, number: int, half: ServerHalf) -> Acts[None]:
        """Garble; then choose by the colours of both outputs."""
        layer, receiver = self.layer(number), ends.receiver
        half.held = yield from offline.garble_for_offline(ends, layer, keep=True)
        half.labels = garbler_pads(layer, half.held.outputs, ends.sender.delta, ends.sender.salt)
        made = []
        for bit in (0, 1):
            colours = np.zeros(-(-self.size // 64) * 8, np.uint8)
            packed = np.packbits(((half.held.decode >> np.uint64(bit)) & _ONE).astype(np.uint8), bitorder="little")
            colours[: packed.size] = packed
            at = receiver.position
            rows, message = receiver.extend(colours.view(np.uint64))
            ends.channel.send(message)
            made.append(receiver_pads(rows, at, receiver.salt)[: self.size, 0].copy())
        half.chosen = made[0], made[1]

    def make_client(self, ends: Ends, number: int, half: ClientHalf, inputs: list[Ints]) -> Acts[None]:
        """Take the circuit, and the server's choices."""
        x = np.ascontiguousarray(inputs[0]).reshape(-1).view(np.uint64)
        column = (x >> np.uint64(self.step.dropped), self.compared)
        half.cut, sender = self._cut(x), ends.sender
        half.held = yield from offline.receive_offline(ends, self.layer(number), [column])
        made = []
        for _ in (0, 1):
            message = np.empty(message_bytes(-(-self.size // 64) * 64) // 8, np.uint64)
            ends.channel.recv_into(message)
            at = sender.position
            both = sender_pads(sender.extend(message), at, sender.delta, sender.salt)
            made.append((both[0][: self.size, 0].copy(), both[1][: self.size, 0].copy()))
        half.pads = made[0], made[1]

    def client_part(self, inputs: list[Ints | None], half: ClientHalf) -> Ints:
        """Return the drawn part."""
        return half.part

    # online

    def server(self, parts: Parts, half: ServerHalf) -> Conversation:
        """Send labels and a correction; take the client's share, and what its colours opened."""
        x, out = np.ascontiguousarray(parts[self.step.inputs[0]]).reshape(-1).view(np.uint64), self.out.wire_bytes
        for labels in half.held.labels(x >> np.uint64(self.step.dropped)):
            yield Send(labels.view(np.uint8))
        own, correction = half.labels.correct(self._cut(x, kernels.rounding_up(self.step.shift)))
        yield Send(pack(correction.view(np.int64), out))
        theirs = unpack((yield Await(self.size * out)), out).view(np.uint64)
        product = unpack((yield Await(self.size * out)), out).view(np.uint64)
        wrap = unpack((yield Await(self.size * self.wrap_bytes)), self.wrap_bytes).view(np.uint64)
        colours = half.held.decode
        own += theirs + take_correlated(half.chosen[0], product, colours & _ONE)
        own -= take_correlated(half.chosen[1], wrap, colours >> _ONE) << np.uint64(self.weight)
        parts[self.step.out] = own.view(np.int64).reshape(self.shape)

    def client(self, half: ClientHalf) -> Conversation:
        """Evaluate; multiply by what its colours and labels say, and send its share, less its part."""
        layer, out, labels = half.held.layer, self.out.wire_bytes, []
        for index, piece in enumerate(layer.pieces):
            size = LABEL_BYTES * self.compared * (piece.stop - piece.start)
            labels.append(half.held.outputs(index, (yield Await(size)).view(np.uint64)))
        active = np.concatenate(labels)
        correction = unpack((yield Await(self.size * out)), out).view(np.uint64)
        sign, wrapped = self._colours(layer, active)
        held = half.cut
        share = evaluator_share(layer, active, half.held.salt, correction) + sign * held - half.part.view(np.uint64)
        mine, product = send_correlated(*half.pads[0], held - (sign * held << _ONE))
        rest, wrap = send_correlated(*half.pads[1], _ONE - (wrapped << _ONE))
        share += mine - ((wrapped + rest) << np.uint64(self.weight))
        yield Send(pack(share.view(np.int64), out))
        yield Send(pack(product.view(np.int64), out))
        yield Send(pack(wrap.view(np.int64), self.wrap_bytes))

    def _colours(self, layer: Layer, labels: Words) -> tuple[Words, Words]:
        both = garbled.colours_of(layer, labels)
        return both & _ONE, both >> _ONE

    def _cut(self, x: Words, more: int = 0) -> Words:
        """Return a part as a whole number below 2^width, and `more`, cut by the shift."""
        return ((x & np.uint64((1 << self.width) - 1)) + np.uint64(more)) >> np.uint64(self.step.shift)

    @property
    def cost(self) -> Cost:
        """Labels and a correction there; a share and two corrections back. Offline: circuit, and choices both ways."""
        layer, out = self.layer(), self.out.wire_bytes
        chosen = 2 * message_bytes(-(-self.size // 64) * 64)
        return Cost(
            rounds=self.step.rounds, server_bytes=LABEL_BYTES * self.compared * layer.lanes + self.size * out,
            client_bytes=self.size * (2 * out + self.wrap_bytes),
            offline_server_bytes=table_bytes(self.circuit) * layer.lanes + chosen,
            offline_client_bytes=offline.transfer_bytes(layer),
        )  # fmt: skip
