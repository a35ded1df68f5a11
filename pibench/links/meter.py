"""The meter: time, bytes and rounds of one party, by phase, and by operation kind, stage and site within a phase.

Parts add up to the whole: whatever happens in a phase outside any operation is booked under kind "other".
Waiting is time spent blocked on a peer inside the transport; computing is the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

Key = tuple[str, str, str]  # kind, stage, site
OUTSIDE: Key = ("other", "", "")


@dataclass
class Tally:
    """What one part of a phase cost one party."""

    time_s: float = 0.0
    wait_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    rounds: int = 0

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        self.time_s += other.time_s
        self.wait_s += other.wait_s
        self.sent_bytes += other.sent_bytes
        self.received_bytes += other.received_bytes
        self.rounds += other.rounds


@dataclass
class PhaseTally:
    """One run of one phase: its total and its parts."""

    total: Tally = field(default_factory=Tally)
    parts: dict[Key, Tally] = field(default_factory=dict)

    def include(self, other: PhaseTally) -> None:
        """Add what another connection carried in this same phase, and the waiting for it; the time is this one's."""
        for key, tally in other.parts.items():
            more = replace(tally, time_s=0.0)
            self.parts.setdefault(key, Tally()).add(more)
            self.total.add(more)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the record."""
        parts = [
            {"kind": kind, "stage": stage, "site": site, **asdict(tally)}
            for (kind, stage, site), tally in self.parts.items()
        ]
        return {**asdict(self.total), "parts": parts}


class Meter:
    """Counts for one party; the transport reports to it, protocols mark operations on it.

    `synchronise` waits for work that was ordered and not yet done, on a device; the meter calls it before it looks at
    the clock, so that time is booked where it was spent and not on whoever copies first. A protocol sets it.
    """

    synchronise: Callable[[], None] | None = None

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._phase = PhaseTally()
        self._key = OUTSIDE
        self._since = clock()
        self._running = False

    @contextmanager
    def phase(self) -> Iterator[PhaseTally]:
        """Measure one run of one phase; the yielded tally is complete when the block ends."""
        tally = self._phase = PhaseTally()
        self._key, self._running, self._since = OUTSIDE, True, self._now()
        try:
            yield tally
        finally:
            self._switch(OUTSIDE)
            self._running = False
            for part in tally.parts.values():
                tally.total.add(part)

    def op(self, kind: str, stage: str = "", site: str = "") -> _Operation:
        """Book what happens inside a `with` under this kind, stage and site (innermost wins)."""
        return _Operation(self, (kind, stage, site))

    def sent(self, n_bytes: int) -> None:
        """Count payload where the buffer enters the transport."""
        self._part().sent_bytes += n_bytes

    def received(self, n_bytes: int) -> None:
        """Count payload that arrived."""
        self._part().received_bytes += n_bytes

    def round(self, count: int = 1) -> None:
        """Count a link in the chain of dependent messages."""
        self._part().rounds += count

    def waited(self, seconds: float) -> None:
        """Count time blocked on the peer (it is also part of time_s)."""
        self._part().wait_s += seconds

    def _part(self) -> Tally:
        part = self._phase.parts.get(self._key)
        if part is None:
            part = self._phase.parts[self._key] = Tally()
        return part

    def _now(self) -> float:
        if self.synchronise is not None:
            self.synchronise()
        return self._clock()

    def _switch(self, key: Key) -> None:
        now = self._now()
        if self._running:
            self._part().time_s += now - self._since
        self._key, self._since = key, now


class _Operation:
    """The block of a `Meter.op`: entered hundreds of times an inference, so it is no generator."""

    __slots__ = ("_key", "_meter", "_outer")

    def __init__(self, meter: Meter, key: Key) -> None:
        self._meter, self._key, self._outer = meter, key, OUTSIDE

    def __enter__(self) -> None:
        self._outer = self._meter._key
        self._meter._switch(self._key)

    def __exit__(self, *_: object) -> None:
        self._meter._switch(self._outer)
