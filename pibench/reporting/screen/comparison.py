"""A comparison as text, Markdown or JSON: what differs around the numbers first, then the numbers, then the verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from pibench.numbers import time_unit
from pibench.records.compare import Comparison, Row, Verdict
from pibench.records.measures import Measure
from pibench.records.stats import Estimate
from pibench.reporting.screen.fitting import fitted, screen_width, wrapped
from pibench.run.precision import FEWEST

MOST_ROWS, MOST_NOTES = 4, 1  # on a screen, beyond those that decide
WIDE = 160  # columns where the output is no screen
HEADINGS = ("case", "measure", "base", "head", "change", "interval", "p", "verdict")
LOUD = {Verdict.WORSE: "✗", Verdict.FAILED: "✗", Verdict.MISSING: "✗", Verdict.BETTER: "✓"}


def show(measure: Measure, value: float | None) -> str:
    """Return a value with its unit, to four digits (counts in full below a million)."""
    if value is None or math.isnan(value):
        return "-"
    if measure.unit == "share":
        return f"{100 * value:.2f} %"
    if measure.unit == "s":
        factor, unit = time_unit(value)
        return f"{value * factor:.4g} {unit}"
    if measure.unit == "B" and value >= 1e6 and not measure.exact:
        return f"{value / 1e6:.4g} MB"
    return f"{value:,.0f}{' B' if measure.unit == 'B' else ''}" if value == int(value) else f"{value:,.2f}"


def as_text(comparison: Comparison, *, all_rows: bool = False, width: int | None = None) -> str:
    """Return the comparison for a terminal, the verdict first; exact measures that did not change are one line."""
    width = width or screen_width(WIDE)
    *rule, verdict = _foot(comparison)
    rows, hidden = _visible(comparison, all_rows)
    rows, folded = (rows, "") if all_rows else _few(rows)
    around = [f"base {comparison.base_name}", f"head {comparison.head_name}", *_around(comparison)]
    notes = _notes(rows)
    if len(notes) > MOST_NOTES and not all_rows:
        notes = [*notes[:MOST_NOTES], f"and {len(notes) - MOST_NOTES} more notes: --all"]
    after = [*(text for text in (folded, hidden) if text), *notes, *rule, verdict]
    before = [line for text in [verdict, *around] for line in wrapped(text, width)]
    below = [line for text in after for line in wrapped(text, width)]
    return "\n".join([*before, "", *_rows(rows, width), "", *below]) + "\n"


def _few(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return the rows that decide, and as many others as a screen holds; the rest is counted."""
    kept = [row for row in rows if row.verdict in LOUD]
    kept += [row for row in rows if row.verdict not in LOUD][: max(0, MOST_ROWS - len(kept))]
    if len(kept) == len(rows):
        return list(rows), ""
    left = [row for row in rows if row not in kept]
    verdicts = [str(row.verdict) for row in left]
    said = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts))
    return [row for row in rows if row in kept], f"not shown: {said} (--all)"


def _rows(rows: Sequence[Row], width: int) -> list[str]:
    """Return the table: a line a row where it fits, else a line a case and its measures below, none of it cut."""
    if not rows:
        return []
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    columns = [(0, [line[k] for line in cells]) for k in range(len(HEADINGS))]
    whole, _ = fitted(columns, width)
    if max(map(len, whole)) <= width:
        return whole
    importance = {"interval": 2, "p": 3}
    narrow, _ = fitted(
        [(importance.get(HEADINGS[k], 0), [f"  {line[k]}" if k == 1 else line[k] for line in cells])
         for k in range(1, len(HEADINGS))], width,
    )  # fmt: skip
    lines, last = [narrow[0]], ""
    for row, line in zip(rows, narrow[1:], strict=True):
        lines += [row.case] if row.case != last else []
        lines.append(line)
        last = row.case
    return lines


def as_markdown(comparison: Comparison, *, all_rows: bool = False) -> str:
    """Return the comparison for a pull request's comment or a job summary, the verdict first."""
    rows, hidden = _visible(comparison, all_rows)
    verdict = _foot(comparison)[-1]
    lines = [f"### pibench: `{comparison.base_name}` → `{comparison.head_name}`", "", f"**{verdict}**", ""]
    lines += [f"- {line.strip()}" for line in _around(comparison)]
    if rows:
        lines += ["", _bar(HEADINGS), _bar(["---"] * len(HEADINGS)), *(_bar(_cells(row)) for row in rows)]
    notes = ([hidden] if hidden else []) + _notes(rows)
    return "\n".join([*lines, *([""] if notes else []), *(f"> {line}  " for line in notes)]) + "\n"


