"""The table for a paper: every row, both ways' bytes, and a width that one column of a two-column paper holds."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes import fake_record
from suite_records import SHIPPED, record_of_suite

from pibench.cli import main
from pibench.records.files import save_record
from pibench.reporting.answer import Answer, answer, main_ladder
from pibench.reporting.paper.latex import LONGEST, both_ways, rows_csv, to_latex
from pibench.reporting.view import View, view_of

PAPER = r"""\documentclass[twocolumn]{article}
\usepackage[T1]{fontenc}
\usepackage{booktabs}
\usepackage{textcomp}
\begin{document}
\typeout{COLUMN \the\columnwidth}
%s
\end{document}
"""


def answered(suite: str) -> tuple[View, Answer]:
    view = view_of([record_of_suite(suite)])
    ladder = main_ladder(view.ladders())
    assert ladder
    return view, answer(view, ladder)


def rows(latex: str) -> list[list[str]]:
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    return [[cell.strip() for cell in line.split("&")] for line in body.splitlines() if "&" in line]


def test_bytes_are_those_of_both_parties_and_a_unit_stands_once() -> None:
    view, found = answered("c100")
    latex = to_latex(view, found)
    units = next(line for line in latex.splitlines() if line.startswith(" &")).split("&")
    unit = {"kB": 1e3, "MB": 1e6}[units[5].strip()]
    assert len(rows(latex)) == len(found.ladder.cells) == 15
    for cell, row in zip(found.ladder.cells, rows(latex), strict=True):
        assert float(row[5]) * unit == pytest.approx(both_ways(cell), rel=0.01)
        assert both_ways(cell) == cell.server_bytes + cell.client_bytes  # type: ignore[operator]
        assert not set(" ".join(row[1:])) & set("kMm"), "no unit in a row"


def test_the_rows_as_csv_hold_every_digit() -> None:
    _, found = answered("quick")
    table = list(csv.DictReader(io.StringIO(rows_csv(found))))
    for cell, row in zip(found.ladder.cells, table, strict=True):
        assert (row["network"], float(row["online_s"])) == (cell.network, cell.online_s)
        assert int(row["sent_both_ways_bytes"]) == int(row["server_sent_bytes"]) + int(row["client_sent_bytes"])


def test_the_verb_writes_csv_beside_latex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_record(fake_record(), tmp_path / "r.json")
    assert main(["report", "r.json", "--terminal", "--latex", "tables/budget.tex"]) == 0
    assert sorted(p.name for p in (tmp_path / "tables").iterdir()) == ["budget.csv", "budget.tex"]


@pytest.mark.parametrize("suite", SHIPPED)
def test_no_row_is_wider_than_a_column(suite: str) -> None:
    """Without LaTeX: at most so many characters a row, of which a column of 229 points holds about 50 at 8 points."""
    view, found = answered(suite)
    for row in rows(to_latex(view, found)):
        name = max(re.sub(r"\\begin\{tabular\}\[t\]\{@\{\}l@\{\}\}|\\end\{tabular\}", "", row[0]).split(r"\\"), key=len)
        assert len(name.replace("\\", "").strip()) <= LONGEST
        assert sum(len(cell.replace(r"\,", ",").removesuffix(r"\\").strip()) for cell in row[1:]) <= 34


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX on this machine")
@pytest.mark.parametrize("suite", SHIPPED)
def test_a_two_column_paper_holds_it(suite: str, tmp_path: Path) -> None:
    (tmp_path / "paper.tex").write_text(PAPER % to_latex(*answered(suite)), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    column = float(re.search(r"COLUMN ([\d.]+)pt", done.stdout)[1])  # type: ignore[index]
    assert column < 240
    wide = re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", done.stdout)
    assert not [points for points in wide if float(points) > 0.5]
