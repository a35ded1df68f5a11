"""`pibench ls`: list suites, networks and records."""

from __future__ import annotations

import argparse
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pibench.errors import EXIT_NOTHING_SELECTED, EXIT_OK
from pibench.library import data_folders, find_documents, summary
from pibench.reporting.screen.fitting import screen_width, wrapped

KINDS = ("suites", "networks", "records")
RUNS = Path(".pibench/runs")
HEADINGS = {"relus": "ReLUs"}
LEAST_TITLE, NEWEST = 24, 5  # columns that a title takes at least; records of a list of everything
Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pibench ls`."""
    parser.add_argument("kind", nargs="?", choices=KINDS, help="only these")
    parser.add_argument("pattern", nargs="?", help="only names that fit, such as 'drd-c100-*'")
    parser.add_argument("--json", action="store_true", help="print data instead of a table")


def run(args: argparse.Namespace) -> int:
    """List what there is; status 5 where a pattern fits nothing."""
    kinds = [args.kind] if args.kind else list(KINDS)
    listed = {kind: [row for row in _LISTS[kind]() if _fits(row["name"], args.pattern)] for kind in kinds}
    if args.json:
        print(json.dumps(listed, indent=2))
    else:
        chosen = args.kind is not None or args.pattern is not None
        print("\n\n".join(_table(kind, rows, whole=chosen) for kind, rows in listed.items()))
    return EXIT_OK if any(listed.values()) or not args.pattern else EXIT_NOTHING_SELECTED


def _fits(name: str, pattern: str | None) -> bool:
    return pattern is None or fnmatchcase(name, pattern) or pattern in name


def _suites() -> list[Row]:
    return [{"name": path.stem, "title": summary(path).get("title", "")} for path in find_documents("suites")]


def _networks() -> list[Row]:
    trained = {path.stem for folder in data_folders("zoo") for path in folder.glob("*.safetensors")}
    trained |= {path.stem.rpartition("-")[0] for path in Path(".pibench/checkpoints").glob("*.safetensors")}
    rows = []
    for path in find_documents("networks"):
        about = summary(path)
        relus = about.get("relu_count", "")
        rows.append(
            {
                "name": path.stem,
                "dataset": about.get("dataset", ""),
                "relus": int(relus) if relus.isdigit() else None,
                "method": about.get("method", ""),
                "trained": path.stem in trained,
                "title": about.get("title", ""),
            }
        )
    return sorted(rows, key=lambda row: (row["dataset"], -(row["relus"] or 0), row["name"]))


def _records() -> list[Row]:
    return [{"name": path.stem, "bytes": path.stat().st_size} for path in sorted(RUNS.glob("*.json"))]


_LISTS = {"suites": _suites, "networks": _networks, "records": _records}
_NONE = {
    "suites": "no suites here",
    "networks": "no networks here",
    "records": "no records in .pibench/runs yet: `pibench run SUITE` makes one",
}


def _table(kind: str, rows: list[Row], *, whole: bool) -> str:
    """Return aligned columns under a heading (plain text: rich alone would take half of the time allowed).

    Not `whole`: of networks those that are trained, of records the newest. Titles are broken where there is room for
    them, and left out where there is none.
    """
    if not rows:
        return f"{kind}: {_NONE[kind]}"
    shown = rows if whole else _first(kind, rows)
    width = screen_width(160)
    names = [name for name in shown[0] if name != "title"]
    cells = [[HEADINGS.get(name, name) for name in names], *([_cell(row[name]) for name in names] for row in shown)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    numeric = [isinstance(shown[0][name], int) and not isinstance(shown[0][name], bool) for name in names]
    left = width - sum(widths) - 2 * len(widths) - 2
    lines = []
    for place, line in enumerate(cells):
        text = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, numeric, strict=True)]
        title = ["title"] if place == 0 else wrapped(str(shown[place - 1].get("title", "")), max(left, LEAST_TITLE))
        first, *more = title if left >= LEAST_TITLE and "title" in shown[0] else [""]
        lines.append("  " + "  ".join([*text, first]).rstrip())
        lines += [" " * (width - left) + rest for rest in more]
    if len(shown) < len(rows):
        lines.append(f"  and {len(rows) - len(shown)} more: pibench ls {kind}")
    return f"{kind} ({len(rows)})\n" + "\n".join(lines)


def _first(kind: str, rows: list[Row]) -> list[Row]:
    """Return the rows that stand for a long list: trained networks, the newest records."""
    if kind == "networks":
        return [row for row in rows if row["trained"]] or rows
    return rows[-NEWEST:] if kind == "records" else rows


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    return f"{value:,}" if isinstance(value, int) else str(value if value is not None else "?")
