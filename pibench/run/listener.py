"""Whoever watches a run: the screen, a test, nobody. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pibench.run.settings import CasePlan


class Listener:
    """What a run tells whoever watches it; this one says nothing."""

    def preparing(self, network: str) -> None:
        """Hear that a network is being trained, lowered, evaluated."""

    def told(self, message: str) -> None:
        """Hear something worth a line."""

    def started(self, case: CasePlan, index: int, done: int, total: int) -> None:
        """Hear that a session begins."""

    def phase(self, case: CasePlan, phase: str, batches: int) -> None:
        """Hear where a session is."""

    def finished(self, case: CasePlan, wall_s: float) -> None:
        """Hear that a session ended."""
