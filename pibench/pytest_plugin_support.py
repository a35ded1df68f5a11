"""What the pytest plugin shows and hands out, kept apart so that the plugin itself imports next to nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pibench.records.record import Case, Record
from pibench.run.listener import Listener

if TYPE_CHECKING:
    import pytest

    from pibench.records.stats import Estimate
    from pibench.run.settings import CasePlan

HEADINGS = ("case", "online", "range", "sent by S", "by C", "rounds", "ReLUs", "right", "link")


class OnlineClock:
    """A clock that stands still except for the online seconds that the parties reported."""

    __name__ = "online_clock"  # pytest-benchmark writes it into its JSON

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        """Return the seconds so far."""
        return self._now_s

    def replay(self, samples_s: Sequence[float]) -> Callable[[], float]:
        """Return a function whose n-th call takes the n-th sample on this clock (more calls: the last one again)."""
        left = iter(samples_s)
        last = samples_s[-1]

        def step() -> float:
            seconds = next(left, last)
            self._now_s += seconds
            return seconds

        return step


@dataclass(frozen=True, repr=False)
class PrivateInference:
    """What `private_inference` measured."""

    case: Case
    record: Record

    def __repr__(self) -> str:
        """Return one short line: pytest prints it where an assertion fails."""
        from pibench.numbers import seconds

        return (
            f"<PrivateInference {self.case.id}: {seconds(self.online_s.point)} online, {self.measure('rounds'):.0f} "
            f"rounds, {100 * self.measure('agreement'):.0f} % as in plaintext>"
        )

    @property
    def online_s(self) -> Estimate:
        """Median online latency with its interval, warm-up left out as in every table."""
        from pibench.records.measures import MEASURES, estimate_of

        found = estimate_of(self.case, MEASURES["online_s"])
        if found is None:
            raise KeyError("online_s")
        return found

    def measure(self, name: str) -> float:
        """Return an exact measure by name: rounds, server_bytes, client_bytes, relu_count, agreement, accuracy, ..."""
        from pibench.records.measures import named

        [measure] = named([name])
        value = measure.value(self.case)
        if value is None:
            raise KeyError(name)
        return value


class Lines(Listener):
    """A run's progress as lines in pytest's own output: one at its start, with -v one a session."""

    def __init__(self, config: pytest.Config) -> None:
        self._terminal: Any = config.pluginmanager.getplugin("terminalreporter")
        self._capture: Any = config.pluginmanager.getplugin("capturemanager")
        self._verbose = config.option.verbose > 0
        self._begun = False

    def told(self, message: str) -> None:
        """Show what is worth a line."""
        if self._verbose:
            self._line(message)

    def started(self, case: CasePlan, index: int, done: int, total: int) -> None:
        """Show that a session begins."""
        if not self._begun:
            self._line(f"pibench: {total} sessions, interleaved; results follow when the last is done")
            self._begun = True
        if self._verbose:
            self._line(f"  {done + 1}/{total} {case.id} session {index}")

    def _line(self, text: str) -> None:
        if self._terminal is not None:
            with self._capture.global_and_fixture_disabled() if self._capture else contextlib.nullcontext():
                self._terminal.ensure_newline()
                self._terminal.write_line(text)
                self._terminal.flush()


def table(cases: Sequence[Case]) -> Iterator[str]:
    """Yield the lines of our own table."""
    rows = [HEADINGS, *(_row(case) for case in cases)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield "S: server, C: client; right: answers as in plaintext, and accuracy where known"
    yield f"online: median over sessions; {_range_words(cases)}"


def _row(case: Case) -> tuple[str, ...]:
    from pibench.records.measures import MEASURES, estimate_of
    from pibench.reporting.screen.comparison import show

    online, estimate = MEASURES["online_s"], estimate_of(case, MEASURES["online_s"])
    exact = [show(MEASURES[name], MEASURES[name].value(case)) for name in ("server_bytes", "client_bytes", "rounds")]
    interval = f"{show(online, estimate.low)} to {show(online, estimate.high)}" if estimate else "-"
    rate = f" {case.link.mbit_s:g} Mbit/s" if case.link.mbit_s else ""
    link = f"{case.link.name} {case.link.rtt_ms:g} ms{rate}" if case.link.rtt_ms or rate else case.link.name
    relus = show(MEASURES["relu_count"], case.network.relu_count)
    return (case.id, show(online, estimate.point if estimate else None), interval, *exact, relus, _right(case), link)


def _range_words(cases: Sequence[Case]) -> str:
    from pibench.reporting.captions import interval_words

    return interval_words([len(case.sessions) for case in cases if case.sessions])


def _right(case: Case) -> str:
    from pibench.records.measures import MEASURES

    agreement, accuracy = MEASURES["agreement"].value(case), MEASURES["plain_accuracy"].value(case)
    text = "-" if agreement is None else f"{100 * agreement:.0f} %"
    return text if accuracy is None else f"{text}, {100 * accuracy:.1f} % accurate"