def as_json(comparison: Comparison) -> str:
    """Return everything as JSON; numbers that do not exist are null."""
    data = {
        "schema": "pibench-comparison/1",
        "base": comparison.base_name,
        "head": comparison.head_name,
        "paired": comparison.paired,
        "rule": asdict(comparison.rule),
        "holm_tests": comparison.tests,
        "regressed": comparison.regressed,
        "incomplete": comparison.incomplete,
        "differences": [asdict(difference) for difference in comparison.differences],
        "rows": [_row_data(row) for row in comparison.rows],
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


RENDERERS: dict[str, Callable[[Comparison], str]] = {
    "text": as_text, "markdown": as_markdown, "md": as_markdown, "json": as_json,
}  # fmt: skip


def _visible(comparison: Comparison, all_rows: bool) -> tuple[list[Row], str]:
    """Return the rows worth a line, and a sentence about the others."""
    dull = [row for row in comparison.rows if row.measure.exact and row.verdict is Verdict.SAME and not row.notes]
    if all_rows or not dull:
        return list(comparison.rows), ""
    names = ", ".join(dict.fromkeys(row.measure.name for row in dull))
    return [row for row in comparison.rows if row not in dull], f"{len(dull)} exact values unchanged ({names})"


def _cells(row: Row) -> tuple[str, ...]:
    base, head = show(row.measure, row.base), show(row.measure, row.head)
    if row.base is None and row.head is None:
        return (row.case, "-", "-", "-", "-", "-", "-", _verdict(row))
    return (row.case, row.measure.name, base, head, _change(row), _interval(row.ratio), _p(row), _verdict(row))


def _change(row: Row) -> str:
    if row.change is None or math.isnan(row.change):
        return "-"
    unit = " points" if row.measure.unit == "share" else " %"
    return f"{100 * row.change:+.2f}{unit}" if row.change else "0"


def _interval(ratio: Estimate | None) -> str:
    if ratio is None or math.isnan(ratio.low):
        return "-"
    return f"{100 * (ratio.low - 1):+.2f} to {100 * (ratio.high - 1):+.2f} %"


def _p(row: Row) -> str:
    p = row.p_holm if row.p_holm is not None else row.p
    if p is None:
        return "exact"
    return f"{p:.2g}" if p >= 1e-4 else "<0.0001"


def _verdict(row: Row) -> str:
    mark = LOUD.get(row.verdict)
    return f"{mark} {row.verdict}" if mark else str(row.verdict)


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _around(comparison: Comparison) -> list[str]:
    if not comparison.differences:
        return ["same machine, versions, suite and links"]
    lines = []
    for difference in comparison.differences:
        warning = "  (times are not comparable)" if difference.forbids_time else ""
        lines.append(f"  {difference.what}: {difference.base} -> {difference.head}{warning}")
    return ["what differs:", *lines]


def _notes(rows: Sequence[Row]) -> list[str]:
    return [f"{row.case} {row.measure.name}: {note}" for row in rows for note in row.notes]


def _foot(comparison: Comparison) -> list[str]:
    rule, level = comparison.rule, f"{comparison.rule.level:.0%}"
    if comparison.paired:
        ratio = f"Hodges and Lehmann's ratio over pairs with its {level} signed-rank interval"
        ratio += " (of too few pairs for one: bootstrap)"
        design = "pairs of sessions side by side, signed ranks"
    else:
        ratio = f"ratio of medians with its {level} bootstrap interval over sessions"
        ratio += f" (below {FEWEST} a side it may cover less)"
        design = "independent sessions, Mann-Whitney"
    lines = []
    if comparison.tests:
        lines.append(
            f"times: {ratio}; exact p ({design}), "
            f"after Holm over {comparison.tests}; worse: p < {rule.alpha:g} and the interval beyond the tolerance"
        )
    worse, missing = comparison.of(Verdict.WORSE, Verdict.FAILED), comparison.of(Verdict.MISSING)
    better = len(comparison.of(Verdict.BETTER))
    blind = len(comparison.of(Verdict.UNCLEAR, Verdict.TOO_FEW))
    parts = [f"{len(worse)} regressions" if len(worse) != 1 else "1 regression", f"{better} improvements"]
    parts += [f"{blind} not decided"] if blind else []
    if missing:
        names = list(dict.fromkeys(row.case for row in missing))
        parts.append(f"{len(names)} not in the head: {', '.join(names)}")
    lines.append(f"{'REGRESSION' if worse else 'INCOMPLETE' if missing else 'OK'}: {', '.join(parts)}")
    return lines


def _row_data(row: Row) -> dict[str, Any]:
    data = asdict(row)
    data["measure"], data["unit"], data["exact"] = row.measure.name, row.measure.unit, row.measure.exact
    data["verdict"], data["change"] = str(row.verdict), row.change
    cleaned: dict[str, Any] = _finite(data)
    return cleaned


def _finite(value: Any) -> Any:
    """Return plain data with nan and infinities as null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
