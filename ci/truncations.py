"""Truncations of the masked protocol over many values, against integers: `python ci/truncations.py --values 100000000`.

Values of all magnitudes up to both ends of the range pass through real parties, under weights that leave every dropped
bit busy: a ReLU; the elements beside a masked ReLU (a free truncation); a chain of linear layers (fresh masks,
extensions of the ring); a shortcut that is extended beside a ReLU. The same plan is followed in integers: a truncation
may go to either neighbour of x / 2^m, and what comes out must lie between the lowest and the highest number that
follows. Before any figure, faults are planted into every kind of step: one unit too many, one too few, a wrap; each
must be found. Exit status 1 if a value is off, 2 if a planted fault is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from masked_pair import run_masked, units

from pibench.lowering.program import Add, Conv, Input, Op, Program, Relu
from pibench.mpc.masked.gadgets.extend import Extend, Extension
from pibench.mpc.masked.gadgets.gadget import AnyGadget
from pibench.mpc.masked.gadgets.image import Receive
from pibench.mpc.masked.gadgets.local import Drop, Dropping, Gather, Sum
from pibench.mpc.masked.gadgets.product import Product
from pibench.mpc.masked.gadgets.relu_truth_tables import ReluStep, Tables
from pibench.mpc.masked.gadgets.remask import FreshMask, Remask
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.planner import plan_program

OPTIONS = Options(provider="first-party")
AT_ONCE, PLANTED = 500_000, 40_000
RARELY = 20  # a planted fault strikes one value in so many
TRUNCATING = {Tables: "beside", Dropping: "beside", FreshMask: "pair", Extension: "pair"}  # kind: a network that has it
Ints = np.ndarray[Any, np.dtype[np.int64]]


class Network:
    """Layers of one weight each, over `count` values."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.ops: list[Op] = [Input(name="input", inputs=(), shape=(1, 1, count))]
        self.weights: dict[str, torch.Tensor] = {"one": torch.ones(1, 1, 1, 1)}
        self.masks: dict[str, torch.Tensor] = {}
        self.count, self.generator = count, generator

    def layer(self, name: str, source: str) -> str:
        """Multiply by an odd number of 2^-16, from 7/8 to 1 in size, of either sign."""
        sign, number = torch.randint(0, 2, (2,), generator=self.generator).tolist()
        number = 2 * int(torch.randint(7 << 12, 8 << 12, (), generator=self.generator)) + 1
        self.weights[name] = torch.full((1, 1, 1, 1), (2 * sign - 1) * number / 2**16, dtype=torch.float64)
        return self._conv(name, source, name)

    def relu(self, name: str, source: str, mask: str | None = None) -> str:
        """Add a ReLU, of the elements under the mask."""
        return self._add(Relu(name=name, inputs=(source,), shape=(1, 1, self.count), mask=mask))

    def sum(self, name: str, *sources: str) -> str:
        """Add two values."""
        return self._add(Add(name=name, inputs=sources, shape=(1, 1, self.count)))

    def end(self, source: str) -> str:
        """Multiply by one: the logits leave at the product's scale, and this adds no rounding."""
        return self._conv("end", source, "one")

    @property
    def program(self) -> Program:
        """The network."""
        return Program(tuple(self.ops), self.masks)

    def _conv(self, name: str, source: str, weight: str) -> str:
        shape = (1, 1, self.count)
        return self._add(Conv(name=name, inputs=(source,), shape=shape, weight=weight, bias=None, kernel=(1, 1)))

    def _add(self, op: Op) -> str:
        self.ops.append(op)
        return op.name


def relu(net: Network) -> None:
    """Build a product and a ReLU."""
    net.end(net.relu("relu", net.layer("first", "input")))


def beside(net: Network) -> None:
    """Build a ReLU of half of the elements, beside which the others are truncated."""
    net.masks["half"] = torch.rand(1, 1, net.count, generator=net.generator) < 0.5
    net.layer("second", net.relu("relu", net.layer("first", "input"), "half"))


def pair(net: Network) -> None:
    """Build three products: between them an extension, then a fresh mask."""
    net.layer("third", net.layer("second", net.layer("first", "input")))


def chain(net: Network) -> None:
    """Build a chain of products: extensions, and in the end a fresh mask."""
    last = "input"
    for k in range(6):
        last = net.layer(f"c{k}", last)


def block(net: Network) -> None:
    """Build a residual block behind a culled ReLU: its shortcut is extended beside the ReLU inside."""
    first = net.layer("first", "input")
    inside = net.relu("inside", net.layer("inner", first))
    net.end(net.relu("outside", net.sum("sum", net.layer("outer", inside), net.layer("shortcut", first))))


NETWORKS: dict[str, Callable[[Network], None]] = {made.__name__: made for made in (relu, beside, pair, chain, block)}


def draw(count: int, generator: torch.Generator, halved: bool) -> Ints:
    """Return fixed-point numbers of all magnitudes, of both signs, and both ends of the range (of half, in a sum)."""
    bits = OPTIONS.fraction_bits + OPTIONS.range_bits - halved
    size = 2.0 ** (torch.rand(count, generator=generator, dtype=torch.float64) * bits)
    x: Ints = (size.long() * (torch.randint(0, 2, (count,), generator=generator) * 2 - 1)).numpy()
    x[:4] = (1 << bits) - 1, -(1 << bits), 1, -1
    return x


