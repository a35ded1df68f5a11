"""How two parties make the halves of one step by themselves: an exchange a step, the client's side and the server's.

All exchanges of an inference go side by side in three messages: every client asks (its choices, its ciphertexts), every
server answers (corrections, its own choices), every client closes (its corrections). What a server does when it is
asked and what it does when it answers may be chosen freely: the client waits for neither before it has asked for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from pibench.links.transport import Channel
from pibench.mpc.backends.kernels import Bytes, Ints
from pibench.mpc.crypto.aes import Words
from pibench.mpc.crypto.planes import padded
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender
from pibench.mpc.masked.gadgets.gadget import AnyGadget
from pibench.mpc.protocol import Cost
from pibench.mpc.ring.randomness import Stream

GadgetT = TypeVar("GadgetT", bound=AnyGadget)
PIECE = 2048  # elements whose transfers are worked on together: their rows stay in the second cache


@dataclass
class Talk:
    """What one party talks with: the channel, both directions of transfers, and its own randomness."""

    channel: Channel
    sender: OtSender
    receiver: OtReceiver
    stream: Stream

    def hear(self, size: int) -> Bytes:
        """Receive so many bytes."""
        into = np.empty(size, np.uint8)
        self.channel.recv_into(into)
        return into

    def hear_words(self, size: int) -> Words:
        """Receive so many bytes, whole words."""
        return self.hear(size).view(np.uint64)

    def draw(self, count: int, bits: int) -> Words:
        """Return uniform numbers below 2^bits."""
        words: Words = self.stream.words(count).view(np.uint64)
        return words if bits == 64 else words & np.uint64((1 << bits) - 1)

    def filled(self, mask: Words, bits: int) -> Ints:
        """Return a part of a mask, good modulo 2^bits, as a whole word uniform above that: it goes out in bytes."""
        if bits == 64:
            return mask.view(np.int64)
        high = self.stream.words(mask.size).view(np.uint64) << np.uint64(bits)
        return ((mask & np.uint64((1 << bits) - 1)) | high).view(np.int64)


class ClientExchange(Generic[GadgetT]):
    """The client's side of one step; `half` is complete when it has taken the answer."""

    half: Any

    def __init__(self, gadget: GadgetT, talk: Talk) -> None:
        self.gadget, self.talk = gadget, talk

    def ask(self) -> None:
        """Send what depends on nothing."""

    def take(self) -> None:
        """Receive the server's answer."""

    def finish(self) -> None:
        """Send what the answer led to."""


class ServerExchange(Generic[GadgetT]):
    """The server's side of one step; `half` is complete when it has closed."""

    half: Any

    def __init__(self, gadget: GadgetT, talk: Talk) -> None:
        self.gadget, self.talk = gadget, talk

    def hear(self) -> None:
        """Receive what the client asks."""

    def answer(self) -> None:
        """Send the answer."""

    def close(self) -> None:
        """Receive what the client makes of it."""


def pieces(count: int) -> Iterator[tuple[slice, int]]:
    """Yield the elements of a step piece by piece, with the number of transfers of each."""
    for start in range(0, count, PIECE):
        stop = min(start + PIECE, count)
        yield slice(start, stop), padded(stop - start)


def filled_up(words: Words, size: int) -> Words:
    """Return words with zeros up to `size`: transfers that serve nobody."""
    return words if words.size == size else np.concatenate([words, np.zeros(size - words.size, np.uint64)])


def total(costs: Iterator[Cost]) -> Cost:
    """Return the sum of costs."""
    return sum(costs, Cost())
