"""All phases side by side, where material is made without a third party: what a budget buys end to end.

Cold: setup, offline and online of the first inference on a new connection. An hour: inferences at a steady rate with
one session, offline and online one after the other. Offline's price is fitted over networks as the online price is.
"""

from __future__ import annotations

from collections.abc import Sequence

from pibench.mpc.spec import order
from pibench.numbers import count, seconds, size
from pibench.records.record import Record
from pibench.reporting.cells import Cell
from pibench.reporting.screen.fitting import fitted, wrapped
from pibench.reporting.view import plane_of

ALONE = "none"  # `Trust.short` of a protocol that needs nobody
MISSING = "-"


def phases(record: Record, cells: Sequence[Cell], width: int) -> list[str]:
    """Return the table of one setting's phases, and what offline costs; nothing where every case has a third party."""
    trust = {c.protocol: case.trust.short for c in cells if (case := record.case(c.case_id)).trust}
    shown = [c for c in cells if c.usable and c.private_protocol and c.offline and c.setup]
    if ALONE not in trust.values() or not shown:
        return []
    shown.sort(key=lambda c: (-c.relu_count, -c.macs, c.network, order(c.protocol)))
    columns = [
        (0, ["network", *(c.network for c in shown)]),
        (0, ["protocol", *(c.protocol for c in shown)]),
        (3, ["trust", *(trust.get(c.protocol, MISSING) for c in shown)]),
        (0, ["setup", *(seconds(c.setup.seconds) for c in shown if c.setup)]),
        (0, ["offline", *(seconds(c.offline.seconds) for c in shown if c.offline)]),
        (0, ["online", *(seconds(c.online_s) for c in shown)]),
        (0, ["cold", *(seconds(cold_s(c)) for c in shown)]),
        (1, ["an hour", *(count(round(3600 * c.batch / steady_s(c))) for c in shown)]),
        (2, ["sent", *(size(c.offline.sent_bytes + (c.server_bytes or 0) + (c.client_bytes or 0))
                       for c in shown if c.offline)]),
    ]  # fmt: skip
    lines, _ = fitted(columns, width)
    note = "Cold: all three, once. An hour: inferences, offline and online in turn. Sent: both phases, all parties."
    return ["", "End to end", *lines, *wrapped(note, width), *_price(shown, trust, width)]


def cold_s(cell: Cell) -> float:
    """Return the seconds of a first inference (a batch) on a new connection."""
    return (cell.setup.seconds if cell.setup else 0.0) + steady_s(cell)


def steady_s(cell: Cell) -> float:
    """Return the seconds of every further one: the slower party's offline time, and online."""
    return (cell.offline.seconds if cell.offline else 0.0) + cell.online_s


def _price(cells: Sequence[Cell], trust: dict[str, str], width: int) -> list[str]:
    """Say what multiply-accumulates and ReLUs cost offline, protocol by protocol, where enough networks tell."""
    lines = []
    for protocol in sorted({c.protocol for c in cells if trust.get(c.protocol) == ALONE}, key=order):
        plane = plane_of([c for c in cells if c.protocol == protocol], offline_s)
        if plane is None:
            continue
        (relu_low, relu_high), (mac_low, mac_high) = plane.relu_interval, plane.mmac_interval
        lines += wrapped(
            f"Offline, {protocol}: 1,000 ReLUs cost {seconds(plane.relu_s)} (95 %: {seconds(relu_low)} to "
            f"{seconds(relu_high)}), a million multiply-accumulates {seconds(plane.mmac_s)} ({seconds(mac_low)} to "
            f"{seconds(mac_high)}); both explain {100 * plane.r2:.0f} %.",
            width,
        )
    return lines


def offline_s(cell: Cell) -> float:
    """Return the slower party's offline seconds of a batch."""
    return cell.offline.seconds if cell.offline else 0.0
