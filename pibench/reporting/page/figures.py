"""The figures of a report: each with a title, a caption that states its setting, and words for the blind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pibench.numbers import digits, percent, seconds
from pibench.reporting.answer import Answer
from pibench.reporting.captions import bars, listed, setting_words
from pibench.reporting.cells import Cell, Ladder
from pibench.reporting.onpaper.costcheck import beyond
from pibench.reporting.onpaper.costmodel import WIRES, estimate
from pibench.reporting.onpaper.published import garbled, published_latencies
from pibench.reporting.page import draw_compare, draw_cost, draw_frontier, draw_papers
from pibench.reporting.page.canvas import Canvas, framed
from pibench.reporting.page.raster import save_picture
from pibench.reporting.page.theme import KIND_TITLES
from pibench.reporting.view import View
from pibench.reporting.whatif import Shift, shifts, workload_of_cell

WIDE, NARROW = 560.0, 350.0  # pixels: a column of the page, and a phone
COLUMNS = {"": 350.0, "-wide": 716.0}  # of a paper: 252 and 516 points, one column and two


@dataclass(frozen=True)
class Figure:
    """One figure; `draw` makes it for a width."""

    key: str
    title: str
    caption: str
    alt: str
    draw: Callable[[float], Canvas]
    takeaway: str = ""  # one sentence that says what to see

    def svg(self, width: float, suffix: str = "") -> str:
        """Return the drawing as SVG for a page, which brings colours and caption."""
        return self.draw(width).to_svg(f"{self.key}{suffix}", self.title, self.alt, standalone=False)

    def alone(self, width: float = WIDE) -> Canvas:
        """Return the drawing with its title and caption, for a file."""
        return framed(self.draw(width), self.title, self.caption)


def figures_of(view: View, answer: Answer) -> list[Figure]:
    """Return every figure for which the records hold data, in the order of the page."""
    ladder = answer.ladder
    made = [
        budget_figure(view, answer), *_frontier_figures(view, ladder), _price_figure(view, ladder),
        _attribution_figure(view, ladder), _profile_figure(view, ladder), _protocol_figure(view, ladder),
        _link_figure(view, ladder), _batch_figure(view, ladder), _phase_figure(view, ladder),
        _papers_figure(view, ladder), _paper_figure(view, ladder), _ranking_figure(view, ladder),
    ]  # fmt: skip
    return [figure for figure in made if figure]


def budget_figure(view: View, answer: Answer) -> Figure:
    """Return the first figure of a report."""
    ladder = answer.ladder
    fit = f" Dashed: fitted line, R² = {ladder.fit.r2:.2f}." if ladder.explains else ""
    ring = f" Ringed: {answer.chosen.network}." if answer.chosen and answer.chosen is not ladder.full else ""
    drawn = [c for c in ladder.cells if c.relu_count]  # the axis of ReLUs is logarithmic
    return Figure(
        "budget", "What a ReLU budget buys, and what it costs",
        f"{bars(drawn)}{fit}{ring} {setting_words(view, drawn)}.",
        "Accuracy and online latency over the number of ReLUs. " + _spoken(drawn),
        partial(draw_frontier.budget, ladder, answer.chosen),
    )  # fmt: skip


def _spoken(cells: Sequence[Cell]) -> str:
    """Return the points as a sentence."""
    rows = []
    for cell in cells[:12]:
        score = f"{cell.score.percent:.1f} %, " if cell.score else ""
        rows.append(f"{cell.network}: {cell.relu_count:,} ReLUs, {score}{seconds(cell.online_s)}")
    more = f"; and {len(cells) - 12} more" if len(cells) > 12 else ""
    return "; ".join(rows) + more + "."


def _frontier_figures(view: View, ladder: Ladder) -> list[Figure]:
    given = draw_frontier.published_points(ladder.cells)
    made = []
    for over, title in (("latency", "Accuracy over online latency"), ("relus", "Accuracy over ReLUs")):
        scored = [c for c in ladder.cells if c.score and (over == "latency" or c.relu_count)]
        published = [p for p in given if p.x_over(over)]
        if not scored and not published:
            continue  # an empty frame says nothing
        line = " The line joins networks that no other one beats in both." if over == "latency" else ""
        sources = listed(p.source for p in published)
        note = f" Hollow: published figures, other machines and protocols ({sources})." if published else ""
        made.append(
            Figure(
                f"frontier-{over}", title, f"{bars(scored)}{line}{note} {setting_words(view, scored)}.",
                f"{title}. {_spoken(scored)}{note}",
                partial(draw_frontier.frontier, scored, published, over),
            )
        )  # fmt: skip
    return made


def _price_figure(view: View, ladder: Ladder) -> Figure | None:
    if ladder.fit.n < 3:
        return None
    fit = ladder.fit
    low, high = (seconds(v) for v in fit.slope_interval)
    words = f"{seconds(fit.slope_s)} for 1,000 ReLUs (95 % interval {low} to {high}), R² = {fit.r2:.2f}, n = {fit.n}"
    return Figure(
        "price", "Online latency over ReLUs, with the fitted price",
        f"Least squares: {words} networks. {setting_words(view, ladder.cells)}.",
        f"Online latency over ReLUs on linear axes with a fitted line: {words} networks. {_spoken(ladder.cells)}",
        partial(draw_cost.price, ladder),
    )  # fmt: skip


def _attribution_figure(view: View, ladder: Ladder) -> Figure | None:
    cells = [c for c in ladder.cells if c.sites]
    if not cells:
        return None
    spoken = "; ".join(
        f"{c.network}: " + ", ".join(f"{k} {percent(v / c.online_s)}" for k, v in c.kinds.items() if v > 0)
        for c in cells[:12]
    )
    return Figure(
        "attribution", "Where the online time goes",
        "Computing by kind of operation, of the party that waits less; waiting for the wire or the peer apart. The "
        f"parts add up to the median. {setting_words(view, cells)}.",
        f"Stacked bars of online time by kind. {spoken}.", partial(draw_cost.attribution, cells),
        _most(ladder.full),
    )  # fmt: skip


def _most(cell: Cell) -> str:
    """Say where most of a network's time goes."""
    kinds = sorted(((v / cell.online_s, KIND_TITLES[k]) for k, v in cell.kinds.items() if v > 0), reverse=True)
    listed = ", ".join(f"{percent(share)} {name}" for share, name in kinds if share >= 0.005)
    return f"{cell.network} spends its {seconds(cell.online_s)} like this: {listed}."


