"""The client's image, masked, to the server: one message. Its mask is the client's part of the value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pibench.mpc.backends.backend import Ints, Stream
from pibench.mpc.masked.gadgets.gadget import Gadget, Parts
from pibench.mpc.masked.plan import Step
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost


@dataclass(frozen=True, kw_only=True)
class Receive(Step):
    """The client's image, masked, to the server."""

    rounds: ClassVar[int] = 1


@dataclass
class ClientHalf:
    """The client's part, uniform."""

    part: Ints
    image: Ints | None = None  # (batch, *shape) in fixed point, from when an inference begins


class Image(Gadget[Receive, None, ClientHalf]):
    """See Receive; the server needs nothing beforehand."""

    client_half = ClientHalf

    def draw_client(self, stream: Stream) -> ClientHalf:
        """Draw the mask."""
        return ClientHalf(self._uniform(stream, self.size))

    def draw_server(self, stream: Stream) -> None:
        """Nothing is drawn."""

    def client_part(self, inputs: list[Ints | None], half: ClientHalf) -> Ints:
        """Return the mask."""
        return half.part

    def server(self, parts: Parts, half: None) -> Conversation:
        """Take the masked image."""
        heard = yield Await(self.size * self.out.wire_bytes)
        parts[self.step.out] = self.backend.unpack(heard, self.out.wire_bytes).reshape(self.shape)

    def client(self, half: ClientHalf) -> Conversation:
        """Send the image less its mask."""
        assert half.image is not None
        yield Send(self.backend.pack(half.image.reshape(-1) - half.part, self.out.wire_bytes))

    @property
    def cost(self) -> Cost:
        """One message."""
        return Cost(rounds=self.step.rounds, client_bytes=self.size * self.out.wire_bytes)
