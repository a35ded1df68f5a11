"""End to end: setup, offline and online together, what a rate is, and what ReLUs and multiplications cost offline.

The screen and the page show the same figures of it. Where no third party makes the randomness, offline time is a price
of the network: a plane over both counts says which of them it is paid for, beside what the papers' own cost structure
(garbled circuits, encryption with rotations: on paper, other people's constants) says of the same networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pibench.mpc.spec import order
from pibench.records.prices import Joint
from pibench.reporting.cells import Cell, Setting
from pibench.reporting.onpaper.costmodel import WIRES, estimate
from pibench.reporting.view import plane_of
from pibench.reporting.whatif import workload_of_cell

ALONE = "none"  # `Trust.short` of a protocol that needs nobody
PAPER = "delphi"  # the system on paper that the claims of the ReLU literature are about


def shown(cells: Iterable[Cell]) -> list[Cell]:
    """Return one setting's cells that have all phases, most ReLUs first; none where all have a third party."""
    found = [c for c in cells if c.usable and c.private_protocol and c.offline and c.setup]
    found.sort(key=lambda c: (-c.relu_count, -c.macs, c.network, order(c.protocol)))
    return found if any(c.trust == ALONE for c in found) else []


def beside(cells: Iterable[Cell], setting: Setting, *, any_batch: bool = False) -> list[Cell]:
    """Return the cells of a setting, whatever their protocol, and, if asked, whatever their batch."""
    names = ("dataset", "link", "device", "threads", "machine_key", *(() if any_batch else ("batch",)))
    return [c for c in cells if all(getattr(c, name) == getattr(setting, name) for name in names)]


def offline_s(cell: Cell) -> float:
    """Return the slower party's offline seconds of a batch."""
    return cell.offline.seconds if cell.offline else 0.0


def cold_s(cell: Cell) -> float:
    """Return the seconds of a first inference (a batch) on a new connection."""
    return (cell.setup.seconds if cell.setup else 0.0) + offline_s(cell) + cell.online_s


def steady_s(cell: Cell) -> float:
    """Return the seconds of every further one: as measured where phases overlapped, else one after the other."""
    return cell.sustained_s if cell.sustained_s is not None else offline_s(cell) + cell.online_s


def an_hour(cell: Cell) -> float:
    """Return the inferences (images) of an hour at that rate."""
    return 3600 * cell.batch / steady_s(cell)


def sent_bytes(cell: Cell) -> float:
    """Return what all parties send offline and online for a batch."""
    offline = cell.offline.sent_bytes if cell.offline else 0.0
    return offline + (cell.server_bytes or 0) + (cell.client_bytes or 0)


@dataclass(frozen=True)
class Price:
    """What offline work of one protocol costs, fitted over a setting's networks, beside the same networks on paper."""

    protocol: str
    cells: tuple[Cell, ...]
    plane: Joint
    intercept_s: float
    on_paper: Joint | None

    def relu_s(self, cell: Cell) -> float:
        """Return the seconds of a network's ReLUs by the plane."""
        return self.plane.relu_s * cell.relu_count * cell.batch / 1e3

    def mac_s(self, cell: Cell) -> float:
        """Return the seconds of a network's multiply-accumulates by the plane."""
        return self.plane.mmac_s * cell.macs_run * cell.batch / 1e6

    def relu_share(self, cell: Cell) -> float:
        """Return the share of a network's measured offline time that the plane gives to its ReLUs."""
        return self.relu_s(cell) / offline_s(cell)

    def mac_share(self, cell: Cell) -> float:
        """Return the share of a network's measured offline time that the plane gives to its multiply-accumulates."""
        return self.mac_s(cell) / offline_s(cell)


def on_paper_s(cell: Cell) -> float:
    """Return the offline seconds, wire apart, of a network under the papers' system, by its published constants."""
    return cell.batch * estimate(workload_of_cell(cell), PAPER, WIRES["loopback"]).offline.total_s


def on_paper_mac_share(cell: Cell) -> float:
    """Return the share of encryption, which is paid by multiply-accumulates, in that time."""
    cost = estimate(workload_of_cell(cell), PAPER, WIRES["loopback"])
    spent = {s.what: s.server_s + s.client_s for s in cost.steps if s.phase == "offline"}
    return sum(v for k, v in spent.items() if k.startswith("HE")) / sum(spent.values())


def prices(cells: Sequence[Cell]) -> list[Price]:
    """Return the offline prices of the protocols among one setting's cells that need nobody, where networks tell."""
    made = []
    alone = [c for c in cells if c.trust == ALONE and c.sustained_s is None]  # a core of its own for each party
    for protocol in sorted({c.protocol for c in alone}, key=order):
        here = tuple(c for c in alone if c.protocol == protocol)
        plane = plane_of(here, offline_s)
        if plane is not None:
            found = Price(protocol, here, plane, 0.0, plane_of(here, on_paper_s))
            rest = sum(offline_s(c) - found.relu_s(c) - found.mac_s(c) for c in here) / len(here)
            made.append(Price(protocol, here, plane, rest, found.on_paper))
    return made