def _profile_figure(view: View, ladder: Ladder) -> Figure | None:
    cell = ladder.full
    if len(cell.sites) < 3:
        return None
    top = sorted(cell.sites, key=lambda s: -(s.compute_s + s.wait_s))[:3]
    most = ", ".join(f"{s.site or 'elsewhere'} {percent((s.compute_s + s.wait_s) / cell.online_s)}" for s in top)
    return Figure(
        "profile", f"{cell.network}, site by site",
        "In the order of execution. Sent: bytes of the party that sends more there. Rounds: links in the chain of "
        f"dependent messages. {setting_words(view, [cell])}.",
        f"Online time, bytes and rounds of every site of {cell.network}. Dearest: {most}.",
        partial(draw_cost.profile, cell),
    )  # fmt: skip


def _same(view: View, ladder: Ladder, *, ignoring: str) -> list[Cell]:
    """Return usable cells that differ from the ladder's setting in one thing at most."""
    keep = [name for name in ("dataset", "protocol", "link", "device", "batch", "machine_key") if name != ignoring]
    return [
        c for c in view.cells if c.usable and all(getattr(c, k) == getattr(ladder.setting, k) for k in keep)
    ]  # fmt: skip


def _protocol_figure(view: View, ladder: Ladder) -> Figure | None:
    cells = _same(view, ladder, ignoring="protocol")
    if len({c.protocol for c in cells}) < 2:
        return None
    return Figure(
        "protocols", "Protocols compared",
        "plaintext has no secrecy: it is the price of harness and sockets. crypten makes its correlated randomness "
        f"online. {setting_words(view, cells)}.",
        "Online latency by network and protocol. " + _by(cells, "protocol"), partial(draw_compare.protocols, cells),
        _ratios(cells, ladder, "protocol"),
    )  # fmt: skip


