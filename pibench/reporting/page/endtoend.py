"""The page's part on all phases together: a table, what offline work costs, and what papers' constants say of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pibench.numbers import percent, seconds
from pibench.records.prices import Joint
from pibench.reporting.captions import setting_words
from pibench.reporting.cells import Cell, Ladder
from pibench.reporting.endtoend import (
    Price,
    an_hour,
    beside,
    cold_s,
    offline_s,
    on_paper_mac_share,
    on_paper_s,
    prices,
    sent_bytes,
    shown,
)
from pibench.reporting.page.draw_endtoend import offline_price
from pibench.reporting.page.figures import Figure
from pibench.reporting.page.tables import Entry, Table, amount, duration, table_of, words
from pibench.reporting.view import View

COLUMNS = [
    ("Network", False), ("ReLUs", True), ("Protocol", False), ("Trusts", False), ("Setup", True), ("Offline", True),
    ("Online", True), ("Cold", True), ("An hour", True), ("Sent", True), ("Waits", True),
]  # fmt: skip
NOTE = (
    "Cold: a first inference on a new connection, all three phases. An hour: images at a steady rate; measured where "
    "the next offline phase ran beside the online phase, else offline and online in turn. Sent: all parties, both "
    "phases."
)
HELD = " Waits: what a party holds of one inference between its phases, the larger of the two."


def endtoend_table(view: View, ladder: Ladder) -> Table:
    """Return all phases of the networks of a setting, under every protocol."""
    rows, cells = [], shown(beside(view.cells, ladder.setting))
    held = any(cell.held_bytes for cell in cells)  # else nothing is known of what waits
    for cell in cells:
        rate = an_hour(cell)
        rows.append((
            words(cell.network), Entry(f"{cell.relu_count:,}", cell.relu_count), words(cell.protocol),
            words(cell.trust), duration(cell.setup.seconds if cell.setup else None), duration(offline_s(cell)),
            duration(cell.online_s), duration(cold_s(cell)),
            Entry(f"{round(rate):,}", rate, "measured" if cell.sustained_s else "in turn"), amount(sent_bytes(cell)),
            *([amount(max(cell.held_bytes) if cell.held_bytes else None)] if held else []),
        ))  # fmt: skip
    return table_of(
        "endtoend", "All phases together", NOTE + (HELD if held else ""), COLUMNS if held else COLUMNS[:-1], rows
    )


def offline_table(view: View, ladder: Ladder) -> Table:
    """Return both prices of offline work as fitted, beside the same networks under the papers' system on paper."""
    columns = [
        ("", False), ("1,000 ReLUs", True), ("a million MACs", True), ("R²", True), ("full network", True),
        ("of it MACs", True), ("of it ReLUs", True),
    ]  # fmt: skip
    rows = []
    for price in prices(beside(view.cells, ladder.setting)):
        full = price.cells[0]
        rows.append((
            words(f"measured: {price.protocol}"), *_prices(price.plane), duration(offline_s(full)),
            _share(price.mac_share(full)), _share(price.relu_share(full)),
        ))  # fmt: skip
        if price.on_paper is not None:
            macs = on_paper_mac_share(full)
            rows.append((
                words("on paper: DELPHI"), duration(price.on_paper.relu_s), duration(price.on_paper.mmac_s),
                Entry(""), duration(on_paper_s(full)), _share(macs),
                _share(1 - macs),
            ))  # fmt: skip
    note = (
        "Measured: a plane over the networks of this setting, least squares; small print: the 95 % interval. On paper: "
        "the same networks by published constants of another machine, wire apart; encryption is paid by "
        "multiply-accumulates, garbling by ReLUs. The claim that fewer FLOPs make a cheaper offline phase holds as far "
        "as the share of MACs goes."
    )
    return table_of("offline", "What offline work costs", note, columns, rows)


def _prices(plane: Joint) -> tuple[Entry, Entry, Entry]:
    return (
        duration(plane.relu_s, *plane.relu_interval),
        duration(plane.mmac_s, *plane.mmac_interval),
        Entry(f"{plane.r2:.3f}", plane.r2),
    )


def _share(share: float) -> Entry:
    return Entry(percent(share), share)


def offline_figures(view: View, ladder: Ladder) -> list[Figure]:
    """Return the picture of the first protocol that needs nobody and has networks enough."""
    found = prices(beside(view.cells, ladder.setting))[:1]
    return [_figure(view, price) for price in found]


def _figure(view: View, price: Price) -> Figure:
    plane, full = price.plane, price.cells[0]
    (relu_low, relu_high), (mac_low, mac_high) = plane.relu_interval, plane.mmac_interval
    said = (
        f"1,000 ReLUs cost {seconds(plane.relu_s)} ({seconds(relu_low)} to {seconds(relu_high)}), a million "
        f"multiply-accumulates {seconds(plane.mmac_s)} ({seconds(mac_low)} to {seconds(mac_high)}), R² = {plane.r2:.2f}"
    )
    return Figure(
        "offline-price", "What ReLUs and multiply-accumulates cost offline",
        f"Offline time of one inference without a third party, less what the fitted plane gives to the other count; "
        f"dashed: the plane. {said}; 95 % intervals. {setting_words(view, price.cells)}.",
        f"Two frames of offline seconds, over ReLUs and over multiply-accumulates. {said}. {_spoken(price.cells)}",
        partial(offline_price, price), _compared(price, full.network),
    )  # fmt: skip


def _compared(price: Price, name: str) -> str:
    full = price.cells[0]
    return (
        f"Of {name}'s {seconds(offline_s(full))} offline, multiply-accumulates are {percent(price.mac_share(full))} "
        f"and ReLUs {percent(price.relu_share(full))}; by the papers' own constants encryption would be "
        f"{percent(on_paper_mac_share(full))} of {seconds(on_paper_s(full))}."
    )


def _spoken(cells: Sequence[Cell]) -> str:
    return "; ".join(f"{c.network}: {seconds(offline_s(c))}" for c in cells[:12]) + "."
