"""Ring extension with truncation: two messages (SIRNN, Rathee et al., S&P 2021: the wrap from the parts' top bits)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from pibench.mpc.masked import kernels
from pibench.mpc.masked.gadgets.gadget import Gadget, Parts
from pibench.mpc.masked.kernels import Bytes, Halves, Ints
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost
from pibench.mpc.ring.packing import pack_halves, unpack_halves
from pibench.mpc.ring.randomness import Stream


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

    def __init__(self, plan: Plan, step: Extend) -> None:
        super().__init__(plan, step)
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
        return np.where(server.held.astype(bool), client.p1, client.p0).view(np.uint8)

    def receive(self, half: ServerHalf, correction: Bytes) -> None:
        """Take the chosen pads."""
        half.pad = correction.view(np.uint32)

    def client_part(self, inputs: list[Ints | None], half: ClientHalf) -> Ints:
        """Truncate the client's part and add its share of the wrap; the top bits are kept for the conversation."""
        assert inputs[0] is not None
        y, half.top = np.empty(self.size, np.int64), np.empty(self.size, np.uint8)
        bits, part = self.window.bits, np.ascontiguousarray(inputs[0]).reshape(-1)
        kernels.cut_part(part, self.step.shift, bits, 0, y, half.top)
        return y + (half.x.astype(np.int64) << (bits - self.step.shift))

    def server(self, parts: Parts, half: ServerHalf) -> Conversation:
        """Send its top bits under the choice, and take one of two padded offers."""
        bits = self.window.bits
        x = np.ascontiguousarray(parts[self.step.inputs[0]]).reshape(-1)
        y, top = np.empty(x.size, np.int64), np.empty(x.size, np.uint8)
        offset = self.window.offset + kernels.rounding_up(self.step.shift)  # fits: see Window
        kernels.cut_part(x, self.step.shift, bits, offset, y, top)
        yield Send(np.packbits(top ^ half.held))
        offers = unpack_halves((yield Await(2 * x.size * self.offer_bytes)), self.offer_bytes)
        kernels.wrap_take(top, offers, half.pad, bits - self.step.shift, y)
        parts[self.step.out] = y.reshape(self.shape)

    def client(self, half: ClientHalf) -> Conversation:
        """Offer both possible products of the top bits, each less its share and under one of the pads."""
        assert half.top is not None
        d = np.unpackbits((yield Await(-(-self.size // 8))), count=self.size)
        offers = np.empty(2 * self.size, np.uint32)
        kernels.wrap_offers(half.top, d, half.x, half.p0, half.p1, offers)
        yield Send(pack_halves(offers, self.offer_bytes))

    @property
    def cost(self) -> Cost:
        """A bit an element there, two offers back."""
        offers = 2 * self.size * self.offer_bytes
        return Cost(rounds=self.step.rounds, server_bytes=-(-self.size // 8), client_bytes=offers)
