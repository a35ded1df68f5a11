"""Furniture of figures: plot frames with horizontal grid and titles that read horizontally, legends, dot plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pibench.numbers import axis_seconds
from pibench.reporting.page.canvas import Canvas, words_width
from pibench.reporting.page.labels import Box
from pibench.reporting.scales import Scale

Write = Callable[[float], str]


@dataclass(frozen=True)
class Frame:
    """A plot area with its scales."""

    x: Scale
    y: Scale
    left: float
    top: float
    right: float
    bottom: float

    @property
    def box(self) -> Box:
        """Bounds for labels."""
        return self.left, self.top, self.right, self.bottom


def frame(
    canvas: Canvas, box: Box, x: tuple[float, float], y: tuple[float, float], *, log_x: bool = False,
    log_y: bool = False, write_x: Write | None = None, write_y: Write = str, title_x: str = "", title_y: str = "",
) -> Frame:  # fmt: skip
    """Draw a frame: horizontal grid, ticks, the y title above the plot, the x title below its ticks."""
    left, top, right, bottom = box
    across, up = Scale(*x, left, right, log_x), Scale(*y, bottom, top, log_y)
    for tick in up.ticks(5):
        at = up(tick)
        canvas.line(left, at, right, at, "grid")
        canvas.text(left - 7, at + 4, write_y(tick), size=11, anchor="end", role="muted")
    canvas.line(left, bottom, right, bottom, "rule")
    if write_x is not None:
        _ticks_below(canvas, across, bottom, write_x)
    canvas.text(0, top - 12, title_y, size=12, bold=True)
    if title_x:
        canvas.text(right, bottom + 36, title_x, size=12, anchor="end", bold=True)
    return Frame(across, up, left, top, right, bottom)


def _ticks_below(canvas: Canvas, scale: Scale, bottom: float, write: Write) -> None:
    last = -1e9
    for tick in scale.ticks(max(3, int(abs(scale.end - scale.start) / 75))):
        at, text = scale(tick), write(tick)
        canvas.line(at, bottom, at, bottom + 4, "rule")
        half = words_width(text, 11) / 2
        if at - half > last + 4:
            canvas.text(at, bottom + 17, text, size=11, anchor="middle", role="muted")
            last = at + half


@dataclass(frozen=True)
class Series:
    """One kind of mark of a figure."""

    name: str
    role: str
    marker: str = "circle"
    hollow: bool = False


def legend(canvas: Canvas, series: Sequence[Series], y: float, *, left: float = 0.0, swatch: bool = False) -> float:
    """Draw a legend that wraps at the canvas's width; returns the y below it."""
    x = left
    for entry in series:
        width = 22 + words_width(entry.name, 12) + 14
        if x > left and x + width - 12 > canvas.width:
            x, y = left, y + 19
        if swatch:
            canvas.rect(x, y - 9, 11, 11, entry.role)
        else:
            canvas.mark(x + 6, y - 4, entry.marker, entry.role, hollow=entry.hollow)
        canvas.text(x + 18, y, entry.name, size=12)
        x += width
    return y + 14


@dataclass(frozen=True)
class Dot:
    """A value with its interval, of one row and one series."""

    value: float
    low: float | None = None
    high: float | None = None
    tip: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a dot plot."""

    key: str
    name: str
    note: str = ""


def dot_plot(
    width: float, rows: Sequence[Row], series: Sequence[Series], dots: Mapping[tuple[str, str], Dot], title_x: str,
    bounds: tuple[float, float], write: Write = axis_seconds,
) -> Canvas:  # fmt: skip
    """Return rows of marks on a shared logarithmic scale, the names above their rows so that phones can read them."""
    pitch, left, right = 40.0, 4.0, width - 8.0
    canvas = Canvas(width, 0)
    top = legend(canvas, series, 12) + 10
    bottom = top + pitch * len(rows)
    scale = Scale(*bounds, left + 10, right - 10, True)
    for tick in scale.ticks(max(3, int(width / 90))):
        canvas.line(scale(tick), top, scale(tick), bottom, "grid")
        canvas.text(scale(tick), bottom + 16, write(tick), size=11, anchor="middle", role="muted")
    for index, row in enumerate(rows):
        _dot_row(canvas, row, top + pitch * index, scale, series, dots, (left, right))
    canvas.line(left, bottom, right, bottom, "rule")
    canvas.text(right, bottom + 36, title_x, size=12, anchor="end", bold=True)
    canvas.height = bottom + 44
    return canvas


def _dot_row(
    canvas: Canvas, row: Row, y: float, scale: Scale, series: Sequence[Series],
    dots: Mapping[tuple[str, str], Dot], ends: tuple[float, float],
) -> None:  # fmt: skip
    at = y + 27
    canvas.text(ends[0], y + 13, row.name, size=12, bold=True, halo=True)
    if row.note:
        x = ends[0] + words_width(row.name, 12) * 1.14 + 12
        canvas.text(x, y + 13, row.note, size=11, role="muted", halo=True)
    present = [dots[row.key, s.name].value for s in series if (row.key, s.name) in dots]
    if len(present) > 1:
        canvas.line(scale(min(present)), at, scale(max(present)), at, "rule", 2)
    for entry in reversed(series):  # the first one on top
        dot = dots.get((row.key, entry.name))
        if dot is None:
            continue
        if dot.low is not None and dot.high is not None:
            canvas.line(scale(dot.low), at, scale(dot.high), at, entry.role, 2)
        canvas.mark(scale(dot.value), at, entry.marker, entry.role, hollow=entry.hollow, tip=dot.tip)
