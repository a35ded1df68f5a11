"""`pibench compare A B`: two records, what differs around them, and a verdict for every measure of every case."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pibench.errors import EXIT_FAILED, EXIT_OK, EXIT_REGRESSION, UsageError

if TYPE_CHECKING:
    from pibench.records.compare import Options
    from pibench.records.record import SuiteInfo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("base", help="record that is the yardstick: a file, an id, or `latest`, `latest~1`, ...")
    parser.add_argument("head", help="record to judge")
    parser.add_argument("-o", "--output", type=Path, help="write there instead of the screen")
    parser.add_argument(
        "--paired", action="store_true", help="session i of both was made side by side, as `pibench ab` does"
    )
    add_judging(parser)


def add_judging(parser: argparse.ArgumentParser) -> None:
    """Add what every comparing verb takes."""
    parser.add_argument("--format", choices=["text", "markdown", "md", "json"], default="text")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="short for --format json")
    parser.add_argument("--all", action="store_true", help="show unchanged exact values too")
    parser.add_argument(
        "-m", "--measure", action="append", metavar="NAME", help="judge these measures only (repeatable)"
    )
    parser.add_argument(
        "-t", "--threshold", action="append", default=[], metavar="MEASURE[@CASES]=SHARE",
        help="tolerance for a measure: online_s=3%%, 'online_s@*/masked/*=5%%', rounds@group:masked=0 (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--any-change", action="store_true", help="exit status 1 for improvements too: a count that fell is news"
    )
    parser.add_argument("--alpha", type=float, default=None, help="significance after Holm (default 0.01)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")


def run(args: argparse.Namespace) -> int:
    """Compare; exit status 1 on a regression."""
    from pibench.records.compare import compare
    from pibench.records.files import open_record
    from pibench.run.ab import paired

    base, head = open_record(args.base), open_record(args.head)
    if args.paired:
        base, head = paired(base, head)
    comparison = compare(base, head, options(args, head.suite, paired=args.paired))
    return finish(args, comparison)


def options(args: argparse.Namespace, suite: SuiteInfo, *, paired: bool = False) -> Options:
    """Return how to compare: the suite's thresholds first, the command line's after them (the last one counts)."""
    from pibench.records.compare import Options
    from pibench.records.power import Rule
    from pibench.records.thresholds import parse_threshold, suite_thresholds

    alpha = Rule().alpha if args.alpha is None else args.alpha
    if not 0 < alpha < 1:
        raise UsageError(f"--alpha {alpha:g} is not a probability", remedy="give a number such as 0.01")
    given = [*suite_thresholds(suite), *(parse_threshold(text) for text in args.threshold)]
    return Options.of(args.measure, given, rule=Rule(alpha=alpha), seed=args.seed, paired=paired)


def finish(args: argparse.Namespace, comparison: object) -> int:
    """Show the comparison as asked, and return the exit status that it deserves: 2 where cases are missing."""
    from pibench.records.compare import Comparison
    from pibench.reporting.screen.comparison import as_json, as_markdown, as_text

    assert isinstance(comparison, Comparison)
    if args.format == "json":
        text = as_json(comparison)
    else:
        text = (as_text if args.format == "text" else as_markdown)(comparison, all_rows=args.all)
    if getattr(args, "output", None):
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    if comparison.regressed or (args.any_change and comparison.changed):
        return EXIT_REGRESSION
    return EXIT_FAILED if comparison.incomplete else EXIT_OK