def _ratios(cells: Sequence[Cell], ladder: Ladder, what: str) -> str:
    """Say how the full network fares elsewhere, as factors of the report's own setting."""
    here = ladder.full
    others = [c for c in cells if c.network == here.network and getattr(c, what) != getattr(here, what)]
    factors = [f"{_factor(c.online_s / here.online_s)} {_under(c, what)}" for c in others]
    if not factors:
        return ""
    return f"{here.network} takes {seconds(here.online_s)} {_under(here, what)}, {', '.join(factors)}."


def _under(cell: Cell, what: str) -> str:
    return f"over {cell.link}" if what == "link" else f"under {cell.protocol}"


def _factor(ratio: float) -> str:
    return "about as long" if 0.95 < ratio < 1.05 else f"{digits(ratio, 2)} times as long"


def _by(cells: Sequence[Cell], what: str) -> str:
    return "; ".join(f"{c.network}, {getattr(c, what)}: {seconds(c.online_s)}" for c in cells[:24]) + "."


def _link_figure(view: View, ladder: Ladder) -> Figure | None:
    setting = ladder.setting
    cells = [
        c for c in view.cells
        if c.usable and c.private_protocol and c.batch == setting.batch and c.dataset == setting.dataset
        and c.device == setting.device and c.machine_key == setting.machine_key
    ]  # fmt: skip
    linked = {(c.network, c.protocol, c.link) for c in cells}
    cells = [c for c in cells if sum((c.network, c.protocol) == pair[:2] for pair in linked) > 1]
    if not cells:
        return None
    if len({(c.network, c.protocol) for c in cells}) > 16:
        cells = [c for c in cells if c.protocol == setting.protocol]
    return Figure(
        "links", "Links compared", f"{setting_words(view, cells)}.",
        "Online latency by network, protocol and link. " + _by(cells, "link"), partial(draw_compare.links, cells),
        _ratios([c for c in cells if c.protocol == setting.protocol], ladder, "link"),
    )  # fmt: skip


def _batch_figure(view: View, ladder: Ladder) -> Figure | None:
    cells = _same(view, ladder, ignoring="batch")
    if len({c.batch for c in cells}) < 2:
        return None
    spoken = "; ".join(f"{c.network}, batch {c.batch}: {seconds(c.online_s / c.batch)} an image" for c in cells[:24])
    return Figure(
        "batches", "Batches compared", f"Online latency over the images of a batch. {setting_words(view, cells)}.",
        f"Online time of one image by network and batch. {spoken}.", partial(draw_compare.batches, cells),
    )  # fmt: skip


def _phase_figure(view: View, ladder: Ladder) -> Figure | None:
    cells = [c for c in ladder.cells if c.offline and c.offline.seconds > 0.01 * c.online_s]
    if not cells:
        return None
    spoken = "; ".join(
        f"{c.network}: {seconds(c.offline.seconds)} offline, {seconds(c.online_s)} online" for c in cells if c.offline
    )
    return Figure(
        "phases", "Offline beside online",
        "Offline: correlated randomness for one inference, made and delivered before the image is known. "
        f"{setting_words(view, cells)}.",
        f"Offline and online seconds by network. {spoken}.", partial(draw_compare.phases, cells),
    )  # fmt: skip


def _papers_figure(view: View, ladder: Ladder) -> Figure | None:
    """Return measured garbled circuits beside published ones, where a record has them."""
    here = replace(ladder.setting, protocol="")
    same = [other for other in view.ladders() if replace(other.setting, protocol="") == here]
    published = published_latencies(ladder.setting.dataset)
    if not published or not any(garbled(other.cells) for other in same):
        return None
    same = same[: len(draw_papers.MARKS)]
    return Figure(
        "papers", "What a ReLU costs, run and published",
        f"Filled: measured here. Hollow: published, other machines ({listed(row.source for row in published)}). "
        f"{setting_words(view, [c for other in same for c in other.cells])}.",
        "Online latency over ReLUs on logarithmic axes. " + " ".join(_spoken(other.cells) for other in same),
        partial(draw_papers.over_relus, same, published),
    )  # fmt: skip


