"""Interactive steps as conversations: each side is a generator that says when it sends and when it waits.

Conversations of one group do not depend on each other and go in lockstep: all that flows in one direction flows
before anything flows back, so a group costs the rounds of its longest conversation, not the sum.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pibench.mpc.masked.kernels import Bytes
from pibench.mpc.meter import Meter
from pibench.mpc.transport import Channel


@dataclass(frozen=True)
class Send:
    """Send these bytes to the peer."""

    data: Bytes


@dataclass(frozen=True)
class Receive:
    """Wait for this many bytes; the conversation gets them as the value of its yield."""

    count: int


Conversation = Generator[Send | Receive, Bytes, None]
Label = tuple[str, str, str]  # kind, stage, site: where the meter books it


def converse(channel: Channel, meter: Meter, talks: list[tuple[Label, Conversation]]) -> None:
    """Run the conversations of one group to their ends, in lockstep."""
    waiting: list[tuple[Label, Conversation, Send | Receive]] = []
    for label, talk in talks:
        with meter.op(*label):
            waiting += _next(label, talk, None)
    while waiting:
        way = type(waiting[0][2])
        after: list[tuple[Label, Conversation, Send | Receive]] = []
        for label, talk, act in waiting:
            current = [(label, talk, act)]
            with meter.op(*label):
                while current and isinstance(current[0][2], way):
                    current = _next(label, talk, _do(channel, current[0][2]))
            after += current
        waiting = after


def _next(label: Label, talk: Conversation, got: Bytes | None) -> list[tuple[Label, Conversation, Send | Receive]]:
    try:
        return [(label, talk, next(talk) if got is None else talk.send(got))]
    except StopIteration:
        return []


_NOTHING: NDArray[np.uint8] = np.empty(0, np.uint8)


def _do(channel: Channel, act: Send | Receive) -> Bytes:
    if isinstance(act, Send):
        channel.send(act.data)
        return _NOTHING
    into = np.empty(act.count, np.uint8)
    channel.recv_into(into)
    return into
