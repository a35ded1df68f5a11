"""ReLU with truncation by one-time truth tables: four messages (docs/protocol.md says why each is uniform)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pibench.errors import PartyError
from pibench.mpc.masked import kernels
from pibench.mpc.masked.gadgets.gadget import Gadget, Parts
from pibench.mpc.masked.kernels import BITS_MASK, Bytes, Halves, Ints, Words, cut, ring_mask, shift_down
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost
from pibench.mpc.ring.packing import pack, unpack
from pibench.mpc.ring.randomness import Stream

_COMBINATION = kernels.combination()


@dataclass(frozen=True, kw_only=True)
class ReluStep(Step):
    """max(x, 0) / 2^shift: four messages."""

    rounds: ClassVar[int] = 4
    opens: ClassVar[bool] = True
    shift: int


@dataclass
class Share:
    """One party's share of what a ReLU of n elements uses up; all arrays are views of one buffer.

    With r the opening's mask, cut to the window's ring, and R what of it lies above the window's low bits: of what
    follows from R and a random bit s that nobody knows.
    """

    buffer: Bytes
    words: Words  # (digit words, n): one-hot words of R's digits, by XOR
    table: Words  # one-time table of the combination, by XOR
    s: Ints  # the bit that masks the sign; this and the next two by addition
    rp: Ints  # -R
    srp: Ints  # s times that
    rt: Halves  # R's top bit, modulo 2^32
    srt: Halves  # s times that

    @classmethod
    def over(cls, buffer: Bytes, n: int, per: int) -> Share:
        """Lay the arrays over a buffer of `share_bytes(n, per)` bytes; `per` words hold the digits of an element."""
        sizes = {"words": (8 * per, np.uint64), "table": (8, np.uint64), "s": (8, np.int64), "rp": (8, np.int64),
                 "srp": (8, np.int64), "rt": (4, np.uint32), "srt": (4, np.uint32)}  # fmt: skip
        at, views = 0, {}
        for name, (size, kind) in sizes.items():
            views[name] = buffer[at : at + size * n].view(kind)
            at += size * n
        views["words"] = views["words"].reshape(per, n)
        return cls(buffer, **views)


def share_bytes(n: int, per: int) -> int:
    """Bytes of one party's share for n ReLUs."""
    return n * (8 * per + 8 + 3 * 8 + 2 * 4)


@dataclass
class ServerHalf:
    """Its part r0 of the opening's mask r = r0 + r1, its mask of the six bits (both uniform), and its share."""

    pre: Ints
    mu: Bytes
    share: Share = field(init=False)


@dataclass
class ClientHalf:
    """Its share, its part r1 of the opening's mask, its mask of the six bits, its part of the output: all uniform."""

    share: Share
    r: Ints
    mu: Bytes
    part: Ints
    shown: Ints | None = None  # debug mode: its part of the input


