"""What if: the most accurate network that makes a deadline on a link, and how rankings move from system to system.

Measured values are used where a record has them. Where it has none for a link, the loopback measurement is carried
over by the arithmetic of run/predict.py (bytes over the rate, one ways of a round) and marked as predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pibench.errors import UsageError
from pibench.mpc.spec import found
from pibench.registry import written_link
from pibench.reporting.cells import Cell, Ladder, Setting
from pibench.reporting.onpaper.costmodel import WIRES, Wire, Workload, estimate
from pibench.reporting.view import View


@dataclass(frozen=True)
class Option:
    """One way to answer: a network under a protocol over the link in question."""

    network: str
    method: str
    dataset: str | None
    relu_count: int
    percent: float | None
    n: int
    system: str
    online_s: float
    basis: str  # measured | predicted | on paper
    batch: int = 1


def wire_named(text: str) -> Wire:
    """Return a link of the cost model by name, or one written as `40ms,100mbit`."""
    if text in WIRES:
        return WIRES[text]
    written = written_link(text)
    if written is None:
        remedy = f"choose one of {', '.join(WIRES)}, or write round trip and rate as 40ms,100mbit"
        raise UsageError(f"no link is named {text!r}", remedy=remedy)
    rtt_ms, rate = written
    if rate <= 0:
        raise UsageError(f"the link {text!r} carries nothing", remedy="give a rate above 0 mbit")
    return Wire(text, rtt_ms, rate, rate)


def predicted_s(cell: Cell, wire: Wire) -> float | None:
    """Return a loopback measurement carried over to a link; None where the cell does not lend itself."""
    if not cell.usable or cell.rtt_ms or cell.mbit_s or cell.sent_bytes is None or cell.rounds is None:
        return None
    if cell.base_protocol not in found():  # a record from elsewhere: how its messages go is not known here
        return None
    from pibench.mpc.protocol import Cost
    from pibench.run.predict import wire_seconds  # brings torch, for which no other part of a report waits

    sent = Cost(rounds=cell.rounds, server_bytes=cell.server_bytes or 0, client_bytes=cell.client_bytes or 0)
    latency_s, transfer_s = wire_seconds(
        sent, cell.base_protocol, wire.rtt_ms, wire.down_mbit_s, cell.options, up_mbit_s=wire.up_mbit_s
    )
    return cell.online_s + latency_s + transfer_s


def workload_of_cell(cell: Cell) -> Workload:
    """Return what a system on paper would have to do for the network of a cell."""
    layers = cell.linear_layers or cell.relu_rounds + 1
    return Workload(cell.network, cell.relu_count, cell.macs, cell.relu_rounds, layers)


def options(view: View, wire: Wire, *, systems: Iterable[str] = ()) -> list[Option]:
    """Return every network of the records as it is, or would be, over the link; fastest first."""
    found: dict[tuple[str, str, str | None, int], Option] = {}
    for cell in view.cells:
        made = _option(cell, wire)
        key = (cell.network, cell.protocol, cell.device, cell.batch)
        if made and (key not in found or made.basis == "measured"):
            found[key] = made
    on_paper = [_paper(cell, system, wire) for cell in networks_of(view.cells) for system in systems]
    return sorted([*found.values(), *on_paper], key=lambda option: option.online_s)


def of_setting(found: Iterable[Option], setting: Setting) -> list[Option]:
    """Return the options for a setting's data set and batch; systems on paper answer one image at a time."""
    return [o for o in found if o.dataset == setting.dataset and o.batch == setting.batch]


def networks_of(cells: Iterable[Cell]) -> list[Cell]:
    """Return one cell a network, in order of appearance."""
    return list({(cell.network, cell.dataset): cell for cell in reversed(list(cells))}.values())[::-1]


def _option(cell: Cell, wire: Wire) -> Option | None:
    if not cell.usable or not cell.private_protocol:
        return None
    measured = cell.link == wire.name
    online = cell.online_s if measured else predicted_s(cell, wire)
    if online is None:
        return None
    return _named(cell, cell.protocol, online, "measured" if measured else "predicted")


def _paper(cell: Cell, system: str, wire: Wire) -> Option:
    online = estimate(workload_of_cell(cell), system, wire).online.total_s
    return _named(cell, system, online, "on paper")


def _named(cell: Cell, system: str, online_s: float, basis: str) -> Option:
    score = cell.score
    batch = cell.batch if basis != "on paper" else 1
    return Option(
        cell.network, cell.method, cell.dataset, cell.relu_count, score.percent if score else None,
        score.n if score else 0, system, online_s, basis, batch,
    )  # fmt: skip


def best_within(found: Sequence[Option], deadline_s: float) -> Option | None:
    """Return the most accurate option that makes the deadline; of equal ones the fastest."""
    in_time = [o for o in found if o.online_s <= deadline_s and o.percent is not None]
    return max(in_time, key=lambda o: (o.percent or 0.0, -o.online_s), default=None)


@dataclass(frozen=True)
class Shift:
    """What of the full network's cost is left to a reduced one, by each way of counting (1: nothing saved)."""

    network: str
    method: str
    relu_count: int
    shares: dict[str, float]
    predicted: bool


SHIFT_COLUMNS = ("ReLUs", "garbled circuits", "local", "WAN")


def shifts(view: View, ladder: Ladder) -> list[Shift]:
    """Return how the saving shrinks from ReLU count over garbled circuits (on paper) to shares, local and WAN.

    Empty where the ladder was not measured on a local link, or no other network than the full one was.
    """
    wan = WIRES["wan"]
    full, rows = ladder.full, []
    if full.rtt_ms or not full.relu_count or len(ladder.cells) < 2:
        return []
    far_full, predicted_full = _far(view, full, wan)
    for cell in ladder.cells:
        far, predicted = _far(view, cell, wan)
        if far is None or far_full is None:
            continue
        shares = {
            "ReLUs": cell.relu_count / full.relu_count,
            "garbled circuits": _gc(cell) / _gc(full),
            "local": cell.online_s / full.online_s,
            "WAN": far / far_full,
        }
        rows.append(Shift(cell.network, cell.method, cell.relu_count, shares, predicted or predicted_full))
    return rows if len(rows) > 1 else []


def _gc(cell: Cell) -> float:
    return estimate(workload_of_cell(cell), "delphi", WIRES["loopback"]).online.total_s


def _far(view: View, cell: Cell, wire: Wire) -> tuple[float | None, bool]:
    """Return the latency over a link and whether it is predicted."""
    for other in view.cells:
        same = (other.network, other.protocol, other.device, other.batch, other.machine_key)
        wanted = (cell.network, cell.protocol, cell.device, cell.batch, cell.machine_key)
        if other.usable and other.link == wire.name and same == wanted:
            return other.online_s, False
    return predicted_s(cell, wire), True