def bounds(plan: Plan, weights: dict[str, torch.Tensor], x: Ints) -> tuple[Ints, Ints]:
    """Follow the plan in integers: the lowest and the highest number that may come out for every value."""
    f, known = OPTIONS.fraction_bits, dict[str, tuple[Ints, Ints]]()
    for step in plan.steps:
        low, high = known[step.inputs[0]] if step.inputs else (x, x)
        match step:
            case Receive():
                pass
            case Product():
                by = round(weights[step.layer.weight].item() * 2**f)
                low, high = (low * by, high * by) if by > 0 else (high * by, low * by)
            case ReluStep():
                low, high = _cut(low.clip(0), high.clip(0), step.shift)
            case Drop() | Remask() | Extend():
                low, high = _cut(low, high, step.shift)
            case Sum():
                pairs = [[end << by for end in known[name]] for name, by in zip(step.inputs, step.shifts, strict=False)]
                low, high = (sum(ends, np.int64(0)) for ends in zip(*pairs, strict=True))
            case Gather():
                ends = zip(*(known[name] for name in step.inputs), strict=True)
                low, high = (np.concatenate(end)[step.index] for end in ends)
            case _:
                raise AssertionError(f"no integers for {step}")
        known[step.out] = low, high
    return _cut(*known[plan.output.name], plan.output_shift)


def _cut(low: Ints, high: Ints, shift: int) -> tuple[Ints, Ints]:
    """Round the one down, the other up."""
    return low >> shift, -(-high >> shift)


@dataclass(frozen=True)
class Trial:
    """What one run gave: values, those beyond their bounds, by how much, and those at a bound."""

    count: int
    off: int
    worst: int  # units beyond a bound
    at_bounds: tuple[int, int]  # values at the lowest and at the highest possible number, where these differ


def trial(name: str, count: int, generator: torch.Generator, **options: Any) -> Trial:
    """Run one network on so many values and compare it with integers."""
    net = Network(count, generator)
    NETWORKS[name](net)
    program, x = net.program, draw(count, generator, halved=name == "block")
    plan = plan_program(program, OPTIONS)
    image = torch.from_numpy(x).double().view(1, 1, 1, -1) / 2**OPTIONS.fraction_bits
    outcome = run_masked(program, net.weights, [image], keep=True, **options)
    made, (low, high) = units(outcome, plan), bounds(plan, net.weights, x)
    beyond, open_ = np.maximum(low - made, made - high), low < high
    ends = int((made == low)[open_].sum()), int((made == high)[open_].sum())
    return Trial(count, int((beyond > 0).sum()), max(0, int(beyond.max())), ends)


@contextmanager
def planted(kind: type[AnyGadget], fault: str) -> Iterator[None]:
    """Let the parties' own step be off by a unit, or by a wrap of its ring, for one value in twenty."""

    def spoil(gadget: AnyGadget, part: Ints) -> None:
        struck = part.reshape(-1)[:: -RARELY if fault == "too few" else RARELY]
        bits = gadget.plan.windows[gadget.step.inputs[0]].bits - gadget.step.shift
        struck += {"too many": 1, "too few": -1, "wrap": 1 << bits}[fault]

    def talking(self: AnyGadget, parts: Any, half: Any) -> Any:
        yield from server(self, parts, half)
        if self.step.shift:
            spoil(self, parts[self.step.out])

    def silent(self: AnyGadget, inputs: Any, half: Any) -> Any:
        made = alone(self, inputs, half)
        if self.step.shift:
            spoil(self, made)
        return made

    server, alone = kind.server, kind.alone
    kind.server, kind.alone = (talking, alone) if kind in (Tables, Extension) else (server, silent)  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.server, kind.alone = server, alone  # type: ignore[method-assign]


def missed(generator: torch.Generator, count: int = PLANTED, **options: Any) -> list[str]:
    """Plant every fault into every kind of step; return those that were not found."""
    found = []
    for kind, name in TRUNCATING.items():
        for fault in ("too many", "too few", "wrap"):
            with planted(kind, fault):
                if not trial(name, count, generator, **options).off:
                    found.append(f"{fault} in {kind.__name__}")
    return found


def main(argv: list[str] | None = None) -> int:
    """Plant faults, then try as many values as asked for; print how many were off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=2_000_000)
    parser.add_argument("--planted", type=int, default=PLANTED, help="values of each run with a planted fault")
    parser.add_argument("--provider", default="first-party", choices=("first-party", "dealer", "two-party"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    generator, start = torch.Generator().manual_seed(args.seed), time.monotonic()
    if lost := missed(generator, args.planted, provider=args.provider):
        print(f"planted, and not found: {', '.join(lost)}")
        return 2
    print(f"{3 * len(TRUNCATING)} planted faults, all found", flush=True)
    done, turn, trials = 0, 0, list[Trial]()
    while done < args.values:
        count = min(AT_ONCE, args.values - done)
        trials.append(trial(list(NETWORKS)[turn % len(NETWORKS)], count, generator, provider=args.provider))
        done, turn = done + count, turn + 1
        if turn % 10 == 0 or done == args.values:
            off, worst = sum(t.off for t in trials), max(t.worst for t in trials)
            low, high = (sum(t.at_bounds[end] for t in trials) for end in (0, 1))
            print(
                f"{done:,} values, {off} off, the worst by {worst} units; {low:,} as low and {high:,} as high as may "
                f"be; {time.monotonic() - start:.0f} s", flush=True,
            )  # fmt: skip
    return int(any(t.off for t in trials))


if __name__ == "__main__":
    sys.exit(main())
