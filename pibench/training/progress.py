"""Where a training run stands, and ways to show it: lines for logs, a bar for screens. No torch here."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pibench.numbers import duration

LINE_EVERY_S = 60.0


@dataclass(frozen=True)
class Progress:
    """Where a training run stands."""

    card: str
    epoch: int  # finished
    epochs: int
    step: int = 0  # of the epoch under way; 0 where one has just ended
    steps: int = 0  # in an epoch
    loss: float = 0.0
    train_accuracy: float = 0.0  # percent, of the epoch so far
    test_accuracy: float | None = None  # percent, at the last look
    lr: float = 0.0
    elapsed_s: float = 0.0
    remaining_s: float = 0.0
    note: str = ""


@dataclass
class Pace:
    """How long steps have taken, by the pixels of their images."""

    spent_s: float = 0.0
    pixels: float = 0.0

    @property
    def pixel_s(self) -> float:
        """Seconds of a step for each pixel of one image."""
        return self.spent_s / self.pixels if self.pixels else 0.0

    def add(self, step_s: float, pixels: float) -> None:
        """Note one step."""
        self.spent_s, self.pixels = self.spent_s + step_s, self.pixels + pixels


Report = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """Report nothing."""


class Lines:
    """Progress as plain lines, one an epoch and at most one a minute between."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, p: Progress) -> None:
        """Print one line where it is time."""
        now = time.monotonic()
        if p.step and not p.note and now - self.last < LINE_EVERY_S:
            return
        self.last = now
        text = p.note or (
            f"epoch {p.epoch}/{p.epochs} step {p.step}/{p.steps} loss {p.loss:.3f} {accuracies(p)} "
            f"lr {p.lr:.4f} {duration(p.elapsed_s)}, {duration(p.remaining_s)} left"
        )
        print(f"{time.strftime('%H:%M:%S')} {p.card} {text}", flush=True)

    def close(self) -> None:
        """Nothing is open."""


def accuracies(p: Progress) -> str:
    """Return both accuracies as text."""
    test = f" test {p.test_accuracy:.2f} %" if p.test_accuracy is not None else ""
    return f"train {p.train_accuracy:.2f} %{test}"


class Bar:
    """Progress as one bar a network, with loss and accuracy beside it."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self.bars = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
        self.tasks: dict[str, Any] = {}
        self.bars.start()

    def __call__(self, p: Progress) -> None:
        """Move the bar."""
        task = self.tasks.get(p.card)
        if task is None:
            task = self.tasks[p.card] = self.bars.add_task(p.card, total=1.0, text="")
        done = (p.epoch + p.step / max(p.steps, 1)) / p.epochs
        text = p.note or f"{p.epoch}/{p.epochs} loss {p.loss:.3f} {accuracies(p)} {duration(p.remaining_s)} left"
        self.bars.update(task, completed=done, text=text)

    def close(self) -> None:
        """Leave the bars as they are."""
        self.bars.stop()


def best_report() -> Lines | Bar:
    """Return bars on a terminal and lines elsewhere."""
    return Bar() if sys.stderr.isatty() and sys.stdout.isatty() else Lines()
