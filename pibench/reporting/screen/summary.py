"""What a run ends with: the answer in a sentence, a table that fits 80 columns and 24 lines, and where the rest is.

A row a network, a column a protocol with whom it trusts, and whether the answers were right. A wider screen gets more
columns, a narrower one fewer, and none is ever cut.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from pibench.mpc.spec import order
from pibench.numbers import count, seconds, size
from pibench.records.record import Record
from pibench.reporting.answer import answer, main_ladder
from pibench.reporting.cells import Cell, Setting
from pibench.reporting.screen.details import place_of, where
from pibench.reporting.screen.fitting import MOST_ROWS, fitted, wrapped
from pibench.reporting.screen.phases import phases
from pibench.reporting.screen.published import published
from pibench.reporting.screen.throughput import throughput
from pibench.reporting.view import View, view_of

MISSING = "-"
MOST_TROUBLES = 3


def summary(record: Record, width: int) -> list[str]:
    """Return the lines that a run ends with, none wider than `width`."""
    view = view_of([record])
    ladder = main_ladder(view.ladders())
    lines = wrapped(_head(record), width)
    if ladder is None:
        return [*lines, "No case was measured.", *_troubles(view, width)]
    found = answer(view, ladder)
    words = [found.headline + ".", *found.sentences[1:2]]
    lines += ["", *(line for text in words for line in wrapped(text, width)), ""]
    place = place_of(ladder.setting)
    here = [c for c in view.cells if place_of(c.setting) == place]
    told = {place: here} | _of_other_data(view, place, MOST_ROWS - len({c.network for c in here}))
    for setting, cells in told.items():
        lines += [*wrapped(f"Online latency: {where(setting)}", width), *_table(cells, record, width)]
    lines += [*phases(here, width), *published(here, width), *throughput(view.cells, ladder.setting, width)]
    return [*lines, *_elsewhere(view, told, width), *_troubles(view, width)]


def _head(record: Record) -> str:
    unfinished = "" if record.finished else "  NOT FINISHED"
    return f"{record.suite.name}  {record.created_utc}  {record.machine.cores} x {record.machine.cpu}{unfinished}"


def _table(cells: Sequence[Cell], record: Record, width: int) -> list[str]:
    """Return the table: least important columns to the right of a private protocol's latency go first."""
    protocols = sorted({c.protocol for c in cells}, key=order)
    trust = {c.protocol: _trust(record, c.case_id) for c in cells}
    at = {(c.network, c.protocol): c for c in cells}
    networks = sorted({c.network: c for c in cells}.values(), key=lambda c: (-c.relu_count, -c.macs))
    # a line that says that one is left out would take as much room as its row
    shown = networks if len(networks) == MOST_ROWS + 1 else networks[:MOST_ROWS]
    counts = [count(c.relu_count) if c.macs else MISSING for c in shown]
    columns: list[tuple[int, list[str]]] = [  # importance (0 stays), heading, whom it trusts, values
        (0, ["network", "", *(c.network for c in shown)]),
        (0, ["ReLUs", "trust:" if any(trust.values()) else "", *counts]),
        (0, ["accuracy", "", *(_accuracy(at, c.network) for c in shown)]),
    ]
    for place, name in enumerate(protocols):
        column = [name, trust[name], *(_latency(at.get((c.network, name))) for c in shown)]
        columns.append((0 if place < 2 else place, column))
    columns.append((0, ["valid", "", *(_valid(at, c.network, protocols) for c in shown)]))
    first = next((name for name in protocols if _private(cells, name)), protocols[0])
    for index, (title, value) in enumerate((("rounds", _rounds), ("sent both ways", _sent), ("offline", _offline))):
        columns.append((20 + index, [title, f"of {first}", *(value(at.get((c.network, first))) for c in shown)]))
    lines, left = fitted(columns, width)
    more = [f"and {len(networks) - len(shown)} more networks"] if len(networks) > len(shown) else []
    hidden = [name for name in left if name in protocols]
    more += [f"not shown in {width} columns: {', '.join(hidden)}"] if hidden else []
    return [*lines, *(line for text in more for line in wrapped(text, width))]


def _private(cells: Sequence[Cell], protocol: str) -> bool:
    """Whether a protocol among cells keeps anything secret."""
    return any(c.protocol == protocol and c.private_protocol for c in cells)


def _trust(record: Record, case_id: str) -> str:
    case = record.case(case_id)
    return case.trust.short if case.trust else ""


def _accuracy(at: dict[tuple[str, str], Cell], network: str) -> str:
    scores = [c.score for (name, _), c in at.items() if name == network and c.score]
    return f"{max(scores, key=lambda s: s.n).percent:.1f} %" if scores else MISSING


def _latency(cell: Cell | None) -> str:
    if cell is None:
        return MISSING
    return seconds(cell.online_s) if cell.usable else cell.status.upper()


def _valid(at: dict[tuple[str, str], Cell], network: str, protocols: Sequence[str]) -> str:
    states = [c.status for name in protocols if (c := at.get((network, name)))]
    right = sum(status == "done" for status in states)
    return "yes" if right == len(states) else "NO" if not right else f"{right} of {len(states)}"


def _rounds(cell: Cell | None) -> str:
    return MISSING if cell is None or cell.rounds is None else str(cell.rounds)


def _sent(cell: Cell | None) -> str:
    if cell is None or cell.server_bytes is None or cell.client_bytes is None:
        return MISSING
    return size(cell.server_bytes + cell.client_bytes)


def _offline(cell: Cell | None) -> str:
    return MISSING if cell is None or cell.offline is None else seconds(cell.offline.seconds)


def _of_other_data(view: View, place: Setting, room: int) -> dict[Setting, list[Cell]]:
    """Return the cells of settings that differ in the data set alone, while there is room for their networks."""
    found: dict[Setting, list[Cell]] = {}
    for cell in view.cells:
        other = place_of(cell.setting)
        if other != place and replace(other, dataset=place.dataset) == place:
            found.setdefault(other, []).append(cell)
    return found if sum(len({c.network for c in cells}) for cells in found.values()) <= room else {}


def _elsewhere(view: View, told: Collection[Setting], width: int) -> list[str]:
    """Name the settings that the tables leave out."""
    others = dict.fromkeys(where(place_of(c.setting)) for c in view.cells if place_of(c.setting) not in told)
    return wrapped(f"Measured too: {'; '.join(others)}", width) if others else []


def _troubles(view: View, width: int) -> list[str]:
    """Say what went wrong, case by case, the first few."""
    bad = [c for c in view.cells if c.status != "done"]
    lines = []
    for cell in bad[:MOST_TROUBLES]:
        why = (cell.error or "no reason is recorded").splitlines()[0]
        lines += wrapped(f"{cell.case_id}: {cell.status.upper()}: {why}", width)
    return [*lines, *([f"and {len(bad) - MOST_TROUBLES} more"] if len(bad) > MOST_TROUBLES else [])]
