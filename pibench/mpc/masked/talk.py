"""Interactive steps as conversations: each side is a generator that says when it sends and when it waits.

Conversations of one group do not depend on each other and go in lockstep: all that flows in one direction flows
before anything flows back, so a group costs the rounds of its longest conversation, not the sum.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.mpc.backends.backend import Backend, Host


@dataclass(frozen=True)
class Send:
    """Send this array in host memory to the peer."""

    data: Host


@dataclass(frozen=True)
class Await:
    """Wait for this many bytes; the conversation gets them as the value of its yield."""

    count: int


Conversation = Generator[Send | Await, Host, None]
Label = tuple[str, str, str]  # kind, stage, site: where the meter books it
Turn = tuple[Label, Conversation, Send | Await]  # a conversation and what it wants next
JOINED_BYTES = 8 * 1024  # a larger message goes at once, so that the peer can begin with it


def converse(backend: Backend, channel: Channel, meter: Meter, talks: list[tuple[Label, Conversation]]) -> None:
    """Run the conversations of one group to their ends, in lockstep; what is heard lies in the backend's buffers."""
    waiting: list[Turn] = []
    for label, talk in talks:
        with meter.op(*label):
            waiting += _next(label, talk, None)
    while waiting:
        way = type(waiting[0][2])
        after: list[Turn] = []
        for label, talk, act in waiting:
            with meter.op(*label):
                after += _advance(backend, channel, (label, talk, act), way)
        waiting = after


def _next(label: Label, talk: Conversation, got: Host | None) -> list[Turn]:
    try:
        return [(label, talk, talk.send(got))]
    except StopIteration:
        return []


def _advance(backend: Backend, channel: Channel, turn: Turn, way: type[Send | Await]) -> list[Turn]:
    """Take a conversation as far as it goes in one direction; what is small goes out in one piece."""
    label, talk, _ = turn
    said: list[Host] = []
    current = [turn]
    while current and isinstance(act := current[0][2], way):
        if isinstance(act, Send):
            said.append(act.data)
            heard = None
            if sum(data.nbytes for data in said) >= JOINED_BYTES:
                _send(channel, said)
        else:
            heard = backend.buffer(act.count)
            channel.recv_into(heard)
        current = _next(label, talk, heard)
    _send(channel, said)
    return current


def _send(channel: Channel, said: list[Host]) -> None:
    if said:
        channel.send(said[0] if len(said) == 1 else b"".join(said))
    said.clear()
