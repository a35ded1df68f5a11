"""Ring extension with truncation: two messages (SIRNN, Rathee et al., S&P 2021: the wrap from the parts' top bits)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pibench.mpc.backends.backend import Backend, Bytes, Halves, Ints, Stream, rounding_up
from pibench.mpc.masked.gadgets.gadget import Gadget, Parts
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost


@dataclass(frozen=True, kw_only=True)
class Extend(Step):
    """Truncation by `shift` bits and extension of the ring to the bits of `out`: two messages."""

    kind: ClassVar[str] = "truncation"
    rounds: ClassVar[int] = 2
    opens: ClassVar[bool] = True
    shift: int


@dataclass
class ServerHalf:
    """Which of the client's two pads the server holds (uniform bits), and that pad: a random oblivious transfer."""

    held: Bytes
    pad: Halves = field(init=False)


@dataclass
class ClientHalf:
    """Two pads, and its share x of the top bits' product; all uniform modulo 2^32."""

    p0: Halves
    p1: Halves
    x: Halves
    top: Bytes | None = None  # top bits of its part of the input


class Extension(Gadget[Extend, ServerHalf, ClientHalf]):
    """See Extend."""

    server_half, client_half = ServerHalf, ClientHalf

    def __init__(self, plan: Plan, step: Extend, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        self.window = plan.windows[step.inputs[0]]
        self.dealt_bytes = 4 * self.size
        gained = self.out.bits - self.window.bits + step.shift  # bits that the wrap's weight leaves below the new ring
        self.offer_bytes = max(1, -(-gained // 8))

    def draw_client(self, stream: Stream) -> ClientHalf:
        """Draw pads and share."""
        return ClientHalf(stream.halves(self.size), stream.halves(self.size), stream.halves(self.size))

    def draw_server(self, stream: Stream) -> ServerHalf:
        """Draw the choice."""
        return ServerHalf(stream.small(self.size, 1))

    def deal(self, client: ClientHalf, server: ServerHalf, secret: Stream) -> Bytes:
        """Return the chosen pads."""
        return self.backend.raw(self.backend.choose(server.held, client.p1, client.p0))

    def receive(self, half: ServerHalf, correction: Bytes) -> None:
        """Take the chosen pads."""
        half.pad = self.backend.view(correction, "uint32")

    def client_part(self, inputs: list[Ints | None], half: ClientHalf) -> Ints:
        """Truncate the client's part and add its share of the wrap; the top bits are kept for the conversation."""
        assert inputs[0] is not None
        bits, part = self.window.bits, self.backend.flat(inputs[0])
        y, half.top = self.backend.cut_part(part, self.step.shift, bits, 0)
        return y + (self.backend.words(half.x) << (bits - self.step.shift))

    def server(self, parts: Parts, half: ServerHalf) -> Conversation:
        """Send its top bits under the choice, and take one of two padded offers."""
        bits, backend = self.window.bits, self.backend
        x = backend.flat(parts[self.step.inputs[0]])
        offset = self.window.offset + rounding_up(self.step.shift)  # fits: see Window
        y, top = backend.cut_part(x, self.step.shift, bits, offset)  # (n,) words, (n,) of 0 and 1
        yield Send(backend.pack_bits(top ^ half.held))
        offers = backend.unpack_halves((yield Await(2 * self.size * self.offer_bytes)), self.offer_bytes)  # (2 n,)
        y = backend.wrap_take(top, offers, half.pad, bits - self.step.shift, y)
        parts[self.step.out] = y.reshape(self.shape)

    def client(self, half: ClientHalf) -> Conversation:
        """Offer both possible products of the top bits, each less its share and under one of the pads."""
        assert half.top is not None
        d = self.backend.unpack_bits((yield Await(-(-self.size // 8))), self.size)
        offers = self.backend.wrap_offers(half.top, d, half.x, half.p0, half.p1)  # (2 n,)
        yield Send(self.backend.pack_halves(offers, self.offer_bytes))

    @property
    def cost(self) -> Cost:
        """A bit an element there, two offers back."""
        offers = 2 * self.size * self.offer_bytes
        return Cost(rounds=self.step.rounds, server_bytes=-(-self.size // 8), client_bytes=offers)
