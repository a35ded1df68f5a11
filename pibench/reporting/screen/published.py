"""Published beside measured, where garbled circuits ran: what the papers' sentence is on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from pibench.numbers import count, seconds
from pibench.records.prices import fit_price
from pibench.reporting.cells import Cell
from pibench.reporting.onpaper.published import LINE_OF, garbled, published_line, with_published
from pibench.reporting.screen.fitting import fitted, wrapped

LEAST_OF_A_LINE = 3


def published(cells: Sequence[Cell], width: int) -> list[str]:
    """Return the table of one setting's networks that have a published latency, and both lines over ReLUs."""
    rows = with_published(cells)
    lines = []
    if rows:
        columns = [
            (0, ["network", *(r.cell.network for r in rows)]),
            (2, ["ReLUs", *(count(r.cell.relu_count) for r in rows)]),
            (3, ["protocol", *(r.cell.protocol for r in rows)]),
            (0, ["published", *(seconds(r.online_s) for r in rows)]),
            (0, ["measured", *(seconds(r.cell.online_s) for r in rows)]),
            (1, ["published / measured", *(f"{r.factor:.1f}" for r in rows)]),
        ]
        lines += ["", "Published beside measured, online", *fitted(columns, width)[0]]
        sources = ", ".join(dict.fromkeys(r.source for r in rows if r.source))
        lines += wrapped(f"Published: {sources}; other machines.", width)
    return [*lines, *_over_relus(garbled(cells), width)]


def _over_relus(cells: Sequence[Cell], width: int) -> list[str]:
    """Return the line of latency over ReLUs beside the published one, protocol by protocol."""
    lines = []
    for protocol in dict.fromkeys(c.protocol for c in cells):
        here = [c for c in cells if c.protocol == protocol]
        fit = fit_price([c.relu_count for c in here], [c.online_s for c in here])
        if len(here) < LEAST_OF_A_LINE or not fit.slope_s > 0:
            continue
        paper = published_line()
        lines += wrapped(
            f"Online, {protocol}, {len(here)} networks: {seconds(fit.slope_s / 1e3)} a ReLU and "
            f"{seconds(fit.intercept_s)} (R² {fit.r2:.3f}); published: {seconds(paper.slope_s / 1e3)} a ReLU and "
            f"{seconds(paper.intercept_s)}, the line through {LINE_OF}.",
            width,
        )
    return lines
