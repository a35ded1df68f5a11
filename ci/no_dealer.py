"""Whether logits are the same with a dealer and with nobody to trust: the same images under both, between processes.

    python ci/no_dealer.py --images 500 drd-c100-12k drd-c100-57k basech-32-c100
    python ci/no_dealer.py --images 20 --structures

Names are cards; `--structures` adds networks as other people build them (tests/other_peoples.py). For each: the classes
that change between both providers, and against plaintext, and how far logits are apart, as a share of their spread. The
script ends with 1 if a class changed whose two best logits in plaintext are further apart than both errors, or if any
logit is off by more than a suite's tolerance.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import other_peoples

from pibench.run.prepare import Prepared, prepare_instance, preparer
from pibench.run.settings import CardSource, Needs
from pibench.session.launch import Nurseries
from pibench.session.session import SessionPlan, run_session

PROVIDERS = ("dealer", "two-party")
TOLERANCE = 0.01
Logits = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Row:
    """What both providers' logits say of one network."""

    name: str
    images: int
    changed: int  # classes of two-party that are not the dealer's
    wrong: int  # classes of two-party that are not plaintext's
    unexplained: int  # of both, those that are no near ties
    apart: float  # largest difference of both providers' logits, as a share of the spread
    off: float  # largest difference of two-party's from plaintext's, likewise

    @property
    def fine(self) -> bool:
        """Whether nothing but rounding tells them apart."""
        return not self.unexplained and self.off <= TOLERANCE


def prepared(names: list[str], structures: bool, images: int, folder: Path) -> Iterator[tuple[str, Prepared]]:
    """Yield networks ready to run, by name."""
    needs = Needs(images=images, plain_images=0, seed=0)
    prepare = preparer({name: CardSource(name) for name in names}, lambda line: print(line, file=sys.stderr))
    for name in names:
        yield name, prepare(name, folder / name, needs)
    generator = torch.Generator().manual_seed(5)
    for kind in other_peoples.KINDS if structures else ():
        drawn = torch.randn(images, *other_peoples.SHAPE, generator=generator)
        yield kind, prepare_instance(kind, other_peoples.network(kind), drawn, None, folder / kind, needs)


def private_logits(network: Prepared, provider: str, chosen: range, batch: int, launch: Any, folder: Path) -> Logits:
    """Return the logits of these images, a batch at a time, between two processes."""
    from pibench.run.prepare import write_images

    path = write_images(folder / "images.safetensors", network.images, chosen)
    plan = SessionPlan(
        protocol="masked", program=network.ops, weights=str(network.weights_path), images=str(path),
        masks=str(network.masks_path) if network.masks_path else None, options={"provider": provider}, batch=batch,
        warmups=0, inferences=len(chosen) // batch, offline_chunk=1, timeout_s=600.0, deadline_s=7200.0,
    )  # fmt: skip
    return np.array(run_session(plan, None, launch).logits, np.float64).reshape(len(chosen), -1)


def compare(name: str, plain: Logits, dealt: Logits, alone: Logits) -> Row:
    """Compare both providers' logits with each other and with plaintext."""
    classes, spread = [x.argmax(1) for x in (plain, dealt, alone)], float(plain.std())
    apart, off = np.abs(alone - dealt).max(1), np.abs(alone - plain).max(1)
    best = np.sort(plain, 1)
    near = best[:, -1] - best[:, -2] <= 2 * np.maximum(off, np.abs(dealt - plain).max(1))
    changed, wrong = classes[2] != classes[1], classes[2] != classes[0]
    return Row(
        name, len(plain), int(changed.sum()), int(wrong.sum()), int(((changed | wrong) & ~near).sum()),
        float(apart.max()) / spread, float(off.max()) / spread,
    )  # fmt: skip


def main() -> int:
    """Print a line a network."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="CARD")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the first of these images: a long run in pieces")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--structures", action="store_true")
    args = parser.parse_args()
    modules = ["pibench.mpc.masked.protocol", "pibench.mpc.masked.sources.dealer",
               "pibench.mpc.masked.sources.rehearsal:compile_exchanges"]  # fmt: skip
    fine = True
    with tempfile.TemporaryDirectory() as folder, Nurseries(modules) as nurseries:
        print(f"{'network':24} images  changed  not plaintext's  unexplained  apart    off plaintext")
        for name, network in prepared(args.names, args.structures, args.first + args.images, Path(folder)):
            chosen = range(args.first, min(args.first + args.images, len(network.images)))
            chosen = chosen[: len(chosen) // args.batch * args.batch]
            dealt, alone = (
                private_logits(network, provider, chosen, args.batch, nurseries.start, Path(folder))
                for provider in PROVIDERS
            )
            row = compare(name, network.reference[chosen.start : chosen.stop], dealt, alone)
            fine &= row.fine
            print(
                f"{row.name:24} {row.images:6}  {row.changed:7}  {row.wrong:15}  {row.unexplained:11}  "
                f"{row.apart:.5f}  {row.off:.5f}{'' if row.fine else '  <- not as with the dealer'}", flush=True,
            )  # fmt: skip
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
