"""The cost model against records: garbled circuits on paper beside protocols that ran, network by network.

The model's constants are other people's, so its seconds are not expected here. What is checked is its form: where one
factor carries all networks of a setting from paper to measurement, latency is made up as the model says (so much a
ReLU, a layer, a multiply-accumulate); where the factor spreads, it is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from pibench.reporting.cells import Cell, Ladder
from pibench.reporting.onpaper.costmodel import Wire, estimate
from pibench.reporting.whatif import workload_of_cell

SYSTEM = "delphi"  # the one on paper


@dataclass(frozen=True)
class Beside:
    """One network in one phase: seconds and bytes of both parties, on paper and measured."""

    network: str
    relu_count: int
    phase: str
    paper_s: float
    measured_s: float
    paper_bytes: float
    measured_bytes: float

    @property
    def factor(self) -> float:
        """How many times dearer it is on paper."""
        return self.paper_s / self.measured_s


@dataclass(frozen=True)
class Verdict:
    """One setting and phase: the factor from measurement to paper, of all its networks."""

    protocol: str
    link: str
    phase: str
    rows: tuple[Beside, ...]

    @property
    def factor(self) -> float:
        """The median factor."""
        return median(row.factor for row in self.rows)

    @property
    def spread(self) -> float:
        """The largest factor over the smallest: 1 where the model's form is that of what ran."""
        factors = [row.factor for row in self.rows]
        return max(factors) / min(factors)


def verdicts(ladders: Iterable[Ladder]) -> list[Verdict]:
    """Return what the model says of every setting's networks, online and offline, over the setting's own link."""
    made = []
    for ladder in ladders:
        for phase in ("online", "offline"):
            rows = tuple(row for cell in ladder.cells if (row := _beside(cell, phase)))
            if rows:
                made.append(Verdict(ladder.setting.protocol, ladder.setting.link, phase, rows))
    return made


def _beside(cell: Cell, phase: str) -> Beside | None:
    if cell.batch > 1 or not cell.relu_count:
        return None
    if phase == "online":
        measured_s, measured_bytes = cell.online_s, float((cell.server_bytes or 0) + (cell.client_bytes or 0))
    elif cell.offline and cell.offline.seconds:
        measured_s, measured_bytes = cell.offline.seconds, cell.offline.sent_bytes
    else:
        return None
    made = estimate(workload_of_cell(cell), SYSTEM, Wire(cell.link, cell.rtt_ms, cell.mbit_s, cell.mbit_s))
    paper = made.online if phase == "online" else made.offline
    return Beside(
        cell.network, cell.relu_count, phase, paper.total_s, measured_s, paper.down_bytes + paper.up_bytes,
        measured_bytes,
    )  # fmt: skip
