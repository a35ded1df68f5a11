"""The table of ReLU budgets for a paper: LaTeX with booktabs, its setting in the caption."""

from __future__ import annotations

from pibench.numbers import seconds, size
from pibench.reporting.answer import Answer
from pibench.reporting.captions import interval_title, latency_interval, setting_words
from pibench.reporting.cells import Cell
from pibench.reporting.page.theme import METHOD_TITLES
from pibench.reporting.view import View

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "µ": r"\textmu{}", "×": r"$\times$", "·": r"$\cdot$",
    "²": r"\textsuperscript{2}", "−": r"$-$",
}  # fmt: skip

_HEAD = r"""%% needs \usepackage{booktabs} and, for microseconds, \usepackage{textcomp}
\begin{table}
\centering
\caption{%s}
\label{tab:relu-budget}
\begin{tabular}{llrrrrr}
\toprule
Network & Method & ReLUs & Accuracy, \%% & Online %s & Sent & Rounds \\
\midrule
"""
_FOOT = r"""\bottomrule
\end{tabular}
\end{table}
"""


def escape(text: str) -> str:
    """Return text as LaTeX shows it."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def to_latex(view: View, found: Answer) -> str:
    """Return the report's main table."""
    cells = found.ladder.cells
    price = found.sentences[0] if found.sentences else ""
    caption = escape(f"{price} Online: medians, {latency_interval(cells)}. {setting_words(view, cells)}.")
    return _HEAD % (caption, escape(interval_title(cells))) + "".join(_row(cell) for cell in cells) + _FOOT


def _row(cell: Cell) -> str:
    score = f"{cell.score.percent:.2f} ($n={cell.score.n}$)" if cell.score else ""
    online = ""
    if cell.online:
        online = escape(f"{seconds(cell.online_s)} [{seconds(cell.online.low)}, {seconds(cell.online.high)}]")
    sent = escape(size(cell.sent_bytes)) if cell.sent_bytes is not None else ""
    rounds = "" if cell.rounds is None else str(cell.rounds)
    parts = [
        escape(cell.network), escape(METHOD_TITLES.get(cell.method, cell.method)),
        f"{cell.relu_count:,}".replace(",", r"\,"), score, online, sent, rounds,
    ]  # fmt: skip
    return " & ".join(parts) + r" \\" + "\n"
