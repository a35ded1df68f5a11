"""`pibench validate`: check suites and cards without running them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pibench.errors import EXIT_OK, EXIT_USAGE, UsageError
from pibench.library import find_documents

if TYPE_CHECKING:
    from pibench.networks.card import Card


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pibench validate`."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="suites and cards, by file or name (default: all)")
    parser.add_argument("--json", action="store_true", help="print data instead of text")


def run(args: argparse.Namespace) -> int:
    """Check every file and report all that is wrong with each; status 4 where anything is."""
    names = args.files or [str(path) for kind in ("suites", "networks") for path in find_documents(kind)]
    problems: dict[str, list[str]] = {}
    for name in names:
        try:
            check(name)
        except UsageError as error:
            problems[name] = str(error).splitlines()
    if args.json:
        print(json.dumps({"checked": len(names), "problems": problems}, indent=2))
    else:
        for lines in problems.values():
            print("\n".join(lines), file=sys.stderr)
        print(f"{len(names) - len(problems)} of {len(names)} files are fine")
    return EXIT_USAGE if problems else EXIT_OK


def check(name: str) -> None:
    """Check one suite or card; raises UsageError with every problem.

    A file must be named like what it holds, for it is found by that name. A card's file is counted too, which takes
    torch (the cards that are shipped are counted by tests).
    """
    from pibench.networks.card import load_card
    from pibench.suite import load_suite

    found = load_suite(name) if kind_of(name) == "suites" else load_card(name)
    path = Path(name)
    if not path.is_file():
        return
    if found.name != path.stem:
        raise UsageError(
            f"it is named '{found.name}', its file {path.name}", where=str(path),
            remedy=f"call the file {found.name}{path.suffix}, or what is in it {path.stem}",
        )  # fmt: skip
    if kind_of(name) == "networks":
        _count(load_card(name))


def _count(card: Card) -> None:
    """Hold a card's `relu_count` against the network that it describes; masks are a checkpoint's, and not looked at."""
    from pibench.lowering.lower import lower
    from pibench.networks.build import skeleton, stage_of
    from pibench.networks.census import census

    if card.network.activation == "masked":
        return
    counted = census(lower(skeleton(card.network), card.network.input_shape, stage_of)[0])
    if counted.relu_count != card.relu_count:
        raise UsageError(
            f"the card says {card.relu_count:,} ReLUs, its network has {counted.relu_count:,}", where=str(card.path)
        )


def kind_of(name: str) -> str:
    """Return whether a name or file means a suite or a card, by its keys where it is a file."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        from pibench.documents import read_yaml

        data, _ = read_yaml(path)
        if not isinstance(data, dict):
            raise UsageError("neither a suite nor a card: it holds no keys", where=f"{path}:1")
        return "networks" if "network" in data or ("networks" not in data and "protocols" not in data) else "suites"
    return "suites" if name in {found.stem for found in find_documents("suites")} else "networks"
