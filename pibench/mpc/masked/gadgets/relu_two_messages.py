"""ReLU with truncation in two messages: the tables of `relu_truth_tables.py`, an answer for either sign, one readable.

The server sends its masked bits with the opening. So the client knows all that the masked sign beta depends on but the
server's own share of the table entry, and answers with both possible outputs, each under a pad of its own. Of the two
pads of the entry at hand the server holds one: that of the offer which its share of the entry says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pibench.mpc.backends.backend import Backend, Bytes, Ints, Stream
from pibench.mpc.masked.gadgets.gadget import Parts
from pibench.mpc.masked.gadgets.relu_truth_tables import ClientHalf as TablesClientHalf
from pibench.mpc.masked.gadgets.relu_truth_tables import ReluStep, Tables
from pibench.mpc.masked.gadgets.relu_truth_tables import ServerHalf as TablesServerHalf
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost

ENTRIES = 64  # of a combination's table, each with a pad
KEY_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class OfferedRelu(ReluStep):
    """max(x, 0) / 2^shift: two messages."""

    rounds: ClassVar[int] = 2


@dataclass
class ServerHalf(TablesServerHalf):
    """As for tables; a mask of its share of lt3 (uniform bits); and one of the two pads of each entry, by element.

    Which one: the bit of its share of the table, xor the mask.
    """

    flip: Bytes = field(kw_only=True)
    pads: Bytes = field(init=False)


@dataclass
class ClientHalf(TablesClientHalf):
    """As for tables; and the key that all pads follow from."""

    key: Bytes = field(kw_only=True)


class Offers(Tables):
    """See OfferedRelu."""

    server_half: ClassVar[type[Any] | None] = ServerHalf
    client_half: ClassVar[type[Any] | None] = ClientHalf

    def __init__(self, plan: Plan, step: OfferedRelu, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        self.width = self.out.wire_bytes  # of a pad, as of an output
        self.dealt_bytes = self.share_bytes + ENTRIES * self.width * self.size

    def draw_client(self, stream: Stream) -> ClientHalf:
        """Draw share, masks, part and key."""
        return ClientHalf(**vars(super().draw_client(stream)), key=stream.bytes(KEY_BYTES))

    def draw_server(self, stream: Stream) -> ServerHalf:
        """Draw its part of the mask, and its masks of the bits."""
        drawn = super().draw_server(stream)
        return ServerHalf(drawn.pre, drawn.mu, flip=stream.small(self.size, 1))

    def deal(self, client: TablesClientHalf, server: TablesServerHalf, secret: Stream) -> Bytes:
        """Return the server's share, then the pads that it opens."""
        assert isinstance(client, ClientHalf)
        assert isinstance(server, ServerHalf)
        dealt = self.backend.lift(self.backend.buffer(self.dealt_bytes))
        dealt[: self.share_bytes] = super().deal(client, server, secret)
        table = client.share.table  # the server's by now
        self.backend.deal_pads(client.key, table, server.flip, self.width, dealt[self.share_bytes :])
        return dealt

    def receive(self, half: TablesServerHalf, correction: Bytes) -> None:
        """Take share and pads."""
        assert isinstance(half, ServerHalf)
        super().receive(half, correction[: self.share_bytes])
        half.pads = correction[self.share_bytes :]

    def server(self, parts: Parts, half: TablesServerHalf) -> Conversation:
        """Hold the server's half of two messages.

        1. to the client: c = x + offset + r without its low bits; its share of the six bits and of lt3, masked.
        2. from the client: its share of the six bits, and of the sign; the output for either masked sign, padded.
        """
        assert isinstance(half, ServerHalf)
        share, n, backend = half.share, self.size, self.backend
        c, bits = yield from self._open(parts, half)
        yield Send(backend.host(bits ^ (half.flip << 6)))
        reply = backend.lift((yield Await(n)))
        beta = backend.decide(bits, reply, share.table, c, self.sign_bit)
        y = self._select(c, beta, share, 1)
        first = backend.unpack((yield Await(n * self.width)), self.width)
        second = backend.unpack((yield Await(n * self.width)), self.width)
        offers = first, second
        y = backend.take_offer(bits, reply, share.table, half.flip, half.pads, self.width, offers, y)
        parts[self.step.out] = y.reshape(self.shape)

    def client(self, half: TablesClientHalf) -> Conversation:
        """Hold the other half of the two messages of `server`."""
        assert isinstance(half, ClientHalf)
        backend = self.backend
        c, bits = yield from self._opened(half)
        theirs = backend.lift((yield Await(self.size)))
        reply = backend.answer(bits, theirs, half.share.table)
        yield Send(backend.host(reply))
        first = backend.offer_signs(theirs, reply, c, self.sign_bit)
        for sign, pad in zip((first, first ^ 1), backend.entry_pads(half.key, bits, theirs), strict=True):
            yield Send(backend.pack(self._offer(c, sign, half) + pad, self.width))

    def _offer(self, c: Ints, sign: Bytes, half: TablesClientHalf) -> Ints:
        return self._select(c, sign, half.share, 0) - half.part

    @property
    def cost(self) -> Cost:
        """Opening and bits there; bits with the sign's share, and two outputs, back."""
        n, shown = self.size, 8 * self.size if self.options.check_ranges else 0
        return Cost(
            rounds=self.step.rounds + bool(shown), server_bytes=n * (self.window.open_bytes + 1),
            client_bytes=n * (1 + 2 * self.width) + shown, offline_client_bytes=self.told_width * self.told_count,
        )  # fmt: skip
