"""Images a second by batch size, and the memory that it takes, where a run measured more than one batch size."""

from __future__ import annotations

from collections.abc import Sequence

from pibench.numbers import digits, seconds, size
from pibench.reporting.cells import Cell, Setting
from pibench.reporting.screen.fitting import fitted, wrapped
from pibench.reporting.throughput import rates

MISSING = "-"


def throughput(cells: Sequence[Cell], setting: Setting, width: int) -> list[str]:
    """Return the table of a setting's batches; nothing where there is one batch size alone."""
    rows = rates(cells, setting)
    if not rows:
        return []
    columns = [
        (0, ["network", *(r.cell.network for r in rows)]),
        (0, ["protocol", *(r.cell.protocol for r in rows)]),
        (0, ["batch", *(str(r.cell.batch) for r in rows)]),
        (0, ["images/s", *(digits(r.images_s) for r in rows)]),
        (1, ["gain", *(f"{r.gain:.2f}" for r in rows)]),
        (4, ["a batch", *(seconds(r.cell.online_s) for r in rows)]),
        (3, ["offline/image", *(seconds(r.offline_s) or MISSING for r in rows)]),
        (2, ["memory", *(size(r.cell.peak_rss_bytes) if r.cell.peak_rss_bytes else MISSING for r in rows)]),
    ]
    note = "Online, one batch after another. Gain: over the smallest batch. Memory: of the party that held most."
    return ["", "Throughput", *fitted(columns, width)[0], *wrapped(note, width)]
