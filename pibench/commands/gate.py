"""`pibench gate`: the newest record against a baseline; exit status 1 when a counted measure moved the wrong way."""

from __future__ import annotations

import argparse
from pathlib import Path

from pibench.commands.compare import add_judging, finish, options
from pibench.errors import EXIT_OK

BASELINE = Path("ci/baseline.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("record", nargs="?", default="latest", help="a file, an id, or `latest` (the default)")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help=f"default {BASELINE}")
    parser.add_argument(
        "--update", action="store_true", help="make the record the baseline, and show what that changes"
    )
    parser.add_argument(
        "--time", choices=["same-machine", "never"], default="same-machine",
        help="judge times where the machine key is the baseline's (default), or never: hosted runners that share a key",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, help="write the report there instead of the screen")
    add_judging(parser)


def run(args: argparse.Namespace) -> int:
    """Judge the record, or make it the baseline."""
    from pibench.records.files import open_record
    from pibench.records.gate import judge, load_baseline, save_baseline, slim

    record = open_record(args.record)
    if args.update:
        before = load_baseline(args.baseline) if args.baseline.is_file() else None
        save_baseline(record, args.baseline)
        if before is not None and before.suite.name == record.suite.name:
            finish(args, judge(slim(record), before, options(args, record.suite), time=False))
        print(f"baseline: {args.baseline} is now {record.id}")
        return EXIT_OK
    comparison = judge(record, load_baseline(args.baseline), options(args, record.suite), time=args.time != "never")
    return finish(args, comparison)
