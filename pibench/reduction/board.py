"""What is told of the tasks of a wave, wherever they are done: done, kept from before, failed, tried once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pibench.errors import EXIT_FAILED, PibenchError, UsageError
from pibench.reduction.tasks import Cache, Result, Task

TRIES = 2
Say = Callable[[str], None]


class ReductionFailed(PibenchError):
    """Some trainings failed; the rest are kept, and a further run goes on from them."""

    exit_status = EXIT_FAILED


@dataclass
class Board:
    """Counts and tells: what is done, what failed, how long the rest may take."""

    cache: Cache
    say: Say
    results: dict[str, Result] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def open(self, tasks: Sequence[Task]) -> list[Task]:
        """Return the tasks that are not in the cache, and note the results of those that are."""
        for task in tasks:
            if found := self.cache.result(task.key):
                self.results[task.key] = found
                self.say(f"{task.name}: {line(found)} (kept from before)")
        return [task for task in tasks if task.key not in self.results]

    def finished(self, task: Task, result: Result) -> None:
        """Note and tell one result."""
        self.results[task.key] = result
        self.say(f"{task.name}: {line(result)} in {result.wall_s:.0f} s")

    def failed(self, task: Task, error: BaseException, tried: int) -> bool:
        """Note and tell a failure; returns whether to try again."""
        text = f"{type(error).__name__}: {error}"
        again = tried < TRIES and not isinstance(error, UsageError)
        self.say(f"{task.name}: failed ({text})" + (", tried once more" if again else ""))
        if not again:
            self.failures[task.name] = text
        return again

    def close(self) -> dict[str, Result]:
        """Return the results; raises ReductionFailed where some are missing."""
        if self.failures:
            lines = "".join(f"\n  {name}: {text}" for name, text in self.failures.items())
            remedy = "what was finished is kept; the same command tries the rest again"
            plural = "s" if len(self.failures) > 1 else ""
            raise ReductionFailed(f"{len(self.failures)} training{plural} failed:{lines}", remedy=remedy)
        return self.results


def line(result: Result) -> str:
    """Return what a progress line says of a result."""
    accuracy = f"{result.accuracy:.2f} %" if result.accuracy is not None else "?"
    return f"{result.relu_count:,} ReLUs, {accuracy}"
