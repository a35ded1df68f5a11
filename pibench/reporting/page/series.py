"""A history drawn: lines of characters for the terminal, a picture for everywhere else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pibench.records.changepoints import Step
from pibench.records.history import Commits, History, Point
from pibench.reporting.screen.comparison import show

BAR_CELLS = 32


def as_text(history: History) -> str:
    """Return the series as one line a run: where the value lies, its interval, and the steps between the lines."""
    lines = [f"{history.case}  {history.measure.title}  ({len(history.points)} runs, machine {history.machine})"]
    if history.left_out:
        lines.append(f"{history.left_out} runs on other machines left out")
    if history.left_out_settings:
        lines.append(f"{history.left_out_settings} runs not of {history.setting} left out")
    lines.append("")
    low, high = min(p.low for p in history.points), max(p.high for p in history.points)
    at = {step.index: number for number, step in enumerate(history.steps)}
    for index, point in enumerate(history.points):
        if index in at:
            lines += _step_lines(history, history.steps[at[index]], history.commits[at[index]])
        lines.append(_line(history, point, low, high))
    lines += ["", f"{len(history.steps)} steps" if len(history.steps) != 1 else "1 step"]
    return "\n".join(lines) + "\n"


def to_data(history: History) -> dict[str, Any]:
    """Return the history as plain data."""
    return {
        "schema": "pibench-history/1",
        "case": history.case,
        "measure": history.measure.name,
        "unit": history.measure.unit,
        "machine": history.machine,
        "setting": history.setting,
        "points": [vars(point) for point in history.points],
        "steps": [
            {**vars(step), "change": step.change, "commits": commits.lines, "note": commits.note}
            for step, commits in zip(history.steps, history.commits, strict=True)
        ],
    }


def save_picture(history: History, path: Path) -> None:
    """Draw the series with its intervals, levels and steps (the format is the file name's: svg, png, pdf)."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "pibench"  # the same series gives the same file
    from matplotlib import pyplot

    scale, unit = (1e3, "ms") if history.measure.unit == "s" else (1.0, history.measure.unit)
    values = [point.value * scale for point in history.points]
    below = [(point.value - point.low) * scale for point in history.points]
    above = [(point.high - point.value) * scale for point in history.points]
    figure, axes = pyplot.subplots(figsize=(9.0, 3.6), layout="constrained")
    places = range(len(values))
    axes.errorbar(places, values, yerr=[below, above], fmt="o", ms=3, lw=0.8, color="#4477aa")
    _draw_levels(axes, history, scale)
    axes.set_xticks(*_ticks(history.points), rotation=45, ha="right", fontsize=7)
    axes.set_ylabel(f"{history.measure.title} [{unit}]" if unit else history.measure.title)
    axes.set_title(history.case, fontsize=9)
    axes.margins(x=0.02)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _draw_levels(axes: Any, history: History, scale: float) -> None:
    edges = [0, *(step.index for step in history.steps), len(history.points)]
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        level = sorted(point.value for point in history.points[start:end])[(end - start) // 2] * scale
        axes.hlines(level, start - 0.5, end - 0.5, color="#222222", lw=1.2)
        if number:
            step = history.steps[number - 1]
            axes.axvline(start - 0.5, color="#cc3311", lw=1.0, ls="--")
            axes.annotate(f"{100 * step.change:+.1f} %", (start - 0.4, level), color="#cc3311", fontsize=8, va="bottom")


def _ticks(points: Sequence[Point]) -> tuple[list[int], list[str]]:
    every = max(1, len(points) // 25)
    places = list(range(0, len(points), every))
    return places, [(points[p].commit or points[p].created_utc[:10])[:8] for p in places]


def _step_lines(history: History, step: Step, commits: Commits) -> list[str]:
    levels = f"{show(history.measure, step.before)} -> {show(history.measure, step.after)}"
    lines = [f"  ---- step {100 * step.change:+.2f} %  {levels}"]
    lines += [f"       {line}" for line in commits.lines]
    return [*lines, f"       ({commits.note})"] if commits.note else lines


def _line(history: History, point: Point, low: float, high: float) -> str:
    commit = (point.commit or "no commit")[:10] + ("+" if point.dirty else " ")
    bar = _bar(point, low, high)
    return f"{point.created_utc[:16]}  {commit:<11}  {bar}  {show(history.measure, point.value)}"


def _bar(point: Point, low: float, high: float) -> str:
    """Return the interval as a line and the point as a dot, between the series' extremes."""

    def cell(value: float) -> int:
        return round((value - low) / (high - low) * (BAR_CELLS - 1)) if high > low else 0

    cells = [" "] * BAR_CELLS
    for place in range(cell(point.low), cell(point.high) + 1):
        cells[place] = "-"
    cells[cell(point.value)] = "o"
    return "".join(cells)
