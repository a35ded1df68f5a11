"""Frontier figures: what a ReLU budget buys (accuracy) and what it costs (latency)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pibench.numbers import axis_seconds, seconds, short
from pibench.reporting.cells import Cell, Ladder
from pibench.reporting.page.canvas import Canvas, Words, words_width
from pibench.reporting.page.labels import Label, overlap, place, words_box
from pibench.reporting.page.plotframe import Frame, Series, frame, legend
from pibench.reporting.page.theme import MARKERS, METHOD_TITLES, method_marker, method_role
from pibench.reporting.scales import padded

LEFT, RIGHT = 52.0, 14.0
CROWD = 8  # networks beyond which names are shortened and a phone's plots are taller


@dataclass(frozen=True)
class PublishedPoint:
    """A published figure of a network of the ladder: never measured here."""

    network: str
    method: str
    relu_count: int
    percent: float | None
    online_s: float | None
    source: str

    def x_over(self, over: str) -> float | None:
        """Return where it stands over "latency" or "relus"; None where it has no place in that figure."""
        if self.percent is None:
            return None
        return self.online_s if over == "latency" else float(self.relu_count)


def published_points(cells: Iterable[Cell]) -> list[PublishedPoint]:
    """Return the published figures that the cards of some cells carry, each once."""
    points = {
        PublishedPoint(
            cell.network, cell.method, int(row.get("relu_count") or cell.relu_count),
            _number(row.get("accuracy_percent")), _number(row.get("online_s")), str(row.get("source") or ""),
        )
        for cell in cells
        for row in cell.published
    }  # fmt: skip
    return sorted(points, key=lambda p: (-p.relu_count, p.network, p.source, p.percent or 0.0))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def pareto(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that no other one beats in both latency and accuracy, fastest first."""
    best, front = -1.0, []
    for cell in sorted((c for c in cells if c.score), key=lambda c: (c.online_s, -c.score.percent if c.score else 0)):
        if cell.score and cell.score.percent > best:
            best = cell.score.percent
            front.append(cell)
    return front


def method_series(methods: Iterable[str], *, published: bool = False) -> list[Series]:
    """Return the legend of methods, in the theme's order."""
    present = set(methods)
    known = [m for m in MARKERS if m in present] + sorted(present - set(MARKERS))
    entries = [Series(METHOD_TITLES.get(m, m), method_role(m), method_marker(m)) for m in known]
    return [*entries, Series("published", "muted", "circle", hollow=True)] if published else entries


def tip(cell: Cell) -> str:
    """Return what a reader sees on pointing at a measured mark."""
    parts = [f"{cell.network}: {cell.relu_count:,} ReLUs"]
    if cell.score:
        parts.append(f"{cell.score.percent:.2f} % of {cell.score.n} images")
    if cell.online:
        low, high = seconds(cell.online.low), seconds(cell.online.high)
        parts.append(f"{seconds(cell.online_s)} online [{low}, {high}]")
    return ", ".join(parts)


def short_names(cells: Sequence[Cell]) -> dict[str, str]:
    """Return what to call networks in a crowded picture: without the name of the network that most were made from.

    Of more than eight, a part between dashes that all of them have (such as the data set's) is left out too.
    """
    names = list(dict.fromkeys(cell.network for cell in cells))
    heirs = {name: sum(other.startswith(f"{name}-") for other in names) for name in names}
    first = max(names, key=lambda name: heirs[name], default="")
    cut = f"{first}-" if heirs.get(first, 0) >= 3 else ""
    common = set.intersection(*(set(name.split("-")) for name in names)) if len(names) > CROWD else set()
    made = {}
    for name in names:
        parts = (name.removeprefix(cut) if cut else name).split("-")
        made[name] = "-".join(part for part in parts if part not in common) or name
    return made if len(set(made.values())) == len(names) else {name: name for name in names}


def budget(ladder: Ladder, chosen: Cell | None, width: float) -> Canvas:
    """Draw both halves of the question over one axis of ReLUs: accuracy above, latency with its fitted price below."""
    scored = [c for c in ladder.cells if c.score]
    chosen = None if chosen is ladder.full else chosen  # the reference needs no ring
    high = 158 if width >= 500 else 150 if len(ladder.cells) <= CROWD else 210
    canvas = Canvas(width, 0)
    methods = [c.method for c in ladder.cells]
    top = (legend(canvas, method_series(methods), 12) if len(set(methods)) > 1 else 0.0) + 26
    relus = padded([c.relu_count for c in ladder.cells if c.relu_count], log=True, share=0.1)
    if scored:
        bottom = top + high
        _accuracy_half(canvas, ladder, scored, chosen, relus, (LEFT, top, width - RIGHT, bottom))
        top = bottom + 44
    bottom = top + high
    _latency_half(canvas, ladder, chosen, relus, (LEFT, top, width - RIGHT, bottom))
    canvas.height = bottom + 44
    return canvas


