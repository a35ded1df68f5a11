"""`pibench train`: train a card's network, several of them, or a plan."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pibench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from pibench.training.train import Progress

LINE_EVERY_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cards", nargs="*", metavar="CARD", help="name or file of a network card")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="train the rounds of this plan, in order, resuming")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where states, logits and results go")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="threads of torch (default: torch's own)")


class LineReport:
    """Progress as plain lines, at most one a minute and one an epoch: for logs."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, p: Progress) -> None:
        """Print one line where it is time."""
        now = time.monotonic()
        if p.step and not p.note and now - self.last < LINE_EVERY_S:
            return
        self.last = now
        clock = time.strftime("%H:%M:%S")
        if p.note:
            print(f"{clock} {p.card} {p.note}", flush=True)
            return
        test = f" test {p.test_accuracy:.2f} %" if p.test_accuracy is not None else ""
        print(
            f"{clock} {p.card} epoch {p.epoch}/{p.epochs} step {p.step}/{p.steps} loss {p.loss:.3f} "
            f"train {p.train_accuracy:.2f} %{test} lr {p.lr:.4f} {p.elapsed_s:.0f} s, {p.remaining_s:.0f} s left",
            flush=True,
        )


def run(args: argparse.Namespace) -> int:
    """Train."""
    if not args.cards and args.plan is None:
        raise UsageError("nothing to train", remedy="name a card (`pibench ls` lists them) or give --plan FILE")
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import torch

    from pibench.training.plan import Plan, Round, load_plan
    from pibench.training.runs import STATE, run_plan

    if args.threads:
        torch.set_num_threads(args.threads)
    state = args.state or STATE
    fixed = Plan(rounds=[Round(card=card) for card in args.cards]) if args.cards else None
    paths = run_plan(lambda: fixed or load_plan(args.plan), state, LineReport(), lambda path: print(f"wrote {path}", flush=True))
    print(f"{len(paths)} trained")
    return EXIT_OK
