"""Offline time over ReLUs and over multiplications, each less what the fitted plane gives to the other count."""

from __future__ import annotations

from collections.abc import Callable

from pibench.numbers import axis_seconds, seconds, short
from pibench.reporting.cells import Cell
from pibench.reporting.endtoend import Price, offline_s
from pibench.reporting.page.canvas import Canvas
from pibench.reporting.page.draw_frontier import LEFT, RIGHT, method_series
from pibench.reporting.page.labels import Label, place
from pibench.reporting.page.plotframe import frame, legend
from pibench.reporting.page.theme import method_marker, method_role
from pibench.reporting.scales import padded

Of = Callable[[Cell], float]
APART = 64.0  # pixels between two frames that stand one above the other


def offline_price(price: Price, width: float) -> Canvas:
    """Draw two frames, side by side where there is room, each with the plane's price as a line."""
    canvas, wide = Canvas(width, 0), width > 500
    methods = [c.method for c in price.cells]
    top = (legend(canvas, method_series(methods), 12) if len(set(methods)) > 1 else 0.0) + 26
    across = (width - RIGHT) / 2 if wide else width - RIGHT
    bottom = top + (230 if wide else 200)
    _part(canvas, price, (LEFT, top, across - 8 if wide else across, bottom), _relus, price.relu_s, price.mac_s,
          "Offline, less MACs' part", "ReLUs")  # fmt: skip
    shift, down = (across + LEFT - 4, 0.0) if wide else (LEFT, bottom - top + APART)
    box = shift, top + down, width - RIGHT, bottom + down
    _part(canvas, price, box, _macs, price.mac_s, price.relu_s, "Offline, less ReLUs' part", "Multiply-accumulates")
    canvas.height = bottom + down + 44
    return canvas


def _relus(cell: Cell) -> float:
    return float(cell.relu_count * cell.batch)


def _macs(cell: Cell) -> float:
    return float(cell.macs_run * cell.batch)


def _part(
    canvas: Canvas, price: Price, box: tuple[float, float, float, float], count: Of, mine: Of, other: Of,
    title_y: str, title_x: str,
) -> None:  # fmt: skip
    """Draw one frame: seconds without what the plane gives to the other count, and the plane's line."""
    rest = {cell: offline_s(cell) - other(cell) for cell in price.cells}
    most = max(price.cells, key=count)
    counts = (0.0, count(most) * 1.08 or 1.0)
    high = padded([*rest.values(), price.intercept_s + mine(most)], zero=True)[1]
    area = frame(
        canvas, box, counts, (min(0.0, *rest.values()), high), write_x=short, write_y=axis_seconds, title_x=title_x,
    )  # fmt: skip
    canvas.text(box[0] - LEFT, box[1] - 12, title_y, size=12, bold=True)
    ends = [(0.0, price.intercept_s), (count(most), price.intercept_s + mine(most))]
    canvas.path([(area.x(n), area.y(s)) for n, s in ends], "muted", 1.5, (5.0, 4.0))
    labels = []
    for cell, left in rest.items():
        x, y = area.x(count(cell)), area.y(left)
        tip = f"{cell.network}: {seconds(offline_s(cell))} offline, {seconds(left)} without the other count's part"
        canvas.mark(x, y, method_marker(cell.method), method_role(cell.method), tip=tip)
        labels.append(Label(x, y, cell.network))
    place(canvas, labels, area.box)
