"""`pibench ab BASE [HEAD]`: two revisions, environments or cards side by side, and a verdict on their difference."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pibench.commands.arguments import positive
from pibench.commands.compare import add_judging, finish, options
from pibench.errors import UsageError

if TYPE_CHECKING:
    from pibench.records.record import Record
    from pibench.run.ab import Side
    from pibench.suite import Suite


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("base", nargs="?", help="git revision, or a folder with a tree")
    parser.add_argument("head", nargs="?", help="git revision or folder (default: the working tree as it is)")
    parser.add_argument("--suite", default="ci", help="what to run: a suite's name or file (default ci)")
    parser.add_argument("-k", metavar="EXPR", help="only the cases whose id fits")
    parser.add_argument("--sessions", type=positive, metavar="N", help="pairs of sessions a case (default 36)")
    parser.add_argument("--inferences", type=positive, metavar="N", help="inferences a session, instead of the suite's")
    parser.add_argument("--cards", nargs=2, metavar=("BASE", "HEAD"), help="compare two cards, one tree")
    parser.add_argument("--python-base", metavar="PYTHON", help="interpreter of the base's environment")
    parser.add_argument("--python-head", metavar="PYTHON", help="interpreter of the head's environment")
    parser.add_argument(
        "--environment", choices=["auto", "shared", "own"], default="auto",
        help="own: install each revision; auto: only where their requirements differ",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=Path, default=Path(".pibench/ab"), metavar="FOLDER", help="where both records go"
    )
    parser.add_argument("-o", "--output", type=Path, help="write the report there instead of the screen")
    add_judging(parser)


def run(args: argparse.Namespace) -> int:
    """Run the pairs and judge; exit status 1 on a regression."""
    from pibench.records.compare import compare
    from pibench.records.files import save_record
    from pibench.run.ab import SESSIONS, paired, run_pairs
    from pibench.run.fromsuite import info_of
    from pibench.suite import load_suite

    suite = load_suite(args.suite)
    judging = options(args, info_of(suite), paired=True)  # what is wrong in it shows before the measurement
    if args.output:
        args.output.open("a").close()  # so does a place that cannot be written to
    more = (["-k", args.k] if args.k else []) + (["--inferences", str(args.inferences)] if args.inferences else [])
    with contextlib.ExitStack() as stack:
        base, head = _sides(args, suite, stack)
        _tell(f"base {base.label}\nhead {head.label}")
        if not (base.takes_turns and head.takes_turns):
            _tell("a revision from before turns: whole sessions alternate, which sees less")
        folder = (args.keep / _stamp()).resolve()
        records = run_pairs(base, head, folder, args.sessions or SESSIONS, more, args.seed)
    first, second = paired(*_matched(records, args))
    kept = [folder / f"judged-{side}.json" for side in ("base", "head")]
    for record, path in zip((first, second), kept, strict=True):
        save_record(record, path)
    _tell(f"to judge them again: pibench compare --paired {kept[0]} {kept[1]}")
    comparison = compare(first, second, judging)
    return finish(args, dataclasses.replace(comparison, base_name=base.label, head_name=head.label))


def _sides(args: argparse.Namespace, suite: Suite, stack: contextlib.ExitStack) -> tuple[Side, Side]:
    from pibench.run.ab import Side, adapted_suite, tree_of

    if args.base is None and not (args.cards or args.python_base or args.python_head):
        raise UsageError("name a base: a revision or a folder", remedy="or compare --cards A B, or --python-base/-head")
    here, offset = _here()
    (base_tree, base_label), (head_tree, head_label) = (
        stack.enter_context(tree_of(name or str(here))) for name in (args.base, args.head)
    )
    tops = base_tree, head_tree
    base_tree, head_tree = (_stand(tree, offset, name) for tree, name in zip(tops, (args.base, args.head), strict=True))
    pythons = _pythons(args, base_tree, head_tree)
    cards = args.cards or (None, None)
    sides = []
    for name, tree, top, label, python, card in zip(
        ("base", "head"), (base_tree, head_tree), tops, (base_label, head_label), pythons, cards, strict=True
    ):
        own = adapted_suite(suite.text, suite.path.parent, tree / ".pibench" / "ab-suites" / name, card)
        sides.append(Side(name, _label(args, label, python, card), tree, python, own, top))
    return sides[0], sides[1]


def _label(args: argparse.Namespace, label: str, python: str, card: str | None) -> str:
    if card is not None:
        return f"{card} in {label}" if args.base else card
    return f"{label} with {python}" if args.python_base or args.python_head else label


def _pythons(args: argparse.Namespace, base: Path, head: Path) -> tuple[str, str]:
    """Return each side's interpreter: named, shared, or of an environment built for it."""
    from pibench.run.ab import own_environment, requirements

    if args.python_base or args.python_head:
        return args.python_base or sys.executable, args.python_head or sys.executable
    differ = requirements(base) != requirements(head) and (base / "pibench" / "cli.py").is_file()
    if args.environment == "own" or (args.environment == "auto" and differ):
        return own_environment(base, _tell), own_environment(head, _tell)
    return sys.executable, sys.executable


def _matched(records: tuple[Record, Record], args: argparse.Namespace) -> tuple[Record, Record]:
    from pibench.run.ab import as_one_card

    if not args.cards:
        return records
    name = " -> ".join(args.cards)
    return as_one_card(records[0], name), as_one_card(records[1], name)


def _here() -> tuple[Path, Path]:
    """Return the repository that one stands in (else the current folder), and where in it one stands."""
    from pibench.records.git import git

    here = Path.cwd().resolve()
    top = Path(git(None, "rev-parse", "--show-toplevel") or here).resolve()
    return top, here.relative_to(top)


def _stand(tree: Path, offset: Path, named: str | None) -> Path:
    """Return where in a tree to stand: as deep as here, unless a folder was named."""
    inside = tree / offset
    return tree if (named and Path(named).is_dir()) or not inside.is_dir() else inside


def _stamp() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def _tell(message: str) -> None:
    print(message, file=sys.stderr)
