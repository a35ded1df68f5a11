"""Squares for polynomials: x is opened once, and t^2 = tau^2 + 2 tau rho + rho^2 is linear in shared squares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pibench.mpc.backends.backend import Backend, Bytes, Halves, Ints, Stream, ring_mask
from pibench.mpc.masked.gadgets.gadget import Opens, Parts
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost

SHARE_BYTES = 24  # an element


@dataclass(frozen=True, kw_only=True)
class Square(Step):
    """Of t = x / 2^shift, an element at a time: t^2 and t 2^(fraction bits), beside each other: two messages."""

    rounds: ClassVar[int] = 2
    opens: ClassVar[bool] = True
    shift: int


@dataclass
class Share:
    """One party's share, by addition, of what a square of n elements uses up; all arrays are views of one buffer."""

    buffer: Bytes
    rp: Ints  # -R, R what of the opening's mask lies above the window's low bits
    sq: Ints  # its square
    rt: Halves  # R's top bit, modulo 2^32
    rprt: Halves  # their product

    @classmethod
    def over(cls, backend: Backend, buffer: Bytes, n: int) -> Share:
        """Lay the arrays over a buffer of SHARE_BYTES * n."""
        rp, sq = (backend.view(buffer[8 * n * k : 8 * n * (k + 1)], "int64") for k in (0, 1))
        rt, rprt = (backend.view(buffer[4 * n * k : 4 * n * (k + 1)], "uint32") for k in (4, 5))
        return cls(buffer, rp, sq, rt, rprt)


@dataclass
class ServerHalf:
    """Its part r0 of the opening's mask r = r0 + r1 (uniform), and its share of what follows from r."""

    pre: Ints
    share: Share = field(init=False)


@dataclass
class ClientHalf:
    """Its share, its part r1 of the opening's mask, and its part of both outputs: all uniform."""

    share: Share
    r: Ints
    part: Ints


class Squares(Opens[Square, ServerHalf, ClientHalf]):
    """See Square."""

    server_half, client_half = ServerHalf, ClientHalf

    def __init__(self, plan: Plan, step: Square, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        self.n = plan.count(step.inputs[0])
        self.window = plan.windows[step.inputs[0]]
        self.told_width, self.told_count = self.window.told_bytes, self.n
        self.sign_bit = sum(self.window.digits)  # of what is opened
        self.dealt_bytes = SHARE_BYTES * self.n

    def draw_client(self, stream: Stream) -> ClientHalf:
        """Draw share, mask and parts."""
        share = Share.over(self.backend, stream.bytes(self.dealt_bytes), self.n)
        return ClientHalf(share, stream.words(self.n), stream.words(2 * self.n))

    def draw_server(self, stream: Stream) -> ServerHalf:
        """Draw its part of the mask."""
        return ServerHalf(stream.words(self.n))

    def deal(self, client: ClientHalf, server: ServerHalf, secret: Stream) -> Bytes:
        """Change the client's share in place into what is left for the server."""
        window, share, deal = self.window, client.share, self.backend.other_share
        r = self.backend.opened_mask(client.r + server.pre, window.bits, window.low)
        top, high = r >> (self.sign_bit + 1), -r
        deal(high, share.rp)
        deal(high * high, share.sq)
        deal(top, share.rt)
        deal(high * top, share.rprt)
        return share.buffer

    def receive(self, half: ServerHalf, correction: Bytes) -> None:
        """Take the share."""
        half.share = Share.over(self.backend, correction, self.n)

    def client_part(self, inputs: list[Ints | None], half: ClientHalf) -> Ints:
        """Return the part of both outputs."""
        return half.part

    def server(self, parts: Parts, half: ServerHalf) -> Conversation:
        """Send the masked value to the client; take its share of both outputs, less its part."""
        backend, window, width = self.backend, self.window, self.out.wire_bytes
        c = backend.open_masked(backend.flat(parts[self.step.inputs[0]]), half.pre, window.low)
        yield Send(backend.pack(c, window.open_bytes))
        c = c & ring_mask(window.open_bits)  # (n,), a new array: the old one may be going out
        y = self._select(c, half.share, 1)  # (2 n,): t^2 and t, alternating
        y += backend.unpack((yield Await(2 * self.n * width)), width)
        parts[self.step.out] = y.reshape(self.shape)

    def client(self, half: ClientHalf) -> Conversation:
        """Hold the other half of the two messages."""
        window = self.window
        c = self.backend.unpack((yield Await(self.n * window.open_bytes)), window.open_bytes)  # (n,)
        y = self._select(c & ring_mask(window.open_bits), half.share, 0)  # (2 n,)
        y -= half.part
        yield Send(self.backend.pack(y, self.out.wire_bytes))

    def _select(self, c: Ints, share: Share, own: int) -> Ints:
        raised = self.options.fraction_bits
        return self.backend.square(c, share.rp, share.sq, share.rt, share.rprt, self.sign_bit, raised, own)

    @property
    def cost(self) -> Cost:
        """One opening there, two outputs back."""
        n, width = self.n, self.window.open_bytes
        back = 2 * n * self.out.wire_bytes
        return super().cost + Cost(rounds=self.step.rounds, server_bytes=n * width, client_bytes=back)

    def lay(self, name: str, array: Any) -> Any:
        """Lay a share over its buffer."""
        return Share.over(self.backend, array, self.n) if name == "share" else array
