"""`pibench doctor`: what this machine can do, and what to do about the rest."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from pibench.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from pibench.doctor import Finding

_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pibench doctor`."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--quick", action="store_true", help="do not try the ways of emulating links")


def run(args: argparse.Namespace) -> int:
    """Examine the machine; status 2 when something keeps `pibench run` from working."""
    from pibench.doctor import examine

    found = examine(links=not args.quick)
    if args.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=2))
    else:
        _show(found)
    return EXIT_FAILED if any(finding.status == "fail" for finding in found) else EXIT_OK


def _show(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        what = Text(finding.what)
        if finding.remedy:
            what.append(f"\n-> {finding.remedy}", style="dim")
        table.add_row(Text(finding.status, style=_STYLE[finding.status]), finding.name, what)
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(table)
    console.print(_summary(found))


def _summary(found: list[Finding]) -> str:
    failed = sum(finding.status == "fail" for finding in found)
    warned = sum(finding.status == "warn" for finding in found)
    if failed:
        return f"{failed} of {len(found)} lines keep `pibench run` from working here."
    if warned:
        return f"`pibench run` works here; {warned} lines say how its numbers could be better."
    return "All is well."
