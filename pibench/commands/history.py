"""`pibench history CASE`: one measure over the runs, its steps, and the commits between which each happened."""

from __future__ import annotations

import argparse
from pathlib import Path

from pibench.errors import EXIT_OK, UsageError

PICTURES = (".svg", ".png", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "case", nargs="?", help="a case's id or an unmistakable part of it; without one, list the cases"
    )
    parser.add_argument("-m", "--measure", default="online_s", help="which measure (default online_s)")
    parser.add_argument("--machine", help="times of this machine key (default: the newest run's)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it too: .svg, .png or .pdf")
    parser.add_argument("--json", action="store_true", help="print data instead of a drawing")
    parser.add_argument("--runs", type=Path, help="folder of records (default .pibench/runs)")
    parser.add_argument("--store", metavar="URL", help="a team's shared store (default $PIBENCH_STORE)")
    parser.add_argument("--rebuild", action="store_true", help="derive the index again from the records")
    parser.add_argument("--share", action="store_true", help="first put this folder's records into the shared store")


def run(args: argparse.Namespace) -> int:
    """Show the history."""
    from pibench.records.history import history
    from pibench.records.index import open_index

    if args.picture and args.picture.suffix not in PICTURES:
        raise UsageError(
            f"no picture format is called {args.picture.suffix!r}", where=str(args.picture),
            remedy=f"end the name in {', '.join(PICTURES)}",
        )  # fmt: skip
    if args.share:
        _share(args)
    with open_index(args.store, args.runs) as index:
        for line in index.rebuild() if args.rebuild else index.refresh():
            print(f"left out: {line}")
        if args.case is None:
            if not index.cases():
                print("no records yet: `pibench run` makes one, and each is a point of the history")
            for case, runs in index.cases():
                print(f"{runs:5d}  {case}")
            return EXIT_OK
        found = history(index, args.case, args.measure, args.machine)
    return _show(args, found)


def _show(args: argparse.Namespace, found: object) -> int:
    from pibench.records.history import History
    from pibench.reporting.page import series

    assert isinstance(found, History)
    if args.json:
        import json

        print(json.dumps(series.to_data(found), indent=1))
    else:
        print(series.as_text(found), end="")
    if args.picture:
        series.save_picture(found, args.picture)
        if not args.json:
            print(f"picture: {args.picture}")
    return EXIT_OK


def _share(args: argparse.Namespace) -> None:
    import os

    from pibench.records.files import load_record
    from pibench.records.index import RUNS, open_index

    if "://" not in (args.store or os.environ.get("PIBENCH_STORE", "")):
        raise UsageError("--share needs a shared store", remedy="give --store URL or set PIBENCH_STORE")
    with open_index(args.store) as index:
        count = index.share(load_record(path) for path in sorted((args.runs or RUNS).glob("*.json")))
    print(f"shared {count} records")
