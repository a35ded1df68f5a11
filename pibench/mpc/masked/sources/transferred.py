"""Exchanges by oblivious transfer: ReLUs, squares and ring extensions.

The opening's mask is r = r0 ^ r1 here, each half uniform and one party's own; the gadget's parts r0 + r1 are shares by
addition of the same r. Each is uniform alone, and given all that a party sees r is uniform to it, since the other's
half is (docs/protocol.md).
"""

from __future__ import annotations

import numpy as np

from pibench.mpc.backends import kernels
from pibench.mpc.backends.backend import BITS_MASK
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.backends.kernels import Bytes
from pibench.mpc.crypto.signs import ClientSigns, Layout, Own, ServerSigns
from pibench.mpc.crypto.signs import Shares as SignShares
from pibench.mpc.crypto.softspoken import message_bytes
from pibench.mpc.crypto.squares import (
    ClientSquares,
    ServerSquares,
    SquareLayout,
    SquareShares,
    both_pads,
    choose_pads,
)
from pibench.mpc.masked.gadgets import extend, relu_truth_tables, square
from pibench.mpc.masked.gadgets.extend import Extension
from pibench.mpc.masked.gadgets.relu_truth_tables import Tables
from pibench.mpc.masked.gadgets.square import Squares
from pibench.mpc.masked.sources.exchange import (
    ClientExchange,
    ServerExchange,
    Talk,
    filled_up,
    pieces,
    total,
)
from pibench.mpc.protocol import Cost

_COMBINATION = kernels.combination()
_HOST = backend_for("cpu")  # where exchanges are made; `two_party.py` lifts what they made


def sign_layout(gadget: Tables) -> Layout:
    """Return the layout of a ReLU's mask."""
    window = gadget.window
    return Layout(window.bits, window.low, window.digits, window.low, gadget.out.bits)


def square_layout(gadget: Squares) -> SquareLayout:
    """Return the layout of a square's mask."""
    return SquareLayout(gadget.window.bits, gadget.step.shift, gadget.out.bits)


def _put_signs(share: relu_truth_tables.Share, at: slice, made: SignShares) -> None:
    n = at.stop - at.start
    share.words[:, at] = made.words[:, :n]
    share.table[at] = made.table[0, :n]
    for into, words in ((share.s, made.s), (share.rp, made.cut), (share.srp, made.s_cut)):
        into[at] = words[:n].view(np.int64)
    share.rt[at] = made.top[:n].astype(np.uint32)
    share.srt[at] = made.s_top[:n].astype(np.uint32)


def _put_squares(share: square.Share, at: slice, made: SquareShares) -> None:
    n = at.stop - at.start
    share.rp[at], share.sq[at] = made.cut[:n].view(np.int64), made.squared[:n].view(np.int64)
    share.rt[at], share.rprt[at] = made.top[:n].astype(np.uint32), made.top_cut[:n].astype(np.uint32)


class ClientTables(ClientExchange[Tables]):
    """A ReLU's client."""

    def __init__(self, gadget: Tables, talk: Talk) -> None:
        super().__init__(gadget, talk)
        n, stream = gadget.size, talk.stream
        self._layout, mu = sign_layout(gadget), stream.small(n, BITS_MASK)
        self._own = Own.of(talk.draw(n, self._layout.bits), mu, stream.small(n, 1))
        dealt = np.empty(gadget.dealt_bytes, np.uint8)
        share = relu_truth_tables.Share.over(_HOST, dealt, n, gadget.window.digit_words)
        self.half = relu_truth_tables.ClientHalf(share, np.empty(n, np.int64), mu, stream.words(n))
        self._signs: list[ClientSigns] = []
        self._said: list[Bytes] = []

    def ask(self) -> None:
        """Send all choices."""
        for at, size in pieces(self.gadget.size):
            own = Own(filled_up(self._own.r[at], size), filled_up(self._own.rest[at], size))
            self._signs.append(ClientSigns(self._layout, own, self.talk.receiver))
            self.talk.channel.send(self._signs[-1].message)

    def take(self) -> None:
        """Take corrections and the server's choices."""
        talk, layout = self.talk, self._layout
        for (at, size), signs in zip(pieces(self.gadget.size), self._signs, strict=True):
            moved, told, _ = layout.sizes(size)
            signs.take(talk.receiver, talk.hear_words(moved), talk.hear(told))
            self._said.append(signs.finish(talk.sender, talk.hear_words(message_bytes(size))))
            self.half.r[at] = talk.filled(signs.shares.r[: at.stop - at.start], layout.bits)
            _put_signs(self.half.share, at, signs.shares)
        self._signs.clear()

    def finish(self) -> None:
        """Send the client's corrections."""
        for said in self._said:
            self.talk.channel.send(said)
        self._said.clear()


