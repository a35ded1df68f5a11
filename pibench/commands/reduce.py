"""`pibench reduce METHOD CARD`: from one network to many with fewer ReLUs, and the frontier among them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pibench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from pibench.networks.card import Card
    from pibench.reduction.forecast import Forecast
    from pibench.reduction.output import Row
    from pibench.reduction.study import Study

METHODS = ("deepreduce", "deepreshape", "snl", "senet", "coordinate", "taylor", "prune", "poly")
ALIASES = {"hybrenet": "deepreshape", "pruning": "prune", "drd": "deepreduce"}
CACHE = Path(".pibench/reduce")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("method", help=f"{', '.join(METHODS)}, several with commas, or all")
    parser.add_argument("card", help="the network to start from: a card's name or file")
    parser.add_argument(
        "-b", "--budget", default="0.5,0.1", metavar="LIST",
        help="ReLUs, or shares of the card's (default 0.5,0.1); deepreduce makes its own ladder",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="cards, checkpoints and table go there")
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="show the plan and the expected time, train nothing"
    )
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="trainings at a time, in processes")
    parser.add_argument("--ray", metavar="ADDRESS", help="train on the Ray cluster there (extra `ray`)")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="the card's trained weights (else it is trained)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="of every student, instead of the card's recipe")
    parser.add_argument("--warm", action="store_true", help="students start from the full network's weights")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of one training (default 1)")
    parser.add_argument(
        "--cache", type=Path, default=CACHE, metavar="DIR", help=f"finished trainings (default {CACHE})"
    )
    parser.add_argument(
        "--frontier-only", action="store_true", help="of DeepReDuce's candidates write only its own frontier"
    )
    parser.add_argument(
        "-s", "--set", action="append", default=[], metavar="NAME=VALUE",
        help="a method's setting: exponent, thinning, order, granularity, threshold, density, match, macs, ...; "
        "recipe.NAME sets one of every recipe",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Reduce."""
    os.environ["PIBENCH_THREADS"] = str(args.threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    from pibench.networks.card import load_card
    from pibench.reduction.forecast import forecast
    from pibench.reduction.tasks import Cache

    methods, card, cache = _methods(args.method), load_card(args.card), Cache(args.cache)
    study = _study(args, card)
    plan = forecast(study, methods, cache)
    print(_plan_text(plan, args))
    if args.dry_run:
        return EXIT_OK
    return _train(args, study, methods, cache)


def _train(args: argparse.Namespace, study: Study, methods: list[str], cache: Any) -> int:
    from pibench.reduction.drive import drive
    from pibench.reduction.jobs import runner
    from pibench.reduction.output import HEADINGS, cells, front, ranking, write
    from pibench.reporting.screen.fitting import screen_width, wrapped

    width = screen_width()

    def say(text: str) -> None:
        for line in text.splitlines():
            print("\n".join(wrapped(line, width)), flush=True)

    outcome = drive(study, methods, runner(cache, say, args.jobs, args.ray))
    folder = args.output or CACHE / "out" / f"{study.card.name}-{'-'.join(methods)}"
    found = write(outcome, cache, folder, not args.frontier_only)
    print("\n".join(["", *fitting([HEADINGS, *cells(found)], width), ""]))
    print(ranking(found, study.budgets))
    on_it = f"{len(front(found))} of {len(found)} networks on the frontier (x; o: on their method's own){_own(found)}"
    print("\n".join(["", *wrapped(on_it, width), *wrapped(f"cards, checkpoints and table in {folder}", width)]))
    return EXIT_OK


def fitting(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a table of networks, its headings first, for a screen: the least important columns go for want of room."""
    from pibench.reporting.screen.fitting import fitted

    importance = {"method": 2, "ReLU layers": 4, "MACs, M": 3, "merged, M": 5, "epochs": 1}
    columns = [(importance.get(column[0], 0), column) for column in zip(*rows, strict=True)]
    return fitted(columns, width)[0]


def _own(found: list[Row]) -> str:
    """Say how long DeepReDuce's own frontier is, where it made one."""
    from pibench.reduction.output import front

    own = front(row for row in found if row.task.method in {"full", "deepreduce"})
    made = any(row.task.method == "deepreduce" for row in own)
    return f", {len(own)} on that of DeepReDuce and the full network" if made else ""


def _methods(text: str) -> list[str]:
    words = METHODS if text == "all" else [ALIASES.get(word, word) for word in text.split(",")]
    if unknown := [word for word in words if word not in METHODS]:
        raise UsageError(f"there is no method '{unknown[0]}'", remedy=f"methods: {', '.join(METHODS)}, all")
    return list(dict.fromkeys(words))


def _study(args: argparse.Namespace, card: Card) -> Study:
    from pibench.reduction.study import Study

    settings = dict(_setting(text) for text in args.set)
    overrides = {k.removeprefix("recipe."): settings.pop(k) for k in list(settings) if k.startswith("recipe.")}
    if args.epochs is not None and args.epochs < 1:
        raise UsageError(f"--epochs {args.epochs} trains nothing", remedy="give at least 1")
    distillation = {"temperature": 4.0, "weight": 0.9}
    if "views" in settings:
        distillation["views"] = settings.pop("views")
    return Study(
        card, tuple(_budget(word, card) for word in args.budget.split(",")), args.checkpoint, args.epochs,
        distillation=distillation, warm=args.warm, settings=settings, overrides=overrides,
    )  # fmt: skip


def _budget(word: str, card: Card) -> int:
    try:
        value = float(word)
    except ValueError:
        raise UsageError(f"'{word}' is no budget", where="--budget", remedy="give counts or shares: 0.5,0.1") from None
    budget = int(value * card.relu_count) if value < 1 else int(value)
    if not 0 < budget <= card.relu_count:
        raise UsageError(f"a budget of {word} is not within {card.name}'s {card.relu_count:,} ReLUs", where="--budget")
    return budget


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"'{text}' is no setting", where="--set", remedy="write NAME=VALUE")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, {"true": True, "false": False}.get(value, value)


def _plan_text(plan: Forecast, args: argparse.Namespace) -> str:
    left, seconds = plan.left, sum(plan.seconds.values())
    lines = []
    if args.dry_run:
        for key, task in plan.outcome.tasks.items():
            state = "done" if key in plan.done else f"{plan.seconds[key]:6.0f} s"
            lines.append(f"  {state:>8}  {task.action:<6} {task.epochs:4d} epochs  {task.name}")
    trained = sum(1 for task in left if task.epochs)
    lines.append(
        f"{len(plan.outcome.tasks)} tasks, {len(plan.done)} done, {trained} trainings left: about "
        f"{seconds / 60:.1f} min of one core (a step of the base network takes {1e3 * plan.step_s:.0f} ms)"
        + (f", {seconds / 60 / args.jobs:.1f} min in {args.jobs} processes" if args.jobs > 1 else "")
    )
    return "\n".join(lines)
