"""`pibench show package.module:factory`: what one's own network holds and costs, or what is refused; nothing runs."""

from __future__ import annotations

import argparse
import json
import re
from typing import TYPE_CHECKING, Any

from pibench.errors import EXIT_OK, EXIT_USAGE, UnsupportedLayer, UsageError

if TYPE_CHECKING:
    from pibench.lowering.lower import Lowered
    from pibench.networks.census import Census

_FACTORY = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


def is_factory(name: str) -> bool:
    """Whether a name is that of a user's factory."""
    return _FACTORY.match(name) is not None


def show_model(args: argparse.Namespace, predicted: Any) -> int:
    """Print the census of a user's network; `predicted` tells its cost. Status 4 where anything is refused."""
    if args.input is None:
        raise UsageError("your own network needs the shape of its images", remedy="add --input C,H,W, such as 3,32,32")
    from pibench.lowering.merge import merge
    from pibench.networks.census import census

    try:
        made = _lowered(args)
    except UnsupportedLayer as error:
        if not args.json:
            raise
        print(json.dumps({"model": args.card, "refused": list(error.refused) or [str(error)]}))
        return EXIT_USAGE
    counted = census(made.program)
    runs, _, merged = merge(made.program, made.weights)
    told = predicted(made.program if args.no_merge else runs, args)
    if args.json:
        facts = {"census": counted.to_json(), "notes": made.notes, "refused": [], "predicted": told}
        print(json.dumps({"model": args.card, **facts}))
        return EXIT_OK
    _print(args, counted, [*made.notes, *(merged.render().splitlines()[:1] if merged.merged else [])], told)
    return EXIT_OK


def _lowered(args: argparse.Namespace) -> Lowered:
    from pibench.lowering.lower import lowered
    from pibench.run.factory import call_factory

    module = call_factory(args.card).eval()
    if args.weights is not None:
        from pibench.training.runs import load_into

        load_into(module, args.weights)
    return lowered(module, args.input, output=args.output)


def _print(args: argparse.Namespace, counted: Census, notes: list[str], told: dict[str, Any] | None) -> None:
    from rich.console import Console

    from pibench.reporting.screen.census import counts, prediction, site_table, stage_table

    console = Console(highlight=False)
    console.print(f"[bold]{args.card}[/bold]  input {'x'.join(map(str, args.input))}")
    for line in prediction(told):
        console.print(line, soft_wrap=True, markup=False)
    console.print(stage_table(counted))
    if args.sites:
        console.print(site_table(counted))
    for line in [*counts(counted), *notes]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
