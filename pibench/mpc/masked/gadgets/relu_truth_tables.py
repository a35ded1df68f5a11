"""ReLU with truncation by one-time truth tables: four messages (docs/protocol.md says why each is uniform)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pibench.errors import PartyError
from pibench.mpc.backends.backend import BITS_MASK, Backend, Bytes, Halves, Ints, Kind, Stream, Words, ring_mask
from pibench.mpc.masked.gadgets.gadget import Opens, Parts
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost


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
    def over(cls, backend: Backend, buffer: Bytes, n: int, per: int) -> Share:
        """Lay the arrays over a buffer of `share_bytes(n, per)` bytes; `per` words hold the digits of an element."""
        sizes: dict[str, tuple[int, Kind]] = {
            "words": (8 * per, "uint64"), "table": (8, "uint64"), "s": (8, "int64"), "rp": (8, "int64"),
            "srp": (8, "int64"), "rt": (4, "uint32"), "srt": (4, "uint32"),
        }  # fmt: skip
        at, views = 0, {}
        for name, (size, kind) in sizes.items():
            views[name] = backend.view(buffer[at : at + size * n], kind)
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


class Tables(Opens[ReluStep, ServerHalf, ClientHalf]):
    """See ReluStep."""

    server_half: ClassVar[type[Any] | None] = ServerHalf
    client_half: ClassVar[type[Any] | None] = ClientHalf

    def __init__(self, plan: Plan, step: ReluStep, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        self.source, self.window = plan.values[step.inputs[0]], plan.windows[step.inputs[0]]
        self.told_width, self.told_count = self.window.told_bytes, self.size
        self.share_bytes = self.dealt_bytes = share_bytes(self.size, self.window.digit_words)
        self.sign_bit = sum(self.window.digits)  # of what is opened
        self.raised = self.window.low - step.shift  # low bits of the output that were never opened: zeros

    def draw_client(self, stream: Stream) -> ClientHalf:
        """Draw share, masks and part."""
        share = self._share(stream.bytes(self.share_bytes))
        return ClientHalf(share, stream.words(self.size), stream.small(self.size, BITS_MASK), stream.words(self.size))

    def draw_server(self, stream: Stream) -> ServerHalf:
        """Draw its part of the mask, and its mask of the bits."""
        return ServerHalf(stream.words(self.size), stream.small(self.size, BITS_MASK))

    def deal(self, client: ClientHalf, server: ServerHalf, secret: Stream) -> Bytes:
        """Change the client's share in place into what is left for the server."""
        window, share, deal = self.window, client.share, self.backend.other_share
        r = self.backend.opened_mask(client.r + server.pre, window.bits, window.low)
        bits = secret.small(self.size, 1)
        self.backend.deal_digits(r, window.digits, share.words)
        self.backend.deal_choice(r, client.mu ^ server.mu, bits, self.sign_bit, share.table)
        s, top = self.backend.words(bits), r >> (self.sign_bit + 1)
        deal(s, share.s)
        deal(-r, share.rp)
        deal(-r * s, share.srp)
        deal(top, share.rt)
        deal(top * s, share.srt)
        return share.buffer

    def _share(self, buffer: Bytes) -> Share:
        return Share.over(self.backend, buffer, self.size, self.window.digit_words)

    def receive(self, half: ServerHalf, correction: Bytes) -> None:
        """Take the share."""
        half.share = self._share(correction)

    def client_part(self, inputs: list[Ints | None], half: ClientHalf) -> Ints:
        """Return the drawn part."""
        if self.options.check_ranges and inputs[0] is not None:
            half.shown = self.backend.flat(inputs[0])
        return half.part

    def server(self, parts: Parts, half: ServerHalf) -> Conversation:
        """Hold the server's half of four messages.

        1. to the client: c = x + offset + r without its low bits, then the share of the six masked bits, read at c.
        2. from the client: its share of the six bits, and of the masked sign.
        3. to the client: the masked sign beta.
        4. from the client: its share of y minus the part that it will hold.
        """
        share, n, backend = half.share, self.size, self.backend
        c, bits = yield from self._open(parts, half)
        yield Send(backend.host(bits & BITS_MASK))
        reply = backend.lift((yield Await(n)))  # (n,): six bits, and the sign's share as bit 6
        beta = backend.decide(bits, reply, share.table, c, self.sign_bit)  # (n,) of 0 and 1
        yield Send(backend.pack_bits(beta))
        y = self._select(c, beta, share, 1)  # (n,)
        y += backend.unpack((yield Await(n * self.out.wire_bytes)), self.out.wire_bytes)
        parts[self.step.out] = y.reshape(self.shape)

    def client(self, half: ClientHalf) -> Conversation:
        """Hold the other half of the four messages of `server`."""
        share, n, backend = half.share, self.size, self.backend
        c, bits = yield from self._opened(half)
        theirs = backend.lift((yield Await(n)))
        yield Send(backend.host(backend.answer(bits, theirs, share.table)))
        beta = backend.unpack_bits((yield Await(-(-n // 8))), n)  # (n,) of 0 and 1
        y = self._select(c, beta, share, 0)  # (n,)
        y -= half.part
        yield Send(backend.pack(y, self.out.wire_bytes))

    def _open(self, parts: Parts, half: ServerHalf) -> Generator[Send | Await, Any, tuple[Ints, Bytes]]:
        """Server: send the opening; returns it, (n,) of `open_bits`, and the bits read at it from words (planes, n)."""
        window, backend = self.window, self.backend
        x = backend.flat(parts[self.step.inputs[0]])  # (n,)
        if self.options.check_ranges:
            yield from self._check_range(x)
        c = backend.open_masked(x, half.pre, window.low)
        yield Send(backend.pack(c, window.open_bytes))
        c = c & ring_mask(window.open_bits)  # a new array: what goes out may be the old one itself
        return c, backend.read_digits(c, half.share.words, half.mu, window.digits)

    def _opened(self, half: ClientHalf) -> Generator[Send | Await, Any, tuple[Ints, Bytes]]:
        """Client: take the opening; returns what `_open` does."""
        window, backend = self.window, self.backend
        if self.options.check_ranges:
            assert half.shown is not None
            yield Send(backend.pack(half.shown, 8))
        c = backend.unpack((yield Await(self.size * window.open_bytes)), window.open_bytes)
        c &= ring_mask(window.open_bits)
        return c, backend.read_digits(c, half.share.words, half.mu, window.digits)

    def _select(self, c: Ints, beta: Bytes, share: Share, own: int) -> Ints:
        return self.backend.select(
            c, beta, share.s, share.rp, share.srp, share.rt, share.srt, self.sign_bit, self.raised, own
        )

    def _check_range(self, x: Ints) -> Conversation:
        """Debug mode only: the client shows its part, and the server sees the value, modulo the opening's ring.

        Nothing before a ReLU keeps more bits than that, and a plan that did would be another one than runs.
        """
        heard = self.backend.unpack((yield Await(8 * self.size)), 8)
        bits, source, op = self.window.bits, self.source, self.step.op
        value = ((x + heard) << (64 - bits)) >> (64 - bits)
        limit = 1 << (self.options.range_bits + source.beyond + source.scale)
        least, most = int(value.min()), int(value.max())
        if most > limit - (1 << self.window.low) or least < -limit:
            raise PartyError(
                f"the input of {op.site or op.name} reaches {max(most, -least) / 2**source.scale:.1f}, "
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
        return self._share(array) if name == "share" else array
