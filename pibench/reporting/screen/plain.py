"""The look that pibench's tables share on a screen: no lines, dim headings, two spaces between columns."""

from __future__ import annotations

from rich.table import Table


def plain_table() -> Table:
    """Return an empty table."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
