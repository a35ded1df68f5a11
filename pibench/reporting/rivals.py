"""Methods at equal budgets: of each method the most accurate network within a budget, and how they rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from pibench.reporting.cells import Cell, Ladder
from pibench.reporting.page.theme import METHOD_TITLES
from pibench.reporting.screen.plain import plain_table
from pibench.reporting.units import count, seconds

SHARES = ((0.5, "half"), (0.1, "a tenth"))  # of the reference network's ReLUs: where the papers compare methods


@dataclass(frozen=True)
class Ranking:
    """The methods within one budget, the most accurate first."""

    budget: int
    share: str
    cells: tuple[Cell, ...]

    def place(self, cell: Cell) -> int:
        """Return a network's place; equal accuracies share one."""
        return 1 + sum(_percent(other) > _percent(cell) for other in self.cells)


def rankings(ladder: Ladder) -> list[Ranking]:
    """Return the rankings in which at least two methods compete; none without a full network and accuracies."""
    if ladder.full.method != "full":
        return []
    found = []
    for share, name in SHARES:
        budget = int(share * ladder.full.relu_count)
        rivals = [c for c in ladder.cells if c.method != "full" and c.score and c.relu_count <= budget]
        best = [max((c for c in rivals if c.method == method), key=_merit) for method in {c.method for c in rivals}]
        if len(best) > 1:
            found.append(Ranking(budget, name, tuple(sorted(best, key=_merit, reverse=True))))
    return found


def ranking_blocks(ladders: Sequence[Ladder]) -> list[RenderableType]:
    """Return the rankings of one place for the screen: a row a method, a column a protocol's latency."""
    if not ladders or not (found := rankings(max(ladders, key=lambda ladder: len(ladder.cells)))):
        return []
    table = plain_table()
    table.add_column("at most", justify="right", no_wrap=True)
    table.add_column("place", justify="right", no_wrap=True)
    for title in ("method", "network"):
        table.add_column(title, no_wrap=True)
    for title in ("ReLUs", "accuracy", *(ladder.setting.protocol for ladder in ladders)):
        table.add_column(title, justify="right", no_wrap=True)
    for ranking in found:
        for cell in ranking.cells:
            first = cell is ranking.cells[0]
            table.add_row(count(ranking.budget) if first else "", str(ranking.place(cell)), *_row(cell, ladders))
    heading = Text("Methods at equal budgets: each one's most accurate network within half and a tenth", style="bold")
    full = max(ladders, key=lambda ladder: len(ladder.cells)).full
    score = f", {_accuracy(full)}" if full.score else ""
    words = f"against {full.network}: {count(full.relu_count)} ReLUs{score}"
    if any(cell.method == "poly" for ranking in found for cell in ranking.cells):
        words += "; polynomials are no ReLUs, what they cost is in the latency"
    against = Text(words, style="dim")
    return [heading, Padding(against, (0, 0, 0, 2)), Padding(table, (0, 0, 0, 2)), Text()]


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


def _merit(cell: Cell) -> tuple[float, int, str]:
    return _percent(cell), -cell.relu_count, cell.network