class ServerTables(ServerExchange[Tables]):
    """A ReLU's server."""

    def __init__(self, gadget: Tables, talk: Talk) -> None:
        super().__init__(gadget, talk)
        n, stream = gadget.size, talk.stream
        self._layout, mu = sign_layout(gadget), stream.small(n, BITS_MASK)
        self._own = Own.of(talk.draw(n, self._layout.bits), mu, stream.small(n, 1))
        self.half = relu_truth_tables.ServerHalf(np.empty(n, np.int64), mu)
        share = np.empty(gadget.dealt_bytes, np.uint8)
        self.half.share = relu_truth_tables.Share.over(_HOST, share, n, gadget.window.digit_words)
        self._signs: list[tuple[ServerSigns, list[Bytes]]] = []

    def hear(self) -> None:
        """Take the client's choices and work out the corrections, to be sent when the client has asked for all."""
        talk, layout = self.talk, self._layout
        for at, size in pieces(self.gadget.size):
            own = Own(filled_up(self._own.r[at], size), filled_up(self._own.rest[at], size))
            signs = ServerSigns(layout, own, _COMBINATION)
            moved, told = signs.answer(talk.sender, talk.hear_words(message_bytes(size * layout.asked)))
            self._signs.append((signs, [moved.view(np.uint8), told]))

    def answer(self) -> None:
        """Send corrections and the server's own choices."""
        for signs, said in self._signs:
            said.append(signs.choose(self.talk.receiver).view(np.uint8))
            self.talk.channel.send(np.concatenate(said))
            said.clear()

    def close(self) -> None:
        """Take the client's corrections."""
        talk, layout = self.talk, self._layout
        for (at, size), (signs, _) in zip(pieces(self.gadget.size), self._signs, strict=True):
            made = signs.finish(talk.receiver, talk.hear(layout.sizes(size)[2]))
            self.half.pre[at] = talk.filled(made.r[: at.stop - at.start], layout.bits)
            _put_signs(self.half.share, at, made)
        self._signs.clear()


def tables_cost(gadget: Tables) -> Cost:
    """Declare what a ReLU's exchange sends."""
    layout = sign_layout(gadget)

    def one(size: int) -> Cost:
        moved, told, back = layout.sizes(size)
        return Cost(
            offline_server_bytes=moved + told + message_bytes(size),
            offline_client_bytes=message_bytes(size * layout.asked) + back,
        )

    return total(one(size) for _, size in pieces(gadget.size))


class ClientSquaring(ClientExchange[Squares]):
    """A square's client."""

    def __init__(self, gadget: Squares, talk: Talk) -> None:
        super().__init__(gadget, talk)
        n = gadget.n
        self._layout = square_layout(gadget)
        self._own = talk.draw(n, self._layout.bits)
        share = square.Share.over(_HOST, np.empty(square.SHARE_BYTES * n, np.uint8), n)
        self.half = square.ClientHalf(share, np.empty(n, np.int64), talk.stream.words(2 * n))
        self._squares: list[ClientSquares] = []
        self._said: list[Bytes] = []

    def ask(self) -> None:
        """Send all choices."""
        for at, size in pieces(self.gadget.n):
            self._squares.append(ClientSquares(self._layout, filled_up(self._own[at], size), self.talk.receiver))
            self.talk.channel.send(self._squares[-1].message)

    def take(self) -> None:
        """Take corrections and the server's choices."""
        talk, layout = self.talk, self._layout
        for (at, size), squares in zip(pieces(self.gadget.n), self._squares, strict=True):
            squares.take(talk.receiver, talk.hear(layout.sizes(size)[0]))
            self._said.append(squares.finish(talk.sender, talk.hear_words(message_bytes(size * layout.chosen))))
            self.half.r[at] = talk.filled(squares.shares.r[: at.stop - at.start], layout.bits)
            _put_squares(self.half.share, at, squares.shares)
        self._squares.clear()

    def finish(self) -> None:
        """Send the client's corrections."""
        for said in self._said:
            self.talk.channel.send(said)
        self._said.clear()


