"""`pibench show`: one network (ReLUs, MACs, parameters, predicted cost), or everything that a record holds."""

from __future__ import annotations

import argparse
import importlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pibench.commands.arguments import image_shape, positive
from pibench.commands.show_model import is_factory, show_model
from pibench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from pibench.lowering.program import Program
    from pibench.networks.card import Card
    from pibench.networks.census import Census


WHOLE = 120  # columns of the table of everything


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pibench show`."""
    parser.add_argument("card", metavar="CARD", help="a card, package.module:factory, or a record (last, an id)")
    parser.add_argument("--sites", action="store_true", help="list every ReLU site")
    parser.add_argument("--protocol", metavar="NAME", help="also predict its cost under this protocol")
    parser.add_argument("--provider", metavar="NAME", help="who makes that protocol's correlated randomness")
    parser.add_argument("--link", metavar="NAME", help="over this link (default loopback)")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="for this many images at once")
    parser.add_argument("--no-merge", action="store_true", help="predict without merging linear neighbours")
    parser.add_argument("--json", action="store_true", help="print data instead of a table")
    parser.add_argument("--input", type=image_shape, metavar="C,H,W", help="of your own network: one image's shape")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of your own network: safetensors, .pt or .pth")
    parser.add_argument("--output", metavar="NAME", help="of your own network: the logits among several outputs")


def run(args: argparse.Namespace) -> int:
    """Show a card's census, what was published about it, and its checkpoint."""
    if (record := _record_named(args.card)) is not None:
        return _show_record(record, args.card, as_json=args.json)
    if is_factory(args.card):
        return show_model(args, _predicted)
    from pibench.lowering.lower import lower
    from pibench.lowering.merge import merge
    from pibench.networks.build import stage_of
    from pibench.networks.card import load_card
    from pibench.networks.census import census
    from pibench.training.find_checkpoint import find_checkpoint, with_masks

    card = load_card(args.card)
    checkpoint = find_checkpoint(card)
    program, weights = lower(with_masks(card, checkpoint), card.network.input_shape, stage_of)
    counted = census(program)
    runs, _, merged = merge(program, weights)
    facts = {
        "checkpoint": _trained(checkpoint), "merged": merged.render().splitlines()[0] if merged.merged else "",
        "predicted": _predicted(program if args.no_merge else runs, args),
    }  # fmt: skip
    if args.json:
        print(json.dumps({"card": card.model_dump(), "sha256": card.sha256, "census": counted.to_json(), **facts}))
    else:
        _print(card, counted, facts, args.sites)
    return EXIT_OK


def _record_named(name: str) -> Path | None:
    """Return the record that is meant: a JSON file, `last`, or the beginning of an id; None for a card."""
    from pibench.records.store import find_record

    if not (name.endswith(".json") or re.match(r"(last|latest)(~\d+)?$|\d{8}T", name)):
        return None
    return find_record(name)


def _show_record(path: Path, name: str, *, as_json: bool) -> int:
    """Print every case and every price; a screen that is narrower than the table gets the answer first."""
    from rich.console import Console

    from pibench.records.files import dump_record, load_record
    from pibench.reporting.screen.details import answer
    from pibench.reporting.screen.fitting import screen_width
    from pibench.reporting.screen.summary import summary

    record = load_record(path)
    if as_json:
        print(dump_record(record))
        return EXIT_OK
    if (width := screen_width(WHOLE)) < WHOLE:
        print("\n".join(summary(record, width)))
        print(f"\n{WHOLE} columns show every figure: widen the screen, or\npibench show {name} | less -S")
        return EXIT_OK
    Console(width=width, highlight=False).print(answer(record))
    return EXIT_OK


def _trained(checkpoint: Path | None) -> dict[str, Any] | None:
    if checkpoint is None:
        return None
    from pibench.training.checkpoint import read_metadata

    meta = read_metadata(checkpoint)
    return {"path": str(checkpoint), **{key: meta.get(key) for key in ("accuracy", "n_test", "dataset", "epochs")}}


def _predicted(program: Program, args: argparse.Namespace) -> dict[str, Any] | None:
    """Return rounds, bytes and time under a protocol, where the harness can tell."""
    if args.protocol is None:
        if args.provider is not None:
            raise UsageError("a provider is one of a protocol's options", remedy="name the protocol: --protocol masked")
        if args.link is not None:
            raise UsageError("a link is for a prediction", remedy="name the protocol: --protocol masked")
        return None
    options = {} if args.provider is None else {"provider": args.provider}
    try:
        predict = importlib.import_module("pibench.run.predict").predict
    except ModuleNotFoundError as error:
        raise UsageError("costs cannot be predicted here", remedy="`pibench run` measures them") from error
    predicted: dict[str, Any] = predict(program, args.protocol, args.link or "loopback", args.batch, options)
    return predicted


def _print(card: Card, counted: Census, facts: dict[str, Any], sites: bool) -> None:
    from rich.console import Console

    from pibench.reporting.screen.census import lines, prediction, site_table, stage_table

    console = Console(highlight=False)
    console.print(f"[bold]{card.name}[/bold]  {card.title}")
    for line in prediction(facts["predicted"]):
        console.print(line, markup=False, soft_wrap=True)
    console.print(stage_table(counted))
    if sites:
        console.print(site_table(counted))
    for line in lines(card, counted, facts):
        console.print(line, highlight=False)
    if card.relu_count != counted.relu_count and not (card.network.activation == "masked" and not facts["checkpoint"]):
        raise UsageError(
            f"the card says {card.relu_count:,} ReLUs, its network has {counted.relu_count:,}", where=str(card.path)
        )
