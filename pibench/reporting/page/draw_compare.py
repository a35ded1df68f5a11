"""Comparing figures: protocols, links, phases, systems on paper, and how rankings move between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pibench.mpc.spec import is_private, order
from pibench.numbers import seconds, short, size
from pibench.reporting.cells import Cell
from pibench.reporting.onpaper.costmodel import WIRES, estimate
from pibench.reporting.page.canvas import Canvas, words_width
from pibench.reporting.page.draw_frontier import method_series, tip
from pibench.reporting.page.plotframe import Dot, Row, Series, dot_plot, legend
from pibench.reporting.page.theme import PROTOCOL_MARKERS, method_marker, method_role
from pibench.reporting.scales import Scale, padded, spread
from pibench.reporting.whatif import SHIFT_COLUMNS, Shift, workload_of_cell


def _palette(names: Sequence[str]) -> list[Series]:
    return [Series(name, f"p-{i % 5 + 1}", PROTOCOL_MARKERS[i % 5]) for i, name in enumerate(names)]


def _secrets_first(protocol: str) -> tuple[bool, bool, int, str]:
    labelled, place, name = order(protocol)
    return labelled, not is_private(protocol), place, name


def _row(cell: Cell, extra: str = "") -> Row:
    return Row(cell.network + extra, cell.network, f"{cell.relu_count:,} ReLUs" + (f" · {extra}" if extra else ""))


def _dot(cell: Cell) -> Dot:
    assert cell.online is not None
    return Dot(cell.online_s, cell.online.low, cell.online.high, f"{cell.protocol}, {cell.link}: {tip(cell)}")


def _bounds(dots: Iterable[Dot]) -> tuple[float, float]:
    values = [v for dot in dots for v in (dot.value, dot.low or dot.value, dot.high or dot.value)]
    return padded(values, log=True, share=0.04)


def protocols(cells: Sequence[Cell], width: float) -> Canvas:
    """Draw one row a network, one mark a protocol."""
    ordered = sorted(cells, key=lambda c: -c.relu_count)
    rows = list(dict.fromkeys(_row(c) for c in ordered))
    series = _palette(sorted({c.protocol for c in cells}, key=_secrets_first))
    dots = {(c.network, c.protocol): _dot(c) for c in ordered}
    return dot_plot(width, rows, series, dots, "online latency, logarithmic", _bounds(dots.values()))


def links(cells: Sequence[Cell], width: float) -> Canvas:
    """Draw one row a network and protocol, one mark a link."""
    ordered = sorted(cells, key=lambda c: (-c.relu_count, c.protocol))
    rows = list(dict.fromkeys(_row(c, c.protocol) for c in ordered))
    names = sorted({c.link for c in cells}, key=lambda name: next(c.rtt_ms for c in cells if c.link == name))
    dots = {(c.network + c.protocol, c.link): _dot(c) for c in ordered}
    return dot_plot(width, rows, _palette(names), dots, "online latency, logarithmic", _bounds(dots.values()))


def batches(cells: Sequence[Cell], width: float) -> Canvas:
    """Draw the online time of one image, one row a network, one mark a batch size."""
    ordered = sorted(cells, key=lambda c: -c.relu_count)
    sizes = sorted({c.batch for c in cells})
    series = _palette([f"batch {n}" for n in sizes])
    dots: dict[tuple[str, str], Dot] = {}
    for cell in ordered:
        if cell.online:
            each, low, high = (v / cell.batch for v in (cell.online_s, cell.online.low, cell.online.high))
            text = f"{cell.network}, batch {cell.batch}: {seconds(each)} an image"
            dots[cell.network, f"batch {cell.batch}"] = Dot(each, low, high, text)
    rows = list(dict.fromkeys(_row(c) for c in ordered))
    return dot_plot(width, rows, series, dots, "online time an image, logarithmic", _bounds(dots.values()))


def phases(cells: Sequence[Cell], width: float) -> Canvas:
    """Draw the offline seconds of one inference beside its online seconds."""
    series = [Series("online", "p-1", "square"), Series("offline, for one inference", "p-2", "circle")]
    dots: dict[tuple[str, str], Dot] = {}
    for cell in cells:
        dots[cell.network, series[0].name] = _dot(cell)
        if cell.offline and cell.offline.seconds > 0:
            text = f"{cell.network}: {seconds(cell.offline.seconds)} and {size(cell.offline.sent_bytes)} offline"
            dots[cell.network, series[1].name] = Dot(cell.offline.seconds, tip=text)
    return dot_plot(width, [_row(c) for c in cells], series, dots, "seconds, logarithmic", _bounds(dots.values()))


def paper(cells: Sequence[Cell], systems: Sequence[str], width: float) -> Canvas:
    """Draw measured latency beside systems on paper (hollow), both parties on one machine."""
    marks = PROTOCOL_MARKERS[1:]
    measured = Series(f"measured here: {cells[0].protocol}", "p-1", "square")
    series = [measured] + [
        Series(f"on paper: {name}", "paperwork", marks[i % 4], hollow=True) for i, name in enumerate(systems)
    ]
    dots = {(c.network, measured.name): _dot(c) for c in cells}
    for cell in cells:
        for name, entry in zip(systems, series[1:], strict=True):
            cost = estimate(workload_of_cell(cell), name, WIRES["loopback"])
            low, high = cost.online_range_s
            online_s = cost.online.total_s
            text = f"{cell.network}, {name} on paper: {seconds(online_s)} ({seconds(low)} to {seconds(high)})"
            dots[cell.network, entry.name] = Dot(online_s, low, high, text)
    title = "online latency, logarithmic"
    return dot_plot(width, [_row(c) for c in cells], series, dots, title, _bounds(dots.values()))


def ranking(rows: Sequence[Shift], width: float) -> Canvas:
    """Draw what is left of the full network's cost, from column to column: lines that cross change their rank."""
    canvas = Canvas(width, 0)
    methods = method_series(r.method for r in rows)
    top = (legend(canvas, methods, 12) if len(methods) > 1 else 0.0) + 58
    bottom = top + (300 if width > 500 else 280)
    names = max(words_width(_name(r, width), 11) for r in rows) + 12
    left, right = 42.0, width - min(names, width * 0.42)
    low = min(share for r in rows for share in r.shares.values())
    scale = Scale(min(low * 0.8, 0.5), 1.15, bottom, top, True)
    xs = [left + (right - left) * k / (len(SHIFT_COLUMNS) - 1) for k in range(len(SHIFT_COLUMNS))]
    for tick in (t for t in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if t >= scale.low):
        canvas.line(left, scale(tick), right, scale(tick), "grid")
        canvas.text(left - 7, scale(tick) + 4, f"{tick * 100:g} %", size=11, anchor="end", role="muted")
    _column_heads(canvas, xs, top, bottom, width, any(r.predicted for r in rows))
    at = spread([scale(r.shares["WAN"]) for r in rows], 13.0, top, bottom)
    for row, y in zip(rows, at, strict=True):
        points = [(x, scale(row.shares[name])) for x, name in zip(xs, SHIFT_COLUMNS, strict=True)]
        role = method_role(row.method)
        canvas.path(points, role, 1.8, opacity=0.85)
        for (px, py), name in zip(points, SHIFT_COLUMNS, strict=True):
            hollow = name == "garbled circuits" or (name == "WAN" and row.predicted)
            text = f"{row.network}: {row.shares[name]:.1%} by {name}"
            canvas.mark(px, py, method_marker(row.method), role, size=4.5, hollow=hollow, tip=text)
        canvas.text(right + 10, y + 4, _name(row, width), size=11)
    canvas.height = bottom + 12
    return canvas


def _name(row: Shift, width: float) -> str:
    return row.network if width > 500 else f"{row.network[:14]}{'…' if len(row.network) > 14 else ''}"


def _column_heads(
    canvas: Canvas, xs: Sequence[float], top: float, bottom: float, width: float, predicted: bool
) -> None:
    canvas.text(0, top - 44, "What is left of the cost", bold=True)
    wide = width > 500
    notes = {"garbled circuits": "DELPHI, on paper", "WAN": "predicted" if predicted else "measured",
             "local": "measured", "ReLUs": f"of {short(1.0)}"}  # fmt: skip
    for x, name in zip(xs, SHIFT_COLUMNS, strict=True):
        canvas.line(x, top - 4, x, bottom, "rule")
        head = name if wide or name != "garbled circuits" else "garbled"
        canvas.text(x, top - 22, head, size=11, anchor="middle", bold=True, halo=True)
        if name != "ReLUs":
            note = notes[name] if wide or name != "garbled circuits" else "on paper"
            canvas.text(x, top - 9, note, size=10, anchor="middle", role="muted", halo=True)
