"""Measured beside published, as docs/papers.md has it: `python ci/papers.py RECORD... [--figure FILE.svg]`.

Prints the tables of the records' networks under garbled circuits and under tables: online, offline, bytes, the line of
latency over ReLUs beside that of the papers, what ReLUs and multiply-accumulates cost, and the model on paper beside
what ran. Every figure is derived from the records.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pibench.numbers import seconds, size
from pibench.records.files import open_record
from pibench.records.prices import fit_price
from pibench.reporting.cells import Ladder
from pibench.reporting.onpaper.published import LINE_OF, published_latencies, published_line
from pibench.reporting.onpaper.recordcheck import verdicts
from pibench.reporting.page.draw_papers import over_relus
from pibench.reporting.page.prices import COLUMNS, which_table
from pibench.reporting.view import View, view_of


def main() -> None:
    """Print the tables and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+")
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    view = view_of(open_record(name) for name in args.records)
    for ladder in view.ladders():
        print(_networks(ladder))
        print(_line(ladder), "\n")
    print(_prices(view), "\n")
    print(_on_paper(view), "\n")
    if args.figure:
        args.figure.write_text(_figure(view), "utf-8")


def _networks(ladder: Ladder) -> str:
    setting = ladder.setting
    rows = [f"{setting.protocol} over {setting.link}, {setting.threads} thread a party", ""]
    rows += ["| network | ReLUs | MACs | online | published | offline | bytes online | bytes offline | peak memory |"]
    rows += ["|---|---|---|---|---|---|---|---|---|"]
    for cell in ladder.cells:
        known = [f"{row['online_s']} s" for row in map(dict, cell.published) if row.get("online_s")]
        online = (cell.server_bytes or 0) + (cell.client_bytes or 0)
        offline = cell.offline
        rows.append(
            f"| {cell.network} | {cell.relu_count:,} | {cell.macs_run / 1e6:.0f} M | {seconds(cell.online_s)} | "
            f"{', '.join(known)} | {seconds(offline.seconds) if offline else ''} | {size(online)} | "
            f"{size(offline.sent_bytes) if offline else ''} | {size(cell.peak_rss_bytes or 0)} |"
        )
    return "\n".join(rows)


def _line(ladder: Ladder) -> str:
    """Return the line over ReLUs, with the R^2 of it, beside the papers' own."""
    fit = fit_price([c.relu_count for c in ladder.cells], [c.online_s for c in ladder.cells])
    paper = published_line()
    return (
        f"\nLine: {fit.slope_s * 1e3:.2f} µs a ReLU and {seconds(fit.intercept_s)}, R² = {fit.r2:.3f}; published: "
        f"{paper.slope_s * 1e3:.1f} µs a ReLU and {seconds(paper.intercept_s)} (the line through {LINE_OF})."
    )


def _prices(view: View) -> str:
    """Return the table "Which protocol, which answer", with its intervals."""
    table = which_table(view)
    rows = [[column for column, _ in COLUMNS], ["---"] * len(COLUMNS)]
    rows += [[entry.text + (f" ({entry.note})" if entry.note else "") for entry in row] for row in table.rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _on_paper(view: View) -> str:
    """Return how many times dearer the model on paper has every setting, and by how much that factor spreads."""
    rows = ["| | phase | on paper, over measured | from | to | spread |", "|---|---|---|---|---|---|"]
    for found in verdicts(view.ladders()):
        factors = [row.factor for row in found.rows]
        rows.append(
            f"| {found.protocol} over {found.link} | {found.phase} | {found.factor:.3g} | {min(factors):.3g} | "
            f"{max(factors):.3g} | {found.spread:.3g} |"
        )
    return "\n".join(rows)


def _figure(view: View) -> str:
    ladders = [ladder for ladder in view.ladders() if ladder.setting.link == "loopback"]
    published = published_latencies(ladders[0].setting.dataset)
    drawn = over_relus(ladders, published, 720)
    return drawn.to_svg("papers", "What a ReLU costs, run and published", "Online latency over ReLUs", standalone=True)


if __name__ == "__main__":
    main()
