"""The table of ReLU budgets for a paper: LaTeX with booktabs that fits one column, its setting in the caption.

A unit stands once, in its column's heading, and an interval as half its width in percent; the same rows, with every
digit and with both ends of each interval, are `rows_csv`'s.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from pibench.numbers import BYTES, TIMES, digits, unit_of
from pibench.reporting.answer import Answer
from pibench.reporting.captions import latency_interval, setting_words
from pibench.reporting.cells import Cell
from pibench.reporting.page.theme import METHOD_TITLES
from pibench.reporting.view import View

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "µ": r"\textmu{}", "×": r"$\times$", "·": r"$\cdot$",
    "²": r"\textsuperscript{2}", "−": r"$-$", "±": r"$\pm$",
}  # fmt: skip

_HEAD = r"""%% needs \usepackage{booktabs}; fits a column of 229 points
\begin{table}
\centering
\caption{%s}
\label{tab:relu-budget}
\footnotesize
\setlength{\tabcolsep}{2pt}
\begin{tabular}{@{}l%s@{}}
\toprule
%s \\
%s \\
\midrule
"""
_FOOT = r"""\bottomrule
\end{tabular}
\end{table}
"""
LONGEST = 16  # characters of a network's name before it is broken into two lines
CSV_COLUMNS = (
    "network", "method", "relu_count", "accuracy_percent", "accuracy_n", "online_s", "online_low_s", "online_high_s",
    "server_sent_bytes", "client_sent_bytes", "sent_both_ways_bytes", "rounds",
)  # fmt: skip


def escape(text: str) -> str:
    """Return text as LaTeX shows it."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def both_ways(cell: Cell) -> int | None:
    """Return the online payload of both parties together, in bytes."""
    if cell.server_bytes is None or cell.client_bytes is None:
        return None
    return cell.server_bytes + cell.client_bytes


def to_latex(view: View, found: Answer) -> str:
    """Return the report's main table."""
    cells = found.ladder.cells
    of_time, in_time = unit_of(_middle([c.online_s for c in cells]), TIMES)
    of_sent, in_sent = unit_of(_middle([v for c in cells if (v := both_ways(c))]), BYTES)
    columns = ["Network", "ReLUs", "Acc.", "Online", "±", "Sent", "Rounds"]
    units = ["", "", "%", in_time, "%", in_sent, ""]
    images = sorted({c.score.n for c in cells if c.score})
    trained = f" Accuracy: of {', '.join(f'{n:,}' for n in images)} images." if images else ""
    caption = escape(
        f"What a ReLU budget buys.{trained} Online: medians, with half their interval in percent "
        f"({latency_interval(cells)}). Sent: both ways. {setting_words(view, cells)}."
    )
    head = _HEAD % (caption, "r" * (len(columns) - 1), " & ".join(map(escape, columns)), " & ".join(map(escape, units)))
    return head + "".join(_row(cell, of_time, of_sent) for cell in cells) + _FOOT


def rows_csv(found: Answer) -> str:
    """Return the table's rows as comma-separated values, in seconds and bytes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for cell in found.ladder.cells:
        online, score = cell.online, cell.score
        writer.writerow([
            cell.network, METHOD_TITLES.get(cell.method, cell.method), cell.relu_count,
            *((score.percent, score.n) if score else ("", "")),
            *((online.point, online.low, online.high) if online else ("", "", "")),
            cell.server_bytes, cell.client_bytes, both_ways(cell), cell.rounds,
        ])  # fmt: skip
    return out.getvalue()


def _middle(values: Sequence[float]) -> float:
    """Return the median, whose unit a column has."""
    return sorted(values)[len(values) // 2] if values else 0.0


def _row(cell: Cell, of_time: float, of_sent: float) -> str:
    sent, online = both_ways(cell), cell.online
    parts = [
        _name(cell.network), f"{cell.relu_count:,}".replace(",", r"\,"),
        f"{cell.score.percent:.1f}" if cell.score else "",
        digits(cell.online_s * of_time) if online else "",
        f"{100 * online.relative_half_width:.0f}" if online else "",
        digits(sent * of_sent) if sent is not None else "",
        "" if cell.rounds is None else str(cell.rounds),
    ]  # fmt: skip
    return " & ".join(parts) + r" \\" + "\n"


def _name(network: str) -> str:
    """Return a network's name; a long one broken after a dash, colon or underscore, in lines of their own."""
    lines, rest = [], network
    while len(rest) > LONGEST:
        cut = max((rest.rfind(mark, 0, LONGEST) + 1 for mark in "-:_."), default=0) or LONGEST
        lines.append(rest[:cut])
        rest = rest[cut:]
    if not lines:
        return escape(network)
    return r"\begin{tabular}[t]{@{}l@{}}" + r" \\ ".join(escape(line) for line in [*lines, rest]) + r"\end{tabular}"
