"""The frontier in the terminal: accuracy over online latency as a compact plot, and the budgets as a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pibench.numbers import axis_seconds, percent, seconds, short, size, times
from pibench.reporting.answer import Answer
from pibench.reporting.cells import Cell, Ladder
from pibench.reporting.page.draw_frontier import pareto
from pibench.reporting.scales import Scale, padded

LOW, AXES, PROMPT = 5, 4, 1  # lines of the lowest plot, of what stands around one, and of the shell
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def terminal(found: Answer, width: int = 80, height: int | None = None) -> str:
    """Return the answer for a terminal: headline, plot, table; in a low one (`height` lines) fewer sentences."""
    table = frontier_table(found.ladder, found.chosen)
    told = [[f"  {line}" for line in _wrap(sentence, width - 2)] for sentence in found.sentences]
    room = (height or 1000) - len(table) - 3 - PROMPT
    while len(told) > 2 and room - sum(map(len, told)) < LOW + AXES:
        told.pop()  # the last ones are of the wire, and of elsewhere
    left = room - sum(map(len, told)) - AXES
    plot = frontier_plot(found.ladder.cells, width, min(12, left)) if left >= LOW else []
    lines = [found.headline, *(line for lines in told for line in lines), ""]
    return "\n".join([*lines, *plot, *([""] if plot else []), *table])


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, max(width, 20))


def _named(cells: Sequence[Cell]) -> dict[str, str]:
    """Return a letter a network, in the table's order."""
    return {cell.network: LETTERS[i % len(LETTERS)] for i, cell in enumerate(cells)}


def frontier_plot(cells: Sequence[Cell], width: int = 80, height: int = 12) -> list[str]:
    """Return accuracy over latency (logarithmic) in characters; the best networks are joined by dots.

    Without accuracy on two networks there is nothing to plot, and nothing is.
    """
    scored = [c for c in cells if c.score and c.usable]
    if len(scored) < 2:
        return []
    letters, left = _named(cells), 7
    right = max(width - 2, left + 30)
    percents = [c.score.percent for c in scored if c.score]
    across = Scale(*padded([c.online_s for c in scored], log=True, share=0.03), left, right - 1, True)
    up = Scale(*padded(percents, share=0.05), height - 1, 0)
    grid = [[" "] * right for _ in range(height)]
    _stairs(grid, [(across(c.online_s), up(c.score.percent)) for c in pareto(scored) if c.score])
    for cell in scored:
        if cell.score:
            grid[round(up(cell.score.percent))][round(across(cell.online_s))] = letters[cell.network]
    for tick in up.ticks(4):
        for place, character in enumerate(f"{tick:5.4g} ┤"):
            grid[round(up(tick))][place] = character
    for row in grid:
        row[6] = row[6] if row[6] == "┤" else "│"
    return ["accuracy, %", *("".join(row).rstrip() for row in grid), *_axis(across, left, right)]


def _stairs(grid: list[list[str]], points: Sequence[tuple[float, float]]) -> None:
    """Draw the staircase that joins the best networks."""
    for (x1, y1), (x2, y2) in pairwise(points):
        for x in range(round(x1), round(x2) + 1):
            grid[round(y1)][x] = "·"
        for y in range(min(round(y1), round(y2)), max(round(y1), round(y2)) + 1):
            grid[y][round(x2)] = "·"


def _axis(scale: Scale, left: int, right: int) -> list[str]:
    rule, words = ["─"] * right, [" "] * (right + 8)
    rule[:left] = list(" " * (left - 1) + "└")
    taken = -1
    for tick in scale.ticks(max(2, (right - left) // 14)):
        at, text = round(scale(tick)), axis_seconds(tick)
        start = at - len(text) // 2
        if start > taken:
            rule[at] = "┴"
            words[start : start + len(text)] = list(text)
            taken = start + len(text) + 1
    title = "online latency"
    return ["".join(rule), "".join(words).rstrip(), " " * max(right - len(title), 0) + title]


def frontier_table(ladder: Ladder, chosen: Cell | None = None) -> list[str]:
    """Return one line a network, most ReLUs first; `>` marks the fastest within one point of the full network."""
    head = ("", "network", "ReLUs", "accuracy, %", "online", "faster", "sent", "rounds", "ReLU")
    letters = _named(ladder.cells)
    rows = [head]
    for cell in ladder.cells:
        mark = ">" if cell is chosen and cell is not ladder.full else " "
        share = percent(cell.relu_share) if cell.relu_share is not None else ""
        rows.append((
            f"{mark}{letters[cell.network]}", cell.network, short(cell.relu_count),
            f"{cell.score.percent:.2f} ({cell.score.n:,})" if cell.score else "", seconds(cell.online_s),
            "" if cell is ladder.full else times(ladder.full.online_s / cell.online_s),
            size(cell.sent_bytes) if cell.sent_bytes is not None else "",
            "" if cell.rounds is None else str(cell.rounds), share,
        ))  # fmt: skip
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    return [_line(row, widths) for row in rows]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [text.ljust(w) if k < 2 else text.rjust(w) for k, (text, w) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(cells).rstrip()
