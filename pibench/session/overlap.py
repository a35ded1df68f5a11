"""Offline work beside the online phase: a thread makes the next batch's material over a connection of its own.

A party then computes with one thread more than a suite says. Material waits in memory, for as many batches as are
wanted ahead; what a batch's material cost is handed on when it is taken.
"""

from __future__ import annotations

import queue
import sys
import threading

from pibench.links.meter import PhaseTally
from pibench.mpc.protocol import Party, Protocol

SWITCH_S = 5e-4  # longest turn of one thread's Python while the other one wants to go on; by default ten times as much


class Ahead:
    """Makes material for one batch after another, never more than `ahead` of them beyond those taken."""

    def __init__(self, runner: Protocol, party: Party, batches: int, ahead: int) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._runner, self._party, self._batches = runner, party, batches
        self._room, self._made = threading.Semaphore(ahead), queue.Queue[PhaseTally | BaseException]()
        self.failure: BaseException | None = None
        threading.Thread(target=self._make, daemon=True).start()

    def take(self) -> PhaseTally:
        """Wait for the next batch's material; returns what it cost, and makes room for another one's."""
        made = self._made.get()
        if isinstance(made, BaseException):
            raise made
        self._room.release()
        return made

    def _make(self) -> None:
        try:
            for _ in range(self._batches):
                self._room.acquire()
                self._party.peer.barrier()
                with self._party.meter.phase() as tally:
                    self._runner.offline(1)
                self._made.put(tally)
        except BaseException as error:  # raised where material is waited for
            self.failure = error
            self._made.put(error)
