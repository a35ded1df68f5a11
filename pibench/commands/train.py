"""`pibench train`: train a card's network, several of them, or a plan."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pibench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from pibench.networks.card import Card
    from pibench.training.plan import TeacherChoice
    from pibench.training.progress import Report

# Turns that a thread of torch's waits for others before it sleeps, some 100 us: by default it waits longer, and keeps a
# core from threads that are waited for themselves (four times as slow beside another process).
BRIEFLY = "10000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("cards", nargs="*", metavar="CARD", help="name or file of a network card; with --plan, names of its rounds")
    add(
        "--plan",
        type=Path,
        metavar="FILE",
        help="train the rounds of this plan in order, or those named; each goes on where it stopped, and processes "
        "that train different rounds may share a state folder",
    )
    add("--state", type=Path, metavar="DIR", help="with --plan: where states, logits and results go")
    add("--epochs", type=int, metavar="N", help="instead of the recipe's")
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help="go on with an interrupted run (default)")
    add("--force", action="store_true", help="train even where there is a checkpoint")
    add("--threads", type=int, default=0, metavar="N", help="threads (default: torch's own)")
    add("--device", default="cpu", metavar="NAME", help="torch device: cpu (default), cuda, cuda:1")
    teacher = parser.add_mutually_exclusive_group()
    teacher.add_argument("--teacher", metavar="CARD[=FILE]", help="teacher instead of the card's, and its checkpoint")
    teacher.add_argument("--no-teacher", action="store_true", help="train without distillation")


def run(args: argparse.Namespace) -> int:
    """Train."""
    _check(args)
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", BRIEFLY)
    import torch

    from pibench.training.progress import best_report

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"there is no device '{args.device}' here", remedy="`pibench doctor` says what there is")
    report = best_report()
    try:
        paths = _plan(args, report) if args.plan else [_one(card, args, report) for card in args.cards]
    finally:
        report.close()
    for path in [] if args.plan else paths:
        print(_told(path))
    return EXIT_OK


def _check(args: argparse.Namespace) -> None:
    if not args.cards and args.plan is None:
        raise UsageError("what to train?", remedy="name cards (`pibench ls` lists them), or give --plan FILE")
    if args.threads < 0:
        raise UsageError(f"--threads must be positive, not {args.threads}")
    if args.epochs is not None and not 1 <= args.epochs <= 10000:
        raise UsageError(f"--epochs must be from 1 to 10000, not {args.epochs}")
    if args.plan and (args.epochs or args.teacher or args.no_teacher or args.force):
        raise UsageError("--epochs, --teacher and --force do not go with --plan", remedy="the plan's file says it all")


def _plan(args: argparse.Namespace, report: Report) -> list[Path]:
    from pibench.training.find_checkpoint import STATE
    from pibench.training.plan import load_plan
    from pibench.training.runs import run_plan

    def done(path: Path) -> None:
        print(_told(path), flush=True)

    return run_plan(lambda: load_plan(args.plan), args.state or STATE, report, done, args.device, args.cards)


def _one(name: str, args: argparse.Namespace, report: Report) -> Path:
    from pibench.networks.card import load_card
    from pibench.training.find_checkpoint import find_checkpoint, recipe_of, target_of, train_card

    card = load_card(name)
    recipe = recipe_of(card)
    if args.epochs:
        recipe = recipe.model_copy(update={"epochs": args.epochs})
    choice = _teacher(card, args)
    target = target_of(card, recipe)
    if not args.force and choice is None and not args.no_teacher:
        found = target if args.epochs else find_checkpoint(card)
        if found is not None and found.is_file():
            print(f"{card.name} is trained already (--force trains it again)")
            return found
    return train_card(
        card,
        recipe=recipe,
        teacher=choice,
        alone=args.no_teacher,
        report=report,
        resume=args.resume and not args.force,
        device=args.device,
    )


def _teacher(card: Card, args: argparse.Namespace) -> TeacherChoice | None:
    from pibench.training.plan import TeacherChoice

    if args.teacher is None:
        return None
    name, _, file = args.teacher.partition("=")
    if file and not Path(file).is_file():
        raise UsageError("there is no such checkpoint", where=file)
    return TeacherChoice(card=name, checkpoint=file or None)


def _told(path: Path) -> str:
    from pibench.training.metadata import read_metadata

    meta = read_metadata(path)
    if "accuracy" not in meta:
        return str(path)
    worst = meta.get("worst_class")
    least = f" (of the worst class {worst['accuracy']:.1f} %)" if worst else ""
    return f"{meta['card']}: {meta['accuracy']:.2f} % of {meta['n_test']:,} test images{least}, {path}"