def _accuracy_half(
    canvas: Canvas, ladder: Ladder, scored: Sequence[Cell], chosen: Cell | None, relus: tuple[float, float],
    box: tuple[float, float, float, float],
) -> None:  # fmt: skip
    ends = [e for c in scored if c.score for e in (c.score.percent - c.score.margin, c.score.percent + c.score.margin)]
    low, high = padded(ends)
    area = frame(
        canvas, box, relus, (max(low, 0.0), min(high, 100.5)), log_x=True, write_y=lambda v: f"{v:g}",
        title_y="What it buys: accuracy, %",
    )  # fmt: skip
    if ladder.best and ladder.best.score:
        name = ladder.reference if ladder.best is ladder.full else ladder.best.network
        marks = [(area.x(c.relu_count), area.y(c.score.percent)) for c in scored if c.score and c.relu_count]
        _one_point_line(canvas, area, ladder.best.score.percent, name, marks)
    labels, names = [], short_names(ladder.cells)
    for cell in scored:
        if cell.score is None or not cell.relu_count:
            continue
        x, y = area.x(cell.relu_count), area.y(cell.score.percent)
        margin = cell.score.margin
        canvas.line(x, area.y(cell.score.percent - margin), x, area.y(cell.score.percent + margin), "k-waiting")
        _mark(canvas, x, y, cell, chosen)
        labels.append(Label(x, y, names[cell.network], bold=cell is chosen))
    place(canvas, labels, area.box)


def _one_point_line(
    canvas: Canvas, area: Frame, percent: float, reference: str, marks: Sequence[tuple[float, float]]
) -> None:
    """Draw the bar that the headline's network has to pass, its name where no mark is near."""
    y = area.y(percent - 1.0)
    if not area.top < y < area.bottom:
        return
    canvas.line(area.left, y, area.right, y, "muted", 1, (4.0, 4.0))
    told = [f"{reference.removeprefix('the ')} less 1 point", "the most accurate less 1 point", "less 1 point"]
    if words_width(told[0], 11) > 0.4 * (area.right - area.left):
        del told[0]
    spots = [spot for words in told for spot in _along(area, y, words)]
    spot = min(
        spots, key=lambda spot: sum(overlap(words_box(spot), (x - 14, at - 9, x + 14, at + 9)) for x, at in marks)
    )
    canvas.text(spot.x, spot.y, spot.text, size=spot.size, anchor=spot.anchor, role="muted", halo=True)


def _along(area: Frame, y: float, words: str) -> list[Words]:
    """Return places for words along a line, below and above it: its ends, then what lies between."""
    half = words_width(words, 11) / 2 + 4
    first, last = area.left + half, area.right - half
    across = [first, last, *(first + (last - first) * step / 12 for step in range(1, 12))]
    return [Words(x, base, words, 11, "middle", "muted") for base in (y + 13, y - 5) for x in across]


def _latency_half(
    canvas: Canvas, ladder: Ladder, chosen: Cell | None, relus: tuple[float, float],
    box: tuple[float, float, float, float],
) -> None:  # fmt: skip
    cells = [c for c in ladder.cells if c.relu_count]
    times = padded([v for c in cells if c.online for v in (c.online.low, c.online.high)], log=True)
    area = frame(
        canvas, box, relus, times, log_x=True, log_y=True, write_x=short, write_y=axis_seconds,
        title_y="What it costs: online latency", title_x="ReLUs",
    )  # fmt: skip
    if ladder.explains:
        steps = [relus[0] * (relus[1] / relus[0]) ** (k / 40) for k in range(41)]
        line = [(r, ladder.line_s(r)) for r in steps]
        points = [(area.x(r), area.y(s)) for r, s in line if times[0] <= s <= times[1]]
        if len(points) > 1:
            canvas.path(points, "muted", 1.5, (5.0, 4.0))
    labels, names = [], short_names(ladder.cells)
    tight = canvas.width < 500 and len(cells) > CROWD
    for cell in cells:
        x, y = area.x(cell.relu_count), area.y(cell.online_s)
        if cell.online:
            canvas.line(x, area.y(cell.online.low), x, area.y(cell.online.high), method_role(cell.method), 2)
        _mark(canvas, x, y, cell, chosen)
        told = seconds(cell.online_s)
        if not cell.score:  # others are named in the half above
            told = names[cell.network] if tight else f"{names[cell.network]} {told}"
        labels.append(Label(x, y, told, bold=cell is chosen))
    place(canvas, labels, area.box)


