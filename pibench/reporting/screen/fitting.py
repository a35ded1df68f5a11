"""Tables that fit: columns by importance, as many as there is room for, none ever cut; texts broken, never clipped."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

GAP = 2
LEAST = 40
MOST_ROWS = 14  # of a table: more would push the answer off the screen; the page has them all


def screen_width(default: int = 80) -> int:
    """Return the columns of this screen; `default` where the output is no screen and COLUMNS says nothing."""
    return max(LEAST, shutil.get_terminal_size((default, 24)).columns)


def wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines; a word that is longer than a line stays whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def fitted(columns: Sequence[tuple[int, Sequence[str]]], width: int) -> tuple[list[str], list[str]]:
    """Return the lines of a table, and the headings of columns that found no room.

    A column is its importance (0: it stays; the larger, the sooner it goes) and its cells, the heading first; the
    first one is set to the left, the others to the right. Rows of blanks are left out.
    """
    kept = list(range(len(columns)))
    widths = [max(len(cell) for cell in cells) for _, cells in columns]
    while sum(widths[i] + GAP for i in kept) - GAP > width:
        least = max((i for i in kept if columns[i][0] > 0), key=lambda i: columns[i][0], default=None)
        if least is None:
            break
        kept.remove(least)
    rows = [[columns[i][1][row] for i in kept] for row in range(len(columns[0][1]))]
    lines = [
        (" " * GAP)
        .join(
            cell.ljust(widths[i]) if place == 0 else cell.rjust(widths[i])
            for place, (i, cell) in enumerate(zip(kept, row, strict=True))
        )
        .rstrip()
        for row in rows
    ]
    left = [columns[i][1][0] for i in range(len(columns)) if i not in kept]
    return [line for line in lines if line.strip()], left
