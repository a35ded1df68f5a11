"""Published online latencies of garbled ReLUs, for what ran here: by network, and as a line over ReLUs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pibench.records.prices import Fit, fit_price
from pibench.reporting.cells import Cell
from pibench.reporting.onpaper.costcheck import PUBLISHED, Published

GARBLED = "delphi"
LINE_OF = "DeepReDuce's two points"


@dataclass(frozen=True)
class Beside:
    """A network that ran under garbled circuits, and what was published of it on another machine."""

    cell: Cell
    online_s: float
    source: str

    @property
    def factor(self) -> float:
        """How many times as long the published latency is as the measured one."""
        return self.online_s / self.cell.online_s


def published_latencies(dataset: str | None) -> list[Published]:
    """Return what papers say of networks for this data set that the model on paper was not fitted to."""
    named = {"cifar100": "CIFAR-100", "tinyimagenet": "TinyImageNet"}.get(dataset or "", "-")
    return [row for row in PUBLISHED if row.role == "check" and row.load.name.endswith(named)]


def published_line() -> Fit:
    """Return the line through DeepReDuce's two points on CIFAR-100: 19.2 us a ReLU and 0.21 s."""
    rows = [row for row in published_latencies("cifar100") if row.load.name.startswith("DeepReDuce")]
    return fit_price([row.load.relu_count for row in rows], [row.online_s for row in rows])


def garbled(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells whose ReLUs ran in garbled circuits, and ended well."""
    return [c for c in cells if c.base_protocol == GARBLED and c.usable]


def with_published(cells: Sequence[Cell]) -> list[Beside]:
    """Return the networks among cells that ran garbled and of which a latency was published, most ReLUs first."""
    rows = [
        Beside(cell, float(row["online_s"]), str(row.get("source") or ""))
        for cell in garbled(cells)
        for row in cell.published
        if row.get("online_s")
    ]
    return sorted(rows, key=lambda row: -row.cell.relu_count)