def _mark(canvas: Canvas, x: float, y: float, cell: Cell, chosen: Cell | None) -> None:
    if cell is chosen:
        canvas.mark(x, y, "circle", "accent", size=9.5, hollow=True)
    canvas.mark(x, y, method_marker(cell.method), method_role(cell.method), tip=tip(cell))


def frontier(cells: Sequence[Cell], published: Sequence[PublishedPoint], over: str, width: float) -> Canvas:
    """Draw accuracy over "latency" (online) or over "relus": measured filled, published hollow, the best joined."""
    latency = over == "latency"
    scored = [c for c in cells if c.score and (latency or c.relu_count)]
    shown = [p for p in published if p.x_over(over)]
    xs = [float(c.relu_count) for c in scored]
    if latency:
        xs = [end for c in scored if c.online for end in (c.online.low, c.online.high)]
    xs += [x for p in shown if (x := p.x_over(over))]
    ys = [c.score.percent + sign * c.score.margin for c in scored if c.score for sign in (-0.7, 0.7)]
    ys += [p.percent for p in shown if p.percent is not None]
    canvas = Canvas(width, 0)
    methods = [c.method for c in scored] + [p.method for p in shown]
    legends = method_series(methods, published=bool(shown))
    top = (legend(canvas, legends, 12) if len(legends) > 1 else 0.0) + 26
    bottom = top + 270
    low, high = padded(ys)
    area = frame(
        canvas, (LEFT, top, width - RIGHT, bottom), padded(xs, log=True), (max(low, 0.0), min(high, 100.5)),
        log_x=True, write_x=axis_seconds if latency else short, write_y=lambda v: f"{v:g}", title_y="Accuracy, %",
        title_x="Online latency" if latency else "ReLUs",
    )  # fmt: skip
    if latency:
        _staircase(canvas, area, pareto(scored))
    labels, others = _measured(canvas, area, scored, latency), _published(canvas, area, shown, over)
    place(
        canvas, [*labels, *others] if latency else labels, area.box, above=latency,
        obstacles=[(o.x, o.y) for o in others],
    )  # fmt: skip
    canvas.height = bottom + 44
    return canvas


def _staircase(canvas: Canvas, area: Frame, front: Sequence[Cell]) -> None:
    points: list[tuple[float, float]] = []
    for cell in front:
        if cell.score is None:
            continue
        x, y = area.x(cell.online_s), area.y(cell.score.percent)
        if points:
            points.append((x, points[-1][1]))
        points.append((x, y))
    if points:
        canvas.path([*points, (area.right, points[-1][1])], "muted", 1.5)


def _measured(canvas: Canvas, area: Frame, cells: Sequence[Cell], latency: bool) -> list[Label]:
    labels, names = [], short_names(cells)
    for cell in cells:
        if cell.score is None:
            continue
        x, y = area.x(cell.online_s if latency else cell.relu_count), area.y(cell.score.percent)
        if latency and cell.online:
            canvas.line(area.x(cell.online.low), y, area.x(cell.online.high), y, method_role(cell.method), 2)
        up, down = area.y(cell.score.percent + cell.score.margin), area.y(cell.score.percent - cell.score.margin)
        canvas.line(x, up, x, down, "k-waiting")
        canvas.mark(x, y, method_marker(cell.method), method_role(cell.method), tip=tip(cell))
        labels.append(Label(x, y, names[cell.network]))
    return labels


def _published(canvas: Canvas, area: Frame, points: Sequence[PublishedPoint], over: str) -> list[Label]:
    labels = []
    for point in points:
        x, y = area.x(point.x_over(over) or 0.0), area.y(point.percent or 0.0)
        note = f"published: {point.network}, {point.percent:g} %, {point.relu_count:,} ReLUs. Source: {point.source}"
        marker = method_marker(point.method)
        canvas.mark(x, y, marker, method_role(point.method), hollow=True, tip=note)
        labels.append(Label(x, y, f"{point.network} (published)", role="muted"))
    return labels
