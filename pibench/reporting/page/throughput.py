"""Images a second by batch size, as a table of the page."""

from __future__ import annotations

from pibench.numbers import digits
from pibench.reporting.cells import Ladder
from pibench.reporting.page.tables import Entry, Table, amount, count, duration, table_of, words
from pibench.reporting.throughput import rates
from pibench.reporting.view import View

COLUMNS = [
    ("Network", False), ("ReLUs", True), ("Protocol", False), ("Batch", True), ("Images a second", True),
    ("Gain", True), ("Online, a batch", True), ("Offline, an image", True), ("Memory", True),
]  # fmt: skip
NOTE = (
    "Online, one batch after another. Gain: over the smallest batch of the same network and protocol. Offline: of the "
    "slower party; it sets the rate where no material is in stock. Memory: of the party that held most."
)


def throughput_table(view: View, ladder: Ladder) -> Table:
    """Return the rates at a ladder's place; no rows where there is one batch size alone."""
    rows = [
        (
            words(rate.cell.network), count(rate.cell.relu_count), words(rate.cell.protocol), count(rate.cell.batch),
            Entry(digits(rate.images_s), rate.images_s), Entry(f"{rate.gain:.2f}", rate.gain),
            duration(rate.cell.online_s), duration(rate.offline_s), amount(rate.cell.peak_rss_bytes),
        )
        for rate in rates(view.cells, ladder.setting)
    ]  # fmt: skip
    return table_of("throughput", "Throughput by batch", NOTE, COLUMNS, rows)
