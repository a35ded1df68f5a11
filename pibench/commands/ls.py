"""`pibench ls`: list suites, networks and records."""

from __future__ import annotations

import argparse
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pibench.errors import EXIT_NOTHING_SELECTED, EXIT_OK
from pibench.library import data_folders, find_documents, summary

KINDS = ("suites", "networks", "records")
RUNS = Path(".pibench/runs")
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
        print("\n\n".join(_table(kind, rows) for kind, rows in listed.items()))
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


def _table(kind: str, rows: list[Row]) -> str:
    """Return aligned columns under a heading (plain text: rich alone would take half of the time allowed)."""
    if not rows:
        return f"{kind}: {_NONE[kind]}"
    cells = [[_cell(value) for value in row.values()] for row in rows]
    cells.insert(0, list(rows[0]))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    numeric = [isinstance(value, int) and not isinstance(value, bool) for value in rows[0].values()]
    lines = []
    for line in cells:
        shown = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, numeric, strict=True)]
        lines.append("  " + "  ".join(shown).rstrip())
    return f"{kind} ({len(rows)})\n" + "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    return f"{value:,}" if isinstance(value, int) else str(value if value is not None else "?")
