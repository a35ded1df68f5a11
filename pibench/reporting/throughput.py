"""Throughput: images a second online by batch size, beside the smallest batch of the same network and protocol.

The screen and the page show the same figures of it. A batch's online phase is divided by its images: one batch after
another, nothing overlapped; what the offline phase of an image takes stands beside it, for it sets the rate where no
material is in stock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pibench.mpc.spec import order
from pibench.reporting.cells import Cell, Setting
from pibench.reporting.endtoend import beside


@dataclass(frozen=True)
class Rate:
    """One network under one protocol at one batch size, and the smallest batch that it was measured at."""

    cell: Cell
    least: Cell

    @property
    def images_s(self) -> float:
        """Images a second of the online phase, one batch after another."""
        return self.cell.batch / self.cell.online_s

    @property
    def gain(self) -> float:
        """How many times as many images a second as at the smallest batch."""
        return self.images_s / (self.least.batch / self.least.online_s)

    @property
    def offline_s(self) -> float | None:
        """Offline seconds of the slower party for one image; None where the protocol has no offline phase."""
        return self.cell.offline.seconds / self.cell.batch if self.cell.offline else None


def rates(cells: Iterable[Cell], setting: Setting) -> list[Rate]:
    """Return the rates at a setting's place, whatever protocol and batch; none where one batch size is all there is."""
    here = [c for c in beside(cells, setting, any_batch=True) if c.usable]
    if len({c.batch for c in here}) < 2:
        return []
    here.sort(key=lambda c: (-c.relu_count, -c.macs, c.network, order(c.protocol), c.batch))
    least: dict[tuple[str, str], Cell] = {}
    for cell in here:
        least.setdefault((cell.network, cell.protocol), cell)
    return [Rate(cell, least[cell.network, cell.protocol]) for cell in here]