class ServerSquaring(ServerExchange[Squares]):
    """A square's server."""

    def __init__(self, gadget: Squares, talk: Talk) -> None:
        super().__init__(gadget, talk)
        n = gadget.n
        self._layout = square_layout(gadget)
        self._own = talk.draw(n, self._layout.bits)
        self.half = square.ServerHalf(np.empty(n, np.int64))
        self.half.share = square.Share.over(_HOST, np.empty(square.SHARE_BYTES * n, np.uint8), n)
        self._squares: list[tuple[ServerSquares, list[Bytes]]] = []

    def hear(self) -> None:
        """Take the client's choices and work out the corrections."""
        talk, layout = self.talk, self._layout
        for at, size in pieces(self.gadget.n):
            squares = ServerSquares(layout, filled_up(self._own[at], size))
            said = squares.answer(talk.sender, talk.hear_words(message_bytes(size * layout.bits)))
            self._squares.append((squares, [said]))

    def answer(self) -> None:
        """Send corrections and the server's own choices."""
        for squares, said in self._squares:
            said.append(squares.choose(self.talk.receiver).view(np.uint8))
            self.talk.channel.send(np.concatenate(said))
            said.clear()

    def close(self) -> None:
        """Take the client's corrections."""
        talk, layout = self.talk, self._layout
        for (at, size), (squares, _) in zip(pieces(self.gadget.n), self._squares, strict=True):
            made = squares.finish(talk.receiver, talk.hear(layout.sizes(size)[1]))
            self.half.pre[at] = talk.filled(made.r[: at.stop - at.start], layout.bits)
            _put_squares(self.half.share, at, made)
        self._squares.clear()


def squaring_cost(gadget: Squares) -> Cost:
    """Declare what a square's exchange sends."""
    layout = square_layout(gadget)

    def one(size: int) -> Cost:
        told, back = layout.sizes(size)
        return Cost(
            offline_server_bytes=told + message_bytes(size * layout.chosen),
            offline_client_bytes=message_bytes(size * layout.bits) + back,
        )

    return total(one(size) for _, size in pieces(gadget.n))


class ClientExtending(ClientExchange[Extension]):
    """A ring extension's client: it asks nothing, and both pads follow from the server's choices."""

    def __init__(self, gadget: Extension, talk: Talk) -> None:
        super().__init__(gadget, talk)
        n = gadget.size
        self.half = extend.ClientHalf(np.empty(n, np.uint32), np.empty(n, np.uint32), talk.stream.halves(n))

    def take(self) -> None:
        """Take the choices."""
        for at, size in pieces(self.gadget.size):
            both = both_pads(self.talk.sender, self.talk.hear_words(message_bytes(size)))
            for into, pads in zip((self.half.p0, self.half.p1), both, strict=True):
                into[at] = pads[: at.stop - at.start].astype(np.uint32)


class ServerExtending(ServerExchange[Extension]):
    """A ring extension's server."""

    def __init__(self, gadget: Extension, talk: Talk) -> None:
        super().__init__(gadget, talk)
        self.half = extend.ServerHalf(talk.stream.small(gadget.size, 1))
        self.half.pad = np.empty(gadget.size, np.uint32)

    def answer(self) -> None:
        """Send the choices."""
        for at, size in pieces(self.gadget.size):
            held = filled_up(self.half.held[at].astype(np.uint64), size)
            pads, message = choose_pads(self.talk.receiver, held)
            self.half.pad[at] = pads[: at.stop - at.start].astype(np.uint32)
            self.talk.channel.send(message)


def extending_cost(gadget: Extension) -> Cost:
    """Declare what a ring extension's exchange sends."""
    return total(Cost(offline_server_bytes=message_bytes(size)) for _, size in pieces(gadget.size))
