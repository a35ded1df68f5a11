"""Truncations over many values: `python ci/truncations.py --values 100000000`.

Values drawn over the whole declared range pass through real parties of the masked protocol: a ReLU with its truncation,
a chain of linear layers whose truncations are free or extend the ring, and a block whose shortcut is extended beside a
ReLU. Each must come back within one unit in the last place a truncation; a wrap would be off by thousands. Exit status
1 if any is not.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from masked_pair import run_masked

from pibench.lowering.program import Add, Conv, Input, Op, Program, Relu
from pibench.mpc.masked.gadgets.extend import Extend
from pibench.mpc.masked.gadgets.local import Drop
from pibench.mpc.masked.gadgets.remask import Remask
from pibench.mpc.masked.gadgets.tables import ReluStep
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Step
from pibench.mpc.masked.planner import plan_program

AT_ONCE = 1_000_000
UNIT = 2.0**-16
LARGEST = 2.0 ** Options().range_bits
LINEAR = 5  # layers of the chain: two free truncations and two that extend the ring
Made = tuple[Program, dict[str, torch.Tensor]]


def chain(linear: int, count: int) -> Made:
    """Products by one, then a ReLU: max(x, 0)."""
    shape = (1, 1, count)
    ops: list[Op] = [Input(name="input", inputs=(), shape=shape)]
    for k in range(linear):
        ops.append(_times_one(f"c{k}", ops[-1].name, count))
    ops.append(Relu(name="relu", inputs=(ops[-1].name,), shape=shape))
    return Program(tuple(ops)), {"w": torch.ones(1, 1, 1, 1)}


def block(count: int) -> Made:
    """Products by one, a ReLU and a shortcut beside it, which add up to 2 max(x, 0) after another ReLU."""
    shape = (1, 1, count)
    ops: list[Op] = [
        Input(name="input", inputs=(), shape=shape), _times_one("first", "input", count),
        _times_one("inner", "first", count), Relu(name="relu", inputs=("inner",), shape=shape),
        _times_one("outer", "relu", count), _times_one("shortcut", "first", count),
        Add(name="sum", inputs=("outer", "shortcut"), shape=shape), _times_one("last", "sum", count),
        Relu(name="end", inputs=("last",), shape=shape),
    ]  # fmt: skip
    return Program(tuple(ops)), {"w": torch.ones(1, 1, 1, 1)}


def _times_one(name: str, source: str, count: int) -> Conv:
    return Conv(name=name, inputs=(source,), shape=(1, 1, count), weight="w", bias=None, kernel=(1, 1))


def truncates(step: Step) -> bool:
    """Whether a step drops low bits."""
    return isinstance(step, Drop | ReluStep | Extend | Remask) and step.shift > 0


def draw(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return fixed-point numbers of all magnitudes up to the range's end, of both signs."""
    magnitude = 2.0 ** (torch.rand(count, generator=generator, dtype=torch.float64) * 28 - 16)
    sign = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    return (sign * magnitude.clamp(max=LARGEST - 2 * UNIT) / UNIT).round() * UNIT


def main() -> int:
    """Try as many values as asked for; print the worst error in units, and how many truncations there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=AT_ONCE)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    generator, done, start, worst, failed = torch.Generator().manual_seed(args.seed), 0, time.monotonic(), 0.0, 0
    turn = 0
    while done < args.values:
        count = min(AT_ONCE, args.values - done)
        made, weights = (chain(1, count), chain(LINEAR, count), block(count))[turn % 3]
        factor = 2 if turn % 3 == 2 else 1
        steps = [step for step in plan_program(made, Options()).steps if truncates(step)]
        x = draw(count, generator) if factor == 1 else (draw(count, generator) / 2 / UNIT).round() * UNIT
        (logits,) = run_masked(made, weights, [x.view(1, 1, 1, -1)]).logits
        units = (logits.double().flatten() - factor * x.clamp(min=0)).abs() / UNIT
        rounding = x.abs() * 2.0**-24 / UNIT  # logits come as float32
        allowed = factor * len(steps)  # in the block, what goes wrong before its two branches counts twice
        beyond = units > allowed + rounding
        worst, failed = max(worst, ((units - rounding) / allowed).max().item()), failed + int(beyond.sum())
        done, turn = done + count, turn + 1
        if turn % 10 == 0 or done == args.values:
            spent = time.monotonic() - start
            print(f"{done:,} values, {failed} off; worst {worst:.3f} units a truncation; {spent:.0f} s", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
