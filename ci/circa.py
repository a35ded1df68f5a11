"""What a sign alone costs in answers (Circa): `python ci/circa.py drd-c100-12k --private 20 --images 10000`.

Two tables for a trained network, a row for every number of dropped bits:

* *measured*: real parties answer some images; every ReLU's output is put together from both parts and held against
  max(x, 0). Faults that can be seen (of more than a unit) are counted beside what the formula says for these very
  inputs, 1 - (x + 1) / 2^dropped for a positive x; with them the answers whose class is another one than in plaintext.
* *accuracy*: the same network in plaintext on many images, with faults drawn from that formula.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from masked_pair import run_masked

from pibench.lowering import reference
from pibench.lowering.lower import lower
from pibench.lowering.merge import merge
from pibench.lowering.program import Op, Program, Relu, Weights
from pibench.mpc.crypto.garbling.circuits import sign_circuit
from pibench.mpc.delphi.protocol import DelphiProtocol
from pibench.mpc.masked.gadgets.relu_circa import Circa
from pibench.networks.build import build, stage_of
from pibench.networks.card import load_card
from pibench.training.checkpoint import load_checkpoint
from pibench.training.data import load_dataset, normalise
from pibench.training.find_checkpoint import find_checkpoint

FRACTION_BITS, BATCH, AT_ONCE = 16, 10, 500
DROPPED = (0, 16, 20, 24, 26, 28)


@dataclass
class Seen:
    """ReLUs of real parties: how many, how many positive, faults seen, and those that the formula says."""

    relus: int = 0
    positive: int = 0
    faults: int = 0
    predicted: float = 0.0
    variance: float = 0.0
    parts: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # the client's of input and output

    def count(self, gadget: Circa, x: np.ndarray, y: np.ndarray) -> None:
        """Take one layer's inputs and outputs, the server's parts of them."""
        of_input, of_output = self.parts.pop(gadget.step.out)
        x = _signed(x.reshape(-1) + of_input, gadget.plan.values[gadget.step.inputs[0]].bits)
        y = _signed(y.reshape(-1) + of_output, gadget.out.bits)
        want, dropped = np.maximum(x, 0) >> gadget.step.shift, gadget.step.dropped
        chance = np.clip(1 - (x + 1) / 2.0**dropped, 0, 1)[(x >= 0) & (want > 1)]
        self.relus += x.size
        self.positive += int((x > 0).sum())
        self.faults += int((np.abs(y - want) > 1).sum())
        self.predicted += float(chance.sum())
        self.variance += float((chance * (1 - chance)).sum())


def _signed(values: np.ndarray, bits: int) -> np.ndarray:
    return values << (64 - bits) >> (64 - bits)


@contextmanager
def observed() -> Generator[Seen]:
    """Look at both parties' parts of every sign's input and output."""
    seen, make, talk = Seen(), Circa.make_client, Circa.server

    def make_client(self: Circa, ends: Any, number: int, half: Any, inputs: list[Any]) -> Any:
        seen.parts[self.step.out] = np.asarray(inputs[0]).reshape(-1).copy(), np.asarray(half.part).reshape(-1).copy()
        return make(self, ends, number, half, inputs)

    def server(self: Circa, parts: dict[str, Any], half: Any) -> Any:
        yield from talk(self, parts, half)
        seen.count(self, *(np.asarray(parts[name]) for name in (self.step.inputs[0], self.step.out)))

    with mock.patch.object(Circa, "make_client", make_client), mock.patch.object(Circa, "server", server):
        yield seen


def measure(program: Program, weights: Weights, images: Tensor, dropped: int) -> str:
    """Return the row of real parties."""
    plain = reference.evaluate(program, weights, images).argmax(1)
    with observed() as seen:
        got = []
        for batch in images.split(BATCH):
            outcome = run_masked(
                program, weights, [batch], protocol=DelphiProtocol, sign_only=True, dropped_bits=dropped
            )
            got.append(outcome.logits[0].argmax(1))
    changed = int((torch.cat(got) != plain).sum())
    return (
        f"| {dropped} | {seen.relus:,} | {seen.faults:,} ({seen.faults / seen.relus:.3%}) | {seen.predicted:,.0f} ± "
        f"{2 * seen.variance**0.5:.0f} | {changed} of {len(images)} |"
    )


def score(program: Program, weights: Weights, images: Tensor, labels: Tensor, dropped: int) -> str:
    """Return the row of plaintext with faults drawn."""
    right = changed = faults = relus = 0
    draws = torch.Generator().manual_seed(dropped)

    def faulty(op: Op, inputs: list[Tensor], own: Weights, whole: Program) -> Tensor:
        nonlocal faults, relus
        y = plain(op, inputs, own, whole)
        if not isinstance(op, Relu) or not dropped:
            return y
        x = inputs[0]
        # of a sum of masked parts modulo 2^dropped, the carry is missed where the uniform part exceeds x
        missed = (x > 0) & (torch.rand(x.shape, generator=draws) >= x * 2.0 ** (2 * FRACTION_BITS - dropped))
        if op.mask is not None:
            missed &= whole.masks[op.mask]
        faults, relus = faults + int(missed.sum()), relus + x.numel()
        return torch.where(missed, 0.0, y)

    plain = reference.apply
    for batch, truth in zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True):
        want = reference.evaluate(program, weights, batch).argmax(1)
        with mock.patch.object(reference, "apply", faulty):
            got = reference.evaluate(program, weights, batch).argmax(1)
        right, changed = right + int((got == truth).sum()), changed + int((got != want).sum())
    n = len(images)
    return (
        f"| {dropped} | {2.0 ** (dropped - 2 * FRACTION_BITS):.2g} | {sign_circuit(45 - dropped, True).ands} | "
        f"{faults / relus if relus else 0:.2%} | {100 * changed / n:.2f} % | {100 * right / n:.2f} % |"
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("--dropped", type=int, nargs="+", default=DROPPED)
    parser.add_argument("--private", type=int, default=20, help="images that real parties answer")
    parser.add_argument("--images", type=int, default=10_000, help="images for the accuracy")
    args = parser.parse_args()
    card = load_card(args.network)
    module = build(card.network).eval()
    module.load_state_dict(load_checkpoint(find_checkpoint(card))[0])
    program, weights = merge(*lower(module, card.network.input_shape, stage_of))[:2]
    data = load_dataset(card.dataset, train=False)
    images = normalise(data.test_images[: args.images], data.mean, data.std)
    print("| dropped bits | ReLUs | faults seen | by the formula | classes changed |\n|---|---|---|---|---|")
    for dropped in args.dropped:
        print(measure(program, weights, images[: args.private], dropped), flush=True)
    print("\n| dropped bits | a value of | ANDs | faults | classes changed | accuracy |\n|---|---|---|---|---|---|")
    for dropped in args.dropped:
        print(score(program, weights, images, data.test_labels[: args.images], dropped), flush=True)


if __name__ == "__main__":
    main()
