"""What the screen shows while a run goes on, and the plan before it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from pibench.numbers import duration
from pibench.reporting.screen.fitting import fitted, wrapped
from pibench.run.listener import Listener

if TYPE_CHECKING:
    from pibench.run.settings import CasePlan, RunPlan


class Screen(Listener):
    """A bar with phase, case and time left on standard error; plain lines where that is no terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        width = None if sys.stderr.isatty() else 200  # a log file wants whole lines
        self._console = Console(stderr=True, highlight=False, quiet=quiet, width=width)
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"), console=self._console, transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None, left="")
        self._walls: dict[str, list[float]] = {}
        self._since = time.monotonic()
        self._done = 0

    def __enter__(self) -> Screen:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.stop()

    def preparing(self, network: str) -> None:
        """Show which network is being prepared."""
        self._bar.update(self._task, description=f"preparing {network}")

    def told(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(Text(message, style="dim"))

    def started(self, case: CasePlan, index: int, done: int, total: int) -> None:
        """Show which session runs, and how long the rest may take."""
        self._done, self._total = done, total
        self._bar.update(self._task, description=case.id, completed=done, total=total, left=self._left())
        if not self._bar.disable:
            return
        self._console.print(f"[{done + 1}/{total}] {case.id} session {index}{self._left()}", style="dim", markup=False)

    def phase(self, case: CasePlan, phase: str, batches: int) -> None:
        """Show the phase."""
        self._bar.update(self._task, description=f"{case.id}  {phase}")

    def finished(self, case: CasePlan, wall_s: float) -> None:
        """Learn how long sessions take."""
        self._walls.setdefault(case.id, []).append(wall_s)

    def _left(self) -> str:
        walls = [wall for case in self._walls.values() for wall in case]
        if not walls:
            return ""
        return f"  about {duration((self._total - self._done) * sum(walls) / len(walls))} left"


def plan_lines(plan: RunPlan, estimates: Mapping[str, tuple[float, bool]], width: int) -> list[str]:
    """Return what would run, with estimated times, the total first."""
    total = duration(sum(value for value, _ in estimates.values()))
    cases = "1 case" if len(plan.cases) == 1 else f"{len(plan.cases)} cases"
    guessed = [case.id for case in plan.cases if not estimates[case.id][1]]
    lines, _ = fitted(
        [
            (0, ["case", *(case.id for case in plan.cases)]),
            (2, ["sessions", *(str(plan.sessions) for _ in plan.cases)]),
            (1, ["inferences", *(f"{plan.warmups} + {plan.inferences}" for _ in plan.cases)]),
            (0, ["time", *((f"{duration(estimates[c.id][0])}{'?' if c.id in guessed else ''}") for c in plan.cases)]),
        ],
        width,
    )
    note = "; ?: a guess, never run here" if guessed else ""
    first = f"{plan.suite.name}: {cases}, about {total}; nothing was run (--dry-run){note}."
    return [*wrapped(first, width), *lines]
