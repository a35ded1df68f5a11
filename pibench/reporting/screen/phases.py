"""All phases side by side, where material is made without a third party: what a budget buys end to end."""

from __future__ import annotations

from collections.abc import Sequence

from pibench.numbers import count, percent, seconds, size
from pibench.reporting.cells import Cell
from pibench.reporting.endtoend import an_hour, cold_s, on_paper_mac_share, prices, sent_bytes, shown
from pibench.reporting.screen.fitting import MOST_ROWS, fitted, wrapped

MISSING = "-"
NOTES = {  # by the heading that they explain
    "cold": "Cold: all three, once.",
    "an hour": "An hour: inferences, offline and online in turn{overlap}.",
    "sent": "Sent: both phases, all parties.",
    "waits": "Waits: what a party holds of one inference between its phases, the larger.",
}
OVERLAP = "; *: measured, the next offline phase beside this online one"


def phases(cells: Sequence[Cell], width: int) -> list[str]:
    """Return the table of one setting's phases, and what offline costs; nothing where every case has a third party.

    Where it would be longer than a screen, a line says where it is.
    """
    rows = shown(cells)
    if not rows:
        return []
    if len(rows) > MOST_ROWS:
        return wrapped(f"Setup, offline and online of {len(rows)} cases: `pibench report` has the table", width)
    overlap = OVERLAP if any(c.sustained_s for c in rows) else ""
    columns = [
        (0, ["network", *(c.network for c in rows)]),
        (0, ["protocol", *(c.protocol for c in rows)]),
        (4, ["trust", *(c.trust or MISSING for c in rows)]),
        (0, ["setup", *(seconds(c.setup.seconds) for c in rows if c.setup)]),
        (0, ["offline", *(seconds(c.offline.seconds) for c in rows if c.offline)]),
        (0, ["online", *(seconds(c.online_s) for c in rows)]),
        (2, ["cold", *(seconds(cold_s(c)) for c in rows)]),
        (1, ["an hour", *(f"{count(round(an_hour(c)))}{'*' if c.sustained_s else ''}" for c in rows)]),
        (3, ["sent", *(size(sent_bytes(c)) for c in rows)]),
        (5, ["waits", *(size(max(c.held_bytes)) if c.held_bytes else MISSING for c in rows)]),
    ]  # fmt: skip
    if not any(c.held_bytes for c in rows):
        columns.pop()
    lines, left = fitted(columns, width)
    there = {column[0] for _, column in columns} - set(left)
    told = [text.format(overlap=overlap) for name, text in NOTES.items() if name in there]
    return ["", "End to end", *lines, *wrapped(" ".join(told), width), *_prices(rows, width)]


def _prices(cells: Sequence[Cell], width: int) -> list[str]:
    """Say what multiply-accumulates and ReLUs cost offline, protocol by protocol, where enough networks tell."""
    lines = []
    for price in prices(cells):
        plane, full = price.plane, price.cells[0]
        (relu_low, relu_high), (mac_low, mac_high) = plane.relu_interval, plane.mmac_interval
        lines += wrapped(
            f"Offline, {price.protocol}: 1,000 ReLUs cost {seconds(plane.relu_s)} (95 %: {seconds(relu_low)} to "
            f"{seconds(relu_high)}), a million multiply-accumulates {seconds(plane.mmac_s)} ({seconds(mac_low)} to "
            f"{seconds(mac_high)}); both explain {100 * plane.r2:.0f} %. Of {full.network}'s offline time "
            f"multiply-accumulates are {percent(price.mac_share(full))}; with the papers' encryption, on paper, "
            f"{percent(on_paper_mac_share(full))}.",
            width,
        )
    return lines
