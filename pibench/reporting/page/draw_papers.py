"""Seconds over ReLUs under several protocols, measured, beside published latencies of garbled circuits (hollow)."""

from __future__ import annotations

from collections.abc import Sequence

from pibench.numbers import axis_seconds, seconds, short
from pibench.reporting.cells import Ladder
from pibench.reporting.onpaper.costcheck import Published
from pibench.reporting.page.canvas import Canvas
from pibench.reporting.page.draw_frontier import LEFT, RIGHT
from pibench.reporting.page.plotframe import Series, frame, legend
from pibench.reporting.scales import padded

MARKS = ("square", "circle", "diamond", "triangle")


def over_relus(ladders: Sequence[Ladder], published: Sequence[Published], width: float) -> Canvas:
    """Draw every network of the ladders and every published one, both axes logarithmic."""
    canvas = Canvas(width, 0)
    entries = [
        Series(f"measured: {ladder.setting.protocol}", f"p-{i + 1}", MARKS[i]) for i, ladder in enumerate(ladders)
    ]
    paper = Series("published, DELPHI's kind", "paperwork", "circle", hollow=True)
    top = legend(canvas, [*entries, paper], 12) + 26
    bottom = top + (320 if width > 500 else 280)
    cells = [cell for ladder in ladders for cell in ladder.cells if cell.relu_count]
    relus = padded([c.relu_count for c in cells] + [p.load.relu_count for p in published], log=True)
    times = padded([c.online_s for c in cells] + [p.online_s for p in published], log=True)
    area = frame(
        canvas, (LEFT, top, width - RIGHT, bottom), relus, times, log_x=True, log_y=True, write_x=short,
        write_y=axis_seconds, title_y="Online latency, logarithmic", title_x="ReLUs, logarithmic",
    )  # fmt: skip
    for row in published:
        tip = f"{row.load.name}: {seconds(row.online_s)} published. {row.source}"
        canvas.mark(area.x(row.load.relu_count), area.y(row.online_s), paper.marker, paper.role, hollow=True, tip=tip)
    for ladder, entry in zip(ladders, entries, strict=True):
        for cell in (c for c in ladder.cells if c.relu_count):
            tip = f"{cell.network} under {cell.protocol}: {cell.relu_count:,} ReLUs, {seconds(cell.online_s)}"
            canvas.mark(area.x(cell.relu_count), area.y(cell.online_s), entry.marker, entry.role, tip=tip)
    canvas.height = bottom + 44
    return canvas
