"""Cost figures of one setting: the fitted price, where the time goes, and the profile of one network."""

from __future__ import annotations

from collections.abc import Sequence

from pibench.numbers import axis_seconds, percent, seconds, short, size
from pibench.reporting.cells import KINDS, Cell, Ladder, Site
from pibench.reporting.page.canvas import Canvas, words_width
from pibench.reporting.page.draw_frontier import LEFT, RIGHT, method_series, short_names, tip
from pibench.reporting.page.labels import Label, place
from pibench.reporting.page.plotframe import Series, frame, legend
from pibench.reporting.page.theme import KIND_TITLES, method_marker, method_role
from pibench.reporting.scales import Scale, padded

MAX_SITES = 48


def price(ladder: Ladder, width: float) -> Canvas:
    """Draw online latency over ReLUs on linear axes, with intervals and the fitted line."""
    canvas = Canvas(width, 0)
    methods = [c.method for c in ladder.cells]
    top = (legend(canvas, method_series(methods), 12) if len(set(methods)) > 1 else 0.0) + 26
    bottom = top + (260 if width > 500 else 220)
    high = padded([c.online.high for c in ladder.cells if c.online], zero=True)[1]
    relus = (0.0, max(c.relu_count for c in ladder.cells) * 1.08 or 1.0)
    area = frame(
        canvas, (LEFT, top, width - RIGHT, bottom), relus, (0.0, high), write_x=short, write_y=axis_seconds,
        title_y="Online latency", title_x="ReLUs",
    )  # fmt: skip
    if ladder.fit.n >= 3:
        ends = [(r, ladder.line_s(r)) for r in (0.0, relus[1] / 1.04)]
        canvas.path([(area.x(r), area.y(s)) for r, s in ends], "muted", 1.5, (5.0, 4.0))
    labels, names = [], short_names(ladder.cells)
    for cell in ladder.cells:
        x, y, role = area.x(cell.relu_count), area.y(cell.online_s), method_role(cell.method)
        if cell.online:
            canvas.line(x, area.y(cell.online.low), x, area.y(cell.online.high), role, 2)
        canvas.mark(x, y, method_marker(cell.method), role, tip=tip(cell))
        labels.append(Label(x, y, names[cell.network]))
    place(canvas, labels, area.box)
    canvas.height = bottom + 44
    return canvas


def kind_series(kinds: Sequence[str]) -> list[Series]:
    """Return the legend of operation kinds."""
    return [Series(KIND_TITLES[kind], f"k-{kind}") for kind in kinds]


def attribution(cells: Sequence[Cell], width: float) -> Canvas:
    """Draw one stacked bar a network: seconds by kind of operation, waiting apart."""
    canvas = Canvas(width, 0)
    present = [kind for kind in KINDS if any(c.kinds[kind] > 0 for c in cells)]
    y = legend(canvas, kind_series(present), 12, swatch=True) + 8
    scale = Scale(0.0, max(c.online_s for c in cells) or 1.0, 0.0, width)
    for cell in cells:
        canvas.text(0, y + 12, cell.network, bold=True)
        note, took, after = f"{cell.relu_count:,} ReLUs", seconds(cell.online_s), words_width(cell.network) * 1.14 + 12
        if after + words_width(note, 11) * 1.1 + words_width(took) * 1.1 + 12 < width:
            canvas.text(after, y + 12, note, size=11, role="muted")
        canvas.text(width, y + 12, took, anchor="end")
        x = 0.0
        for kind in present:
            part = cell.kinds[kind]
            wide = scale(part)
            text = f"{cell.network}, {KIND_TITLES[kind]}: {seconds(part)} ({percent(part / cell.online_s)})"
            if wide > 0.05:
                canvas.rect(x, y + 18, max(wide - 0.8, 0.4), 14, f"k-{kind}", tip=text)
            x += wide
        y += 44
    canvas.height = y
    return canvas


def _rows(cell: Cell) -> list[tuple[str, list[Site]]]:
    """Group parts by site in the order of execution; by stage where there are too many sites for one picture."""
    by_site: dict[str, list[Site]] = {}
    for site in cell.sites:
        by_site.setdefault(site.site or "elsewhere", []).append(site)
    if len(by_site) <= MAX_SITES:
        return list(by_site.items())
    by_stage: dict[str, list[Site]] = {}
    for site in cell.sites:
        by_stage.setdefault(site.stage or "elsewhere", []).append(site)
    return list(by_stage.items())


def profile(cell: Cell, width: float) -> Canvas:
    """Draw one network site by site: time stacked by kind and waiting, bytes and rounds beside it."""
    rows = _rows(cell)
    canvas = Canvas(width, 0)
    present = [kind for kind in KINDS if cell.kinds[kind] > 0]
    y = legend(canvas, kind_series(present), 12, swatch=True) + 24
    names = min(max(words_width(name, 11) for name, _ in rows) + 10, width * 0.36)
    right = width - 104
    canvas.text(0, y - 8, "site", size=11, role="muted")
    canvas.text(names, y - 8, "online time", size=11, role="muted")
    canvas.text(width - 44, y - 8, "sent", size=11, anchor="end", role="muted")
    canvas.text(width, y - 8, "rounds", size=11, anchor="end", role="muted")
    totals = [sum(s.compute_s + s.wait_s for s in sites) for _, sites in rows]
    scale = Scale(0.0, max(totals) or 1.0, 0.0, right - names - 8)
    for (name, sites), total in zip(rows, totals, strict=True):
        _profile_row(canvas, name, sites, total, y, names, scale)
        y += 18
    canvas.height = y + 4
    return canvas


def _profile_row(
    canvas: Canvas, name: str, sites: Sequence[Site], total: float, y: float, left: float, scale: Scale
) -> None:
    canvas.text(0, y + 11, _cut(name, left - 6), size=11)
    parts = dict.fromkeys(KINDS, 0.0)
    for site in sites:
        parts[site.kind if site.kind in parts else "other"] += site.compute_s
        parts["waiting"] += site.wait_s
    x = left
    for kind, part in parts.items():
        wide = scale(part)
        if wide > 0.05:
            text = f"{name}, {KIND_TITLES[kind]}: {seconds(part)} of {seconds(total)}"
            canvas.rect(x, y + 2, max(wide - 0.4, 0.3), 11, f"k-{kind}", tip=text)
        x += wide
    sent, rounds = sum(s.sent_bytes for s in sites), sum(s.rounds for s in sites)
    canvas.text(canvas.width - 44, y + 11, size(sent) if sent else "", size=11, anchor="end")
    canvas.text(canvas.width, y + 11, str(rounds) if rounds else "", size=11, anchor="end")


def _cut(text: str, room: float) -> str:
    if words_width(text, 11) <= room:
        return text
    while text and words_width(text + "…", 11) > room:
        text = text[:-1]
    return text + "…"
