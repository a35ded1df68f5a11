"""`pibench export RECORD`: one record in the formats of other benchmark services."""

from __future__ import annotations

import argparse
from pathlib import Path

from pibench.errors import EXIT_OK

CHOICES = ("github-action-benchmark", "bencher", "pytest-benchmark")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("record", nargs="?", default="latest", help="a file, an id, or `latest` (the default)")
    parser.add_argument("--to", choices=CHOICES, required=True, help="whose format")
    parser.add_argument("-o", "--output", type=Path, help="write there instead of the screen")


def run(args: argparse.Namespace) -> int:
    """Write the export."""
    from pibench.records.files import open_record
    from pibench.reporting.paper.export import render

    text = render(open_record(args.record), args.to)
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return EXIT_OK
