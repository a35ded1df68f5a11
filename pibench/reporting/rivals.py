"""Methods at equal budgets: of each method the most accurate network of a budget, and what can be told apart of them.

Only networks with at least half the ReLUs of the largest beside them are compared: a band. What a method's place is
rests on intervals: only a network whose whole interval lies above another's is before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from pibench.numbers import count, seconds
from pibench.reporting.cells import Cell, Ladder
from pibench.reporting.page.theme import METHOD_TITLES
from pibench.reporting.screen.plain import plain_table

FACTOR = 2  # between the most and the fewest ReLUs of what is compared
RULE = (
    f"Of every method the most accurate network among those within a factor of {FACTOR} in ReLUs; those whose 95 % "
    "intervals of accuracy overlap cannot be told apart and share a place"
)


@dataclass(frozen=True)
class Ranking:
    """The methods of one band of budgets, the most accurate first."""

    cells: tuple[Cell, ...]

    @property
    def budget(self) -> int:
        """ReLUs of the largest network."""
        return max(cell.relu_count for cell in self.cells)

    def place(self, cell: Cell) -> int:
        """Return a network's place: one more than there are networks that are firmly more accurate."""
        return 1 + sum(_interval(other)[0] > _interval(cell)[1] for other in self.cells)


def rankings(ladder: Ladder) -> list[Ranking]:
    """Return the bands in which at least two methods compete, from the most ReLUs down; each network is in one."""
    left = sorted((c for c in ladder.cells if c.method != "full" and c.score), key=lambda c: -c.relu_count)
    found = []
    while left:
        band = [c for c in left if c.relu_count * FACTOR >= left[0].relu_count]
        left = left[len(band) :]
        best = [max((c for c in band if c.method == method), key=_merit) for method in {c.method for c in band}]
        if len(best) > 1:
            found.append(Ranking(tuple(sorted(best, key=_merit, reverse=True))))
    return found


def ranking_blocks(ladders: Sequence[Ladder]) -> list[RenderableType]:
    """Return the rankings of one place for the screen: a row a method, a column a protocol's latency."""
    if not ladders or not (found := rankings(max(ladders, key=lambda ladder: len(ladder.cells)))):
        return []
    table = plain_table()
    table.add_column("place", justify="right", no_wrap=True)
    for title in ("method", "network"):
        table.add_column(title, no_wrap=True)
    for title in ("ReLUs", "accuracy", *(ladder.setting.protocol for ladder in ladders)):
        table.add_column(title, justify="right", no_wrap=True)
    for index, ranking in enumerate(found):
        if index:
            table.add_row()
        for cell in ranking.cells:
            table.add_row(str(ranking.place(cell)), *_row(cell, ladders))
    words = f"{RULE}."
    if any(cell.method == "poly" for ranking in found for cell in ranking.cells):
        words += " Polynomials are no ReLUs; what they cost is in the latency."
    rule, inner = Text(words, style="dim"), (0, 0, 0, 2)
    return [Text("Methods at equal budgets", style="bold"), Padding(rule, inner), Padding(table, inner), Text()]


def _row(cell: Cell, ladders: Sequence[Ladder]) -> list[RenderableType]:
    latencies: list[RenderableType] = []
    for ladder in ladders:
        own = next((c for c in ladder.cells if c.network == cell.network), None)
        latencies.append(seconds(own.online_s) if own else "-")
    title = METHOD_TITLES.get(cell.method, cell.method)
    return [title, cell.network, count(cell.relu_count), _accuracy(cell), *latencies]


def _accuracy(cell: Cell) -> str:
    return f"{cell.score.percent:.1f} ±{cell.score.margin:.1f} %" if cell.score else ""


def _percent(cell: Cell) -> float:
    return cell.score.percent if cell.score else 0.0


def _interval(cell: Cell) -> tuple[float, float]:
    margin = cell.score.margin if cell.score else 0.0
    return _percent(cell) - margin, _percent(cell) + margin


def _merit(cell: Cell) -> tuple[float, int, str]:
    return _percent(cell), -cell.relu_count, cell.network
