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

from pibench.mpc.backends.backend import Backend, Ints
from pibench.mpc.crypto.garbling import offline
from pibench.mpc.crypto.garbling.circuits import sign_circuit
from pibench.mpc.crypto.garbling.garbling import table_bytes
from pibench.mpc.crypto.garbling.gates import LABEL_BYTES
from pibench.mpc.crypto.garbling.offline import Acts, Ends
from pibench.mpc.crypto.garbling.signs import Cut, Evaluator, Garbler, transfer_bytes
from pibench.mpc.masked.gadgets.gadget import Parts
from pibench.mpc.masked.gadgets.garbled import Garbled
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost


@dataclass(frozen=True, kw_only=True)
class SignedRelu(Step):
    """max(x, 0) / 2^shift by a garbled sign; `dropped` low bits are not compared."""

    rounds: ClassVar[int] = 2
    opens: ClassVar[bool] = True
    shift: int
    dropped: int = 0


@dataclass
class ServerHalf:
    """Its half of a layer of garbled signs."""

    held: Garbler = field(init=False)


@dataclass
class ClientHalf:
    """Its part of the output (uniform), and its half of a layer of garbled signs."""

    part: Ints
    held: Evaluator = field(init=False)


class Circa(Garbled[SignedRelu, ServerHalf, ClientHalf]):
    """See SignedRelu; the server garbles."""

    server_half, client_half = ServerHalf, ClientHalf

    def __init__(self, plan: Plan, step: SignedRelu, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        self.cut = Cut(self.width, step.shift, step.dropped)
        self.compared = self.cut.width - step.dropped
        self.circuit = sign_circuit(self.compared, wraps=True)
        self.wrap_bytes = max(1, -(-(self.out.bits - self.cut.weight) // 8))

    # offline

    def make_server(self, ends: Ends, number: int, half: ServerHalf) -> Acts[None]:
        """Garble; then choose by the colours of both outputs."""
        half.held = yield from Garbler.make(ends, self.layer(number), self.cut)

    def make_client(self, ends: Ends, number: int, half: ClientHalf, inputs: list[Ints]) -> Acts[None]:
        """Take the circuit, and the server's choices."""
        part = self.backend.host(inputs[0])
        half.held = yield from Evaluator.make(ends, self.layer(number), self.cut, part)

    # online

    def server(self, parts: Parts, half: ServerHalf) -> Conversation:
        """Send labels and a correction; take the client's share, and what its colours opened."""
        x, out, backend = self.backend.host(parts[self.step.inputs[0]]), self.out.wire_bytes, self.backend
        for labels in half.held.labels(x):
            yield Send(labels)
        own, correction = half.held.correct(x)
        yield Send(backend.pack(backend.lift(correction), out))
        theirs = backend.unpack((yield Await(self.size * out)), out)
        product = backend.unpack((yield Await(self.size * out)), out)
        wrap = backend.unpack((yield Await(self.size * self.wrap_bytes)), self.wrap_bytes)
        opened = half.held.open(backend.host(product), backend.host(wrap))
        parts[self.step.out] = (backend.lift(own) + theirs + backend.lift(opened)).reshape(self.shape)

    def client(self, half: ClientHalf) -> Conversation:
        """Evaluate; multiply by what its colours and labels say, and send its share, less its part."""
        held, out, labels, backend = half.held, self.out.wire_bytes, [], self.backend
        for index, piece in enumerate(self.layer().pieces):
            size = LABEL_BYTES * self.compared * (piece.stop - piece.start)
            labels.append(held.outputs(index, (yield Await(size))))
        correction = backend.unpack((yield Await(self.size * out)), out)
        share, product, wrap = (backend.lift(made) for made in held.answer(labels, backend.host(correction)))
        yield Send(backend.pack(share - half.part, out))
        yield Send(backend.pack(product, out))
        yield Send(backend.pack(wrap, self.wrap_bytes))

    @property
    def cost(self) -> Cost:
        """Labels and a correction there; a share and two corrections back. Offline: circuit, and choices both ways."""
        layer, out = self.layer(), self.out.wire_bytes
        return Cost(
            rounds=self.step.rounds, server_bytes=LABEL_BYTES * self.compared * layer.lanes + self.size * out,
            client_bytes=self.size * (2 * out + self.wrap_bytes),
            offline_server_bytes=table_bytes(self.circuit) * layer.lanes + transfer_bytes(layer),
            offline_client_bytes=offline.transfer_bytes(layer),
        )  # fmt: skip
