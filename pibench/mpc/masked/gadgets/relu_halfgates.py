"""ReLU with truncation by a garbled circuit, as the papers' own systems do it: two messages, however wide the ring.

DELPHI (Mishra et al., USENIX Security 2020): the circuit adds the parts of x, chooses, truncates exactly, and masks
with the client's next part, so that what is decoded is the server's fresh part. Offline go circuit and the client's
labels; online the server's labels, 16 bytes a bit, and the colours of the outputs back. With `garbler: client`
(Garimella et al., ASPLOS 2023) circuits wait at the server, which chooses its labels by oblivious transfer online.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pibench.mpc.backends.backend import Backend, Host, Ints
from pibench.mpc.crypto.garbling import layer as garbled
from pibench.mpc.crypto.garbling import offline
from pibench.mpc.crypto.garbling.circuits import relu_circuit
from pibench.mpc.crypto.garbling.garbling import table_bytes
from pibench.mpc.crypto.garbling.gates import LABEL_BYTES
from pibench.mpc.crypto.garbling.layer import as_part, as_words
from pibench.mpc.crypto.garbling.offline import Acts, Ends
from pibench.mpc.masked.gadgets.gadget import Parts
from pibench.mpc.masked.gadgets.garbled import Garbled
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost


@dataclass(frozen=True, kw_only=True)
class GarbledRelu(Step):
    """max(x, 0) / 2^shift, exactly: two messages.

    Of several `gaps` x_1 - x_2, x_2 - x_3, ..., which the input holds one after another for all windows, the largest x
    less the last one (`circuits.relu_circuit`): a max pool in two messages.
    """

    rounds: ClassVar[int] = 2
    opens: ClassVar[bool] = True
    chains: ClassVar[bool] = True
    shift: int
    gaps: int = 1
    garbler: str = "server"


@dataclass
class ServerHalf:
    """Its half of a garbled layer."""

    held: garbled.OnlineGarbler | garbled.OnlineEvaluator = field(init=False)


@dataclass
class ClientHalf:
    """Its part of the output, uniform, and its half of a garbled layer."""

    part: Ints
    held: garbled.OfflineEvaluator | garbled.OfflineGarbler = field(init=False)


class HalfGates(Garbled[GarbledRelu, ServerHalf, ClientHalf]):
    """See GarbledRelu."""

    server_half, client_half = ServerHalf, ClientHalf

    def __init__(self, plan: Plan, step: GarbledRelu, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        self.client_garbles = step.garbler == "client"
        self.circuit = relu_circuit(self.width, self.out.bits, step.shift, self.client_garbles, step.gaps)

    # offline

    def make_server(self, ends: Ends, number: int, half: ServerHalf) -> Acts[None]:
        """Garble, or take the circuit."""
        if self.client_garbles:
            half.held = yield from offline.receive_online(ends, self.layer(number))
        else:
            half.held = yield from offline.garble_for_offline(ends, self.layer(number))

    def make_client(self, ends: Ends, number: int, half: ClientHalf, inputs: list[Ints]) -> Acts[None]:
        """Take the circuit, or garble: the part of x and minus the part of the output are inputs."""
        columns = [(word, self.width) for word in self._words(inputs[0])]
        columns.append((as_words(self.backend.host(-half.part)), self.out.bits))
        if self.client_garbles:
            half.held = yield from offline.garble_for_online(ends, self.layer(number), columns)
        else:
            half.held = yield from offline.receive_offline(ends, self.layer(number), columns)

    # online

    def server(self, parts: Parts, half: ServerHalf) -> Conversation:
        """Send labels and decode what comes back; or ask for labels and evaluate."""
        x, held, lift = self._words(parts[self.step.inputs[0]]), half.held, self.backend.lift
        if isinstance(held, garbled.OnlineGarbler):
            for labels in held.labels(*x):
                yield Send(labels)
            z = self.backend.unpack((yield Await(self.size * self.out.wire_bytes)), self.out.wire_bytes)
            z = z ^ lift(as_part(held.decode))
        else:
            yield Send(self.backend.pack_bits(lift(held.corrections(*x))))
            shown = []
            for index, piece in enumerate(held.layer.pieces):
                shown.append(held.evaluate(index, (yield Await(self._label_bytes(piece)))))
            z = lift(as_part(shown))
        parts[self.step.out] = z.reshape(self.shape)

    def client(self, half: ClientHalf) -> Conversation:
        """Evaluate and send the colours; or answer with labels."""
        held, backend = half.held, self.backend
        if isinstance(held, garbled.OfflineEvaluator):
            shown = []
            for index, piece in enumerate(held.layer.pieces):
                shown.append(held.evaluate(index, (yield Await(self._label_bytes(piece)))))
            yield Send(backend.pack(backend.lift(as_part(shown)), self.out.wire_bytes))
        else:
            count = self.step.gaps * self.width * held.layer.lanes
            wrong = backend.host(backend.unpack_bits((yield Await(-(-count // 8))), count))
            for labels in held.labels(wrong):
                yield Send(labels)

    def _words(self, part: Ints) -> list[Host]:
        """Return a part of the input as words a lane, a column a gap."""
        columns = self.backend.host(part).reshape(self.plan.batch, self.step.gaps, -1)
        return [as_words(columns[:, gap]) for gap in range(self.step.gaps)]

    def _label_bytes(self, piece: slice) -> int:
        lanes: int = piece.stop - piece.start
        return LABEL_BYTES * self.step.gaps * self.width * lanes

    @property
    def cost(self) -> Cost:
        """Labels and colours; or corrections and labels. Offline: transfers, circuit and, from the client, labels."""
        layer, circuit = self.layer(), self.circuit
        wires = self.step.gaps * self.width * layer.lanes
        labels, tables = LABEL_BYTES * wires, table_bytes(circuit) * layer.lanes
        if not self.client_garbles:
            return Cost(
                rounds=self.step.rounds, server_bytes=labels, client_bytes=self.size * self.out.wire_bytes,
                offline_server_bytes=tables, offline_client_bytes=offline.transfer_bytes(layer),
            )  # fmt: skip
        own = LABEL_BYTES * circuit.garbler * layer.lanes + layer.count * layer.wire_bytes
        return Cost(
            rounds=self.step.rounds, server_bytes=-(-wires // 8), client_bytes=labels,
            offline_server_bytes=offline.transfer_bytes(layer), offline_client_bytes=tables + own,
        )  # fmt: skip
