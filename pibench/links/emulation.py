"""One direction of an emulated link: a queue that serialises at a rate and then delays.

A unit of data (a packet, or a chunk of a stream) starts to leave when the one before it has left, takes size / rate to
leave, and arrives one way's delay later. Due times are computed from arrivals alone, so that an emulator that wakes up
late delivers late once, and does not fall behind.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

NEVER_S = 3600.0


@dataclass
class DelayLine(Generic[T]):
    """Items with their due times, in order of arrival."""

    delay_s: float = 0.0
    bytes_per_s: float | None = None  # None: as fast as the machine
    loss: float = 0.0  # probability that an item is dropped
    limit_bytes: int = 1 << 26  # what a queue holds before it drops (packets) or blocks (streams)
    rng: random.Random = field(default_factory=random.Random)
    queued_bytes: int = 0
    dropped: int = 0
    passed_bytes: int = 0
    _free_at: float = 0.0
    _queue: deque[tuple[float, int, T]] = field(default_factory=deque)

    @property
    def full(self) -> bool:
        """Whether the queue holds as much as it may."""
        return self.queued_bytes >= self.limit_bytes

    def push(self, now: float, item: T, size: int) -> None:
        """Take an item that arrived at `now`; a lossy or full line drops it."""
        if self.full or (self.loss and self.rng.random() < self.loss):
            self.dropped += 1
            return
        self._free_at = max(self._free_at, now) + (size / self.bytes_per_s if self.bytes_per_s else 0.0)
        self._queue.append((self._free_at + self.delay_s, size, item))
        self.queued_bytes += size

    def pop(self, now: float) -> T | None:
        """Return the first item if it is due."""
        if not self._queue or self._queue[0][0] > now:
            return None
        _, size, item = self._queue.popleft()
        self.queued_bytes -= size
        self.passed_bytes += size
        return item

    def wait_s(self, now: float) -> float:
        """Return how long until the first item is due."""
        return max(0.0, self._queue[0][0] - now) if self._queue else NEVER_S
