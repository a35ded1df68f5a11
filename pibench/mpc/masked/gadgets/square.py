"""Squares for polynomials: x is opened once, and t^2 = tau^2 + 2 tau rho + rho^2 is linear in shared squares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pibench.mpc.masked import kernels
from pibench.mpc.masked.gadgets.gadget import Gadget, Parts
from pibench.mpc.masked.kernels import Bytes, Halves, Ints, cut, ring_mask, shift_down
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost
from pibench.mpc.ring.packing import pack, unpack
from pibench.mpc.ring.randomness import Stream

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
    def over(cls, buffer: Bytes, n: int) -> Share:
        """Lay the arrays over a buffer of SHARE_BYTES * n."""
        rp, sq = buffer[: 8 * n].view(np.int64), buffer[8 * n : 16 * n].view(np.int64)
        return cls(buffer, rp, sq, buffer[16 * n : 20 * n].view(np.uint32), buffer[20 * n :].view(np.uint32))


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


class Squares(Gadget[Square, ServerHalf, ClientHalf]):
    """See Square."""

    server_half, client_half = ServerHalf, ClientHalf

    def __init__(self, plan: Plan, step: Square) -> None:
        super().__init__(plan, step)
        self.n = plan.count(step.inputs[0])
        self.window = plan.windows[step.inputs[0]]
        self.told_width, self.told_count = self.window.told_bytes, self.n
        self.sign_bit = sum(self.window.digits)  # of what is opened
        self.dealt_bytes = SHARE_BYTES * self.n

    def draw_client(self, stream: Stream) -> ClientHalf:
        """Draw share, mask and parts."""
        share = Share.over(stream.bytes(self.dealt_bytes), self.n)
        return ClientHalf(share, stream.words(self.n), stream.words(2 * self.n))

    def draw_server(self, stream: Stream) -> ServerHalf:
        """Draw its part of the mask."""
        return ServerHalf(stream.words(self.n))

    def deal(self, client: ClientHalf, server: ServerHalf, secret: Stream) -> Bytes:
        """Change the client's share in place into what is left for the server."""
        window, share = self.window, client.share
        r = shift_down(cut(client.r + server.pre, window.bits), window.low)
        top, high = (r >> (self.sign_bit + 1)).astype(np.uint32), -r
        np.subtract(high, share.rp, out=share.rp)
        np.subtract(high * high, share.sq, out=share.sq)
        np.subtract(top, share.rt, out=share.rt)
        np.subtract(high.astype(np.uint32) * top, share.rprt, out=share.rprt)
        return share.buffer

    def receive(self, half: ServerHalf, correction: Bytes) -> None:
        """Take the share."""
        half.share = Share.over(correction, self.n)

    def client_part(self, inputs: list[Ints | None], half: ClientHalf) -> Ints:
        """Return the part of both outputs."""
        return half.part

    def tell(self, inputs: list[Ints], half: ClientHalf) -> Ints:
        """Return part of x + r1."""
        return inputs[0].reshape(-1) + half.r

    def hear(self, half: ServerHalf, told: Ints | None) -> None:
        """Make r0 all that is added to the server's part of x."""
        assert told is not None
        half.pre += told + self.window.offset

    def server(self, parts: Parts, half: ServerHalf) -> Conversation:
        """Send the masked value to the client; take its share of both outputs, less its part."""
        x = np.ascontiguousarray(parts[self.step.inputs[0]]).reshape(-1)
        c, window = np.empty(x.size, np.int64), self.window
        kernels.open_masked(x, half.pre, window.low, c)
        yield Send(pack(c, window.open_bytes))
        y = self._select(c & ring_mask(window.open_bits), half.share, 1)  # a new array: the old one may be going out
        y += unpack((yield Await(y.size * self.out.wire_bytes)), self.out.wire_bytes)
        parts[self.step.out] = y.reshape(self.shape)

    def client(self, half: ClientHalf) -> Conversation:
        """Hold the other half of the two messages."""
        window = self.window
        c = unpack((yield Await(self.n * window.open_bytes)), window.open_bytes)
        y = self._select(c & ring_mask(window.open_bits), half.share, 0)
        y -= half.part
        yield Send(pack(y, self.out.wire_bytes))

    def _select(self, c: Ints, share: Share, own: int) -> Ints:
        y, raised = np.empty(2 * self.n, np.int64), self.options.fraction_bits
        kernels.square(c, share.rp, share.sq, share.rt, share.rprt, self.sign_bit, raised, own, y)
        return y

    @property
    def cost(self) -> Cost:
        """One opening there, two outputs back."""
        n, width = self.n, self.window.open_bytes
        back = 2 * n * self.out.wire_bytes
        return super().cost + Cost(rounds=self.step.rounds, server_bytes=n * width, client_bytes=back)

    def lay(self, name: str, array: Any) -> Any:
        """Lay a share over its buffer."""
        return Share.over(array, self.n) if name == "share" else array