class Tables(Gadget[ReluStep, ServerHalf, ClientHalf]):
    """See ReluStep."""

    server_half, client_half = ServerHalf, ClientHalf

    def __init__(self, plan: Plan, step: ReluStep) -> None:
        super().__init__(plan, step)
        self.source, self.window = plan.values[step.inputs[0]], plan.windows[step.inputs[0]]
        self.told_width, self.told_count = self.window.told_bytes, self.size
        self.dealt_bytes = share_bytes(self.size, self.window.digit_words)
        self.sign_bit = sum(self.window.digits)  # of what is opened
        self.raised = self.window.low - step.shift  # low bits of the output that were never opened: zeros

    def draw_client(self, stream: Stream) -> ClientHalf:
        """Draw share, masks and part."""
        share = Share.over(stream.bytes(self.dealt_bytes), self.size, self.window.digit_words)
        return ClientHalf(share, stream.words(self.size), stream.small(self.size, BITS_MASK), stream.words(self.size))

    def draw_server(self, stream: Stream) -> ServerHalf:
        """Draw its part of the mask, and its mask of the bits."""
        return ServerHalf(stream.words(self.size), stream.small(self.size, BITS_MASK))

    def deal(self, client: ClientHalf, server: ServerHalf, secret: Stream) -> Bytes:
        """Change the client's share in place into what is left for the server."""
        window, share = self.window, client.share
        r = shift_down(cut(client.r + server.pre, window.bits), window.low)
        s = secret.small(len(r), 1)
        kernels.deal_digits(r, window.digits, share.words)
        kernels.deal_choice(r, np.bitwise_xor(client.mu, server.mu), s, self.sign_bit, _COMBINATION, share.table)
        top = (r >> (self.sign_bit + 1)).astype(np.uint32)
        np.subtract(s, share.s, out=share.s)
        np.subtract(-r, share.rp, out=share.rp)
        np.subtract(-r * s, share.srp, out=share.srp)
        np.subtract(top, share.rt, out=share.rt)
        np.subtract(top * s, share.srt, out=share.srt)
        return share.buffer

    def receive(self, half: ServerHalf, correction: Bytes) -> None:
        """Take the share."""
        half.share = Share.over(correction, self.size, self.window.digit_words)

    def client_part(self, inputs: list[Ints | None], half: ClientHalf) -> Ints:
        """Return the drawn part."""
        if self.options.check_ranges and inputs[0] is not None:
            half.shown = np.ascontiguousarray(inputs[0]).reshape(-1)
        return half.part

    def tell(self, inputs: list[Ints], half: ClientHalf) -> Ints:
        """Return part of x + r1."""
        return inputs[0].reshape(-1) + half.r

    def hear(self, half: ServerHalf, told: Ints | None) -> None:
        """Make r0 all that is added to the server's part of x."""
        assert told is not None
        half.pre += told + self.window.offset

    def server(self, parts: Parts, half: ServerHalf) -> Conversation:
        """Hold the server's half of four messages.

        1. to the client: c = x + offset + r without its low bits, then the share of the six masked bits, read at c.
        2. from the client: its share of the six bits, and of the masked sign.
        3. to the client: the masked sign beta.
        4. from the client: its share of y minus the part that it will hold.
        """
        window, share, n = self.window, half.share, self.size
        x = np.ascontiguousarray(parts[self.step.inputs[0]]).reshape(-1)
        if self.options.check_ranges:
            yield from self._check_range(x)
        c, bits, beta = np.empty(n, np.int64), np.empty(n, np.uint8), np.empty(n, np.uint8)
        kernels.open_masked(x, half.pre, window.low, c)
        yield Send(pack(c, window.open_bytes))
        c = c & ring_mask(window.open_bits)  # a new array: what goes out may be the old one itself
        kernels.read_digits(c, share.words, half.mu, window.digits, bits)
        yield Send(np.bitwise_and(bits, np.uint8(BITS_MASK)))
        reply = yield Await(n)
        kernels.decide(bits, reply, share.table, c, self.sign_bit, beta)
        yield Send(np.packbits(beta))
        y = self._select(c, beta, share, 1)
        y += unpack((yield Await(n * self.out.wire_bytes)), self.out.wire_bytes)
        parts[self.step.out] = y.reshape(self.shape)

    def client(self, half: ClientHalf) -> Conversation:
        """Hold the other half of the four messages of `server`."""
        window, share, n = self.window, half.share, self.size
        if self.options.check_ranges:
            assert half.shown is not None
            yield Send(half.shown.view(np.uint8))
        bits, reply = np.empty(n, np.uint8), np.empty(n, np.uint8)
        c = unpack((yield Await(n * window.open_bytes)), window.open_bytes)
        c &= ring_mask(window.open_bits)
        kernels.read_digits(c, share.words, half.mu, window.digits, bits)
        theirs = yield Await(n)
        kernels.answer(bits, theirs, share.table, reply)
        yield Send(reply)
        beta = np.unpackbits((yield Await(-(-n // 8))), count=n)
        y = self._select(c, beta, share, 0)
        y -= half.part
        yield Send(pack(y, self.out.wire_bytes))

    def _select(self, c: Ints, beta: Bytes, share: Share, own: int) -> Ints:
        y = np.empty(self.size, np.int64)
        kernels.select(c, beta, share.s, share.rp, share.srp, share.rt, share.srt, self.sign_bit, self.raised, own, y)
        return y

    def _check_range(self, x: Ints) -> Conversation:
        """Debug mode only: the client shows its part, and the server sees the value, modulo the opening's ring.

        Nothing before a ReLU keeps more bits than that, and a plan that did would be another one than runs.
        """
        heard = yield Await(8 * x.size)
        bits, source, op = self.window.bits, self.source, self.step.op
        value = ((x + heard.view(np.int64)) << (64 - bits)) >> (64 - bits)
        limit = 1 << (self.options.range_bits + source.beyond + source.scale)
        if value.max() > limit - (1 << self.window.low) or value.min() < -limit:
            raise PartyError(
                f"the input of {op.site or op.name} reaches {float(np.abs(value).max()) / 2**source.scale:.1f}, "
                f"or that and a multiple of {2 ** (bits - source.scale)}, outside the protocol's range of "
                f"{limit >> source.scale} (less 2^-{self.options.fraction_bits}, the largest that it holds)",
                remedy="raise range_bits in the protocol's options",
            )

    @property
    def cost(self) -> Cost:
        """Opening, bits and sign there; bits with the sign's share, and the output, back."""
        n, width = self.size, self.window.open_bytes
        shown, asked = (8 * n, 1) if self.options.check_ranges else (0, 0)
        return super().cost + Cost(
            rounds=self.step.rounds + asked, server_bytes=n * (width + 1) + -(-n // 8),
            client_bytes=n * (1 + self.out.wire_bytes) + shown,
        )  # fmt: skip

    def lay(self, name: str, array: Any) -> Any:
        """Lay a share over its buffer."""
        return Share.over(array, self.size, self.window.digit_words) if name == "share" else array