def _paper_figure(view: View, ladder: Ladder) -> Figure | None:
    cells = [c for c in ladder.cells if c.relu_count and c.macs]
    if not cells or ladder.setting.batch != 1:
        return None
    systems = ("delphi",)
    beyond_range = [c for c in cells if beyond(workload_of_cell(c))]
    words = beyond(workload_of_cell(beyond_range[0])) if beyond_range else ""
    warning = f" For {len(beyond_range)} of {len(cells)} {words}." if words else ""
    return Figure(
        "paper", "Beside garbled circuits, on paper",
        "Hollow: DELPHI from published constants (another machine, an AMD EPYC 7502), computing alone, no wire; bars "
        f"are the ranges of its constants. Not measured here. Filled: {setting_words(view, cells)}.{warning}",
        "Online latency measured here beside DELPHI on paper. " + _spoken(cells),
        partial(draw_compare.paper, cells, systems), _paper_words(cells[0], ladder),
    )  # fmt: skip


def _paper_words(cell: Cell, ladder: Ladder) -> str:
    cost = estimate(workload_of_cell(cell), "delphi", WIRES["loopback"])
    return (
        f"DELPHI on paper: {seconds(cost.online.total_s)} online for {cell.network} after "
        f"{seconds(cost.offline.total_s)} offline; measured here under {ladder.setting.protocol}: "
        f"{seconds(cell.online_s)}."
    )


def _shift_words(rows: Sequence[Shift]) -> str:
    """Say what the smallest budget keeps, and who changes rank between garbled circuits and the WAN."""
    least = min(rows, key=lambda r: r.relu_count)
    kept = ", ".join(f"{percent(least.shares[name])} {words}" for name, words in SHIFT_WORDS.items())
    moved = [(r.network, _rank(rows, r, "garbled circuits"), _rank(rows, r, "WAN")) for r in rows]
    most = sorted((m for m in moved if m[1] != m[2]), key=lambda m: -abs(m[2] - m[1]))[:3]
    listed = ", ".join(f"{name} from {before} to {after}" for name, before, after in most)
    change = f" Rank by speed, from garbled circuits to the WAN: {listed}." if most else ""
    return f"{least.network} keeps {kept}.{change}"


SHIFT_WORDS = {
    "ReLUs": "of the ReLUs", "garbled circuits": "of the time with garbled circuits on paper",
    "local": "of it measured locally", "WAN": "over a WAN",
}  # fmt: skip


def _rank(rows: Sequence[Shift], row: Shift, column: str) -> int:
    return 1 + sum(other.shares[column] < row.shares[column] * 0.999 for other in rows)


def _ranking_figure(view: View, ladder: Ladder) -> Figure | None:
    rows = shifts(view, ladder)
    if not rows:
        return None
    spoken = "; ".join(
        f"{r.network}: " + ", ".join(f"{percent(share)} by {name}" for name, share in r.shares.items())
        for r in rows[:12]
    )
    wan = "predicted from bytes and rounds" if any(r.predicted for r in rows) else "measured"
    return Figure(
        "ranking", "What a ReLU budget saves, from garbled circuits to a WAN",
        f"Cost as a share of {ladder.full.network}'s: by ReLU count, with garbled circuits (DELPHI on paper), measured "
        f"locally, and over a WAN of 40 ms and 100 Mbit/s ({wan}). Removing whole ReLU layers removes rounds; masking "
        f"pixels keeps them. {setting_words(view, ladder.cells)}.",
        f"Cost left of {ladder.full.network}'s. {spoken}.", partial(draw_compare.ranking, rows),
        _shift_words(rows),
    )  # fmt: skip


def save_figures(figures: Iterable[Figure], folder: Path, *, paper: bool = False) -> list[Path]:
    """Write every figure as SVG, PDF and PNG; the same record gives the same bytes.

    `paper`: SVG and PDF for one column and for two, on white, without title and caption, labels of 8 points.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for figure in figures:
        forms = [(f"{figure.key}{ending}", figure.draw(width)) for ending, width in COLUMNS.items()] if paper else [
            (figure.key, figure.alone())
        ]  # fmt: skip
        for name, drawing in forms:
            svg = folder / f"{name}.svg"
            text = drawing.to_svg(figure.key, figure.title, figure.alt, standalone=True, white=paper)
            svg.write_text(text + "\n", encoding="utf-8")
            pictures = [svg.with_suffix(ending) for ending in ((".pdf",) if paper else (".pdf", ".png"))]
            for picture in pictures:
                save_picture(drawing, picture, white=paper)
            paths += [svg, *pictures]
    return paths
