"""`pibench zoo`: the trained networks that are shipped, beside what was published; and shipping another one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pibench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from pibench.reporting.cells import Cell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--folder", type=Path, metavar="DIR", help="the zoo (default: the nearest folder zoo/)")
    add("--ship", type=Path, nargs="+", default=[], metavar="FILE", help="put these trained checkpoints into it")
    add("--fetch", nargs="+", default=[], metavar="NAME", help="bring these networks, or `all`, from $PIBENCH_ZOO")
    add("--record", action="append", default=[], metavar="RECORD", help="take private accuracy from this record")
    add("--classes", action="store_true", help="judge the worst class of those that do not tell it (needs test images)")
    add("--write", type=Path, metavar="FILE", help="write the table as Markdown")


def run(args: argparse.Namespace) -> int:
    """Ship, then show."""
    if args.fetch:
        return _fetch(args.fetch)
    folder = _folder(args.folder)
    for checkpoint in args.ship:
        from pibench.training.ship import ship

        print(f"shipped {ship(checkpoint, folder)}")
    from pibench.reporting.screen.zoo import entries, markdown, on_screen, with_worst_classes

    found = entries(folder, _cells(args.record))
    if args.classes:
        found = with_worst_classes(found)
    if args.write:
        args.write.write_text(markdown(found), encoding="utf-8")
        print(f"wrote {args.write}: {len(found)} networks")
        return EXIT_OK
    from rich.console import Console

    Console().print(*on_screen(found), sep="\n")
    return EXIT_OK


def _fetch(names: list[str]) -> int:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from pibench.training.zoo import fetch_network, missing

    wanted = missing() if names == ["all"] else names
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns) as progress:
        for name in wanted:
            task = progress.add_task(name, total=None)
            fetch_network(name, lambda done, total, task=task: progress.update(task, completed=done, total=total))  # type: ignore[misc]
    print(f"{len(wanted)} networks fetched" if wanted else "every network of the zoo is here")
    return EXIT_OK


def _folder(given: Path | None) -> Path:
    from pibench.library import data_folders

    if given is not None:
        if not given.is_dir():
            raise UsageError("there is no such folder", where=str(given), remedy="make it, or name another")
        return given
    if not (folders := data_folders("zoo")):
        raise UsageError("there is no folder zoo/", remedy="--folder names another place")
    return folders[0]


def _cells(records: list[str]) -> list[Cell]:
    if not records:
        return []
    from pibench.records.files import open_record
    from pibench.reporting.view import view_of

    return list(view_of([open_record(name) for name in records]).cells)
