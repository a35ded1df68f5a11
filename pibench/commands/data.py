"""`pibench data`: what data sets are here, whether they are the official ones, and how to get the others."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pibench.errors import EXIT_OK

if TYPE_CHECKING:
    from pibench.training.find_data import Status
    from pibench.training.sources import Source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="one data set (default: all)")
    parser.add_argument(
        "--download", action="store_true", help="fetch the official archive, taking up a broken download"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="where data sets are ($PIBENCH_DATA or ~/.cache/pibench/data)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Show, check and fetch."""
    from pibench.errors import UsageError
    from pibench.training.find_data import all_statuses, status
    from pibench.training.sources import data_root, source_of

    if args.download:
        if args.name is None:
            raise UsageError("--download needs the name of a data set", remedy="`pibench data` lists them")
        _download(source_of(args.name), args.root)
    found = [status(source_of(args.name), args.root)] if args.name else all_statuses(args.root)
    if args.json:
        rows = [{**row.__dict__, "path": str(row.path) if row.path else None} for row in found]
        print(json.dumps(rows, indent=2))
    else:
        _print(found, args.root or data_root())
    return EXIT_OK


def _print(found: list[Status], root: Path) -> None:
    from pibench.reporting.screen.fitting import screen_width, wrapped

    print(f"Data sets in {root}")
    for row in found:
        print(f"{row.name:12}  {row.state:10}  {row.path or ''}".rstrip())
        for line in wrapped(row.detail, screen_width() - 4):  # a word, such as an address, stays whole
            print(f"    {line}")


def _download(source: Source, root: Path | None) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from pibench.training.fetch import fetch_source

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(source.title, total=None)
        path = fetch_source(source, root, lambda done, total: progress.update(task, completed=done, total=total))
    print(f"{path} is the official archive; it is read as it is")
