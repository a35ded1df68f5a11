"""Which protocol, which answer: what ReLUs and multiply-accumulates cost in each, offline and online, in one table."""

from __future__ import annotations

from pibench.mpc.spec import found, spec_of
from pibench.numbers import seconds
from pibench.records.prices import Joint
from pibench.reporting.cells import Cell, Ladder
from pibench.reporting.page.tables import Entry, Table, table_of, words
from pibench.reporting.view import View, plane_of

COLUMNS = [
    ("Protocol", False), ("Trusts", False), ("Link", False), ("Online: 1,000 ReLUs", True), ("a million MACs", True),
    ("R²", True), ("Offline: 1,000 ReLUs", True), ("a million MACs", True), ("R²", True),
]  # fmt: skip
NOTE = (
    "A plane of seconds over ReLUs and multiply-accumulates, least squares over five networks or more of a setting; "
    "small print: the 95 % interval. Where it reaches below nothing, these networks do not tell the two apart. The "
    "network follows from the ratio: where ReLUs are dear and multiply-accumulates cheap, cut ReLUs; elsewhere cut "
    "channels."
)


def which_table(view: View) -> Table:
    """Return both prices in both phases for every setting that has the networks for it."""
    rows = []
    for ladder in view.ladders():
        offline = [cell for cell in ladder.cells if cell.offline]
        online = ladder.joint
        before = plane_of(offline, _offline_s)
        if online or before:
            rows.append((
                words(ladder.setting.protocol), words(_trust(ladder.cells[0])), words(_wire(ladder)),
                *_prices(online), *_prices(before),
            ))  # fmt: skip
    return table_of("which", "Which protocol, which answer", NOTE, COLUMNS, rows)


def _prices(plane: Joint | None) -> tuple[Entry, Entry, Entry]:
    if plane is None:
        return Entry(""), Entry(""), Entry("")
    return (
        _price(plane.relu_s, plane.relu_interval),
        _price(plane.mmac_s, plane.mmac_interval),
        Entry(f"{plane.r2:.3f}", plane.r2),
    )


def _price(value: float, interval: tuple[float, float]) -> Entry:
    low, high = interval
    return Entry(seconds(value), value, f"{seconds(low)} to {seconds(high)}")


def _offline_s(cell: Cell) -> float:
    assert cell.offline
    return cell.offline.seconds


def _trust(cell: Cell) -> str:
    """Return whom the protocol trusts, where it is known here."""
    name = cell.base_protocol
    return spec_of(name).arrangement(cell.options).trust.short if name in found() else ""


def _wire(ladder: Ladder) -> str:
    setting = ladder.setting
    return setting.link + (f", batch {setting.batch}" if setting.batch > 1 else "")
