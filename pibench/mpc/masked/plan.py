"""The plan: this protocol's steps, with the scale and the valid ring bits of every value.

Each value v is held as v = server + client (mod 2^bits). The client's part never depends on an input: it is known
before the online phase. So a linear layer costs nothing online, and only ReLUs and ring extensions talk.
A plan is made by `planner.py`, which turns a program into steps, and `bits.py`, which gives every value its ring. What
a step does is its gadget's business: `gadgets/`, a file a kind of step.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pibench.lowering import program as ir
from pibench.lowering.program import Shape
from pibench.mpc.masked.options import Options, Window
from pibench.mpc.ring.wide import words_for

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Value:
    """One secret-shared tensor (shape without the batch dimension)."""

    name: str
    shape: Shape
    scale: int  # fractional bits
    bits: int = 0  # valid ring bits, filled in by the backward pass
    drawn: bool = False  # the dealer knows the client's part
    beyond: int = 0  # bits by which it may exceed the protocol's range: one for a difference of two values

    @property
    def count(self) -> int:
        """Scalars of one image."""
        return math.prod(self.shape)

    @property
    def words(self) -> int:
        """Words a scalar of a part: one, but for what is wide (`ring/wide.py`)."""
        return words_for(self.bits)

    @property
    def wire_bytes(self) -> int:
        """Bytes a scalar on the wire."""
        return -(-self.bits // 8)

    def window(self, options: Options) -> Window:
        """Return what an opening of it compares."""
        return options.window(self.scale, self.beyond)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the plan; `out` and `inputs` name values, `op` is the operation that it serves."""

    rounds: ClassVar[int] = 0  # messages, one the answer to the other
    kind: ClassVar[str] = ""  # what the meter books it as, where not as its operation
    chains: ClassVar[bool] = False  # a ReLU's: takes the gaps of a whole window at once
    opens: ClassVar[bool] = False  # looks at its input through a window, however many bits its output has
    out: str
    inputs: tuple[str, ...]
    op: ir.Op

    @property
    def talks(self) -> bool:
        """Whether the parties talk online."""
        return self.rounds > 0

    @cached_property
    def label(self) -> tuple[str, str, str]:
        """Kind, stage and site under which the meter books it."""
        return self.kind or self.op.kind, self.op.stage, self.op.site or self.op.name

    @property
    def fingerprint(self) -> bytes:
        """What tells this step from another one."""
        return str(self).encode()


@dataclass(frozen=True)
class Plan:
    """Steps in order and their values; the last step makes the logits."""

    steps: tuple[Step, ...]
    values: dict[str, Value]
    options: Options
    channels: dict[str, Index] = field(default_factory=dict)  # polynomial's weighing -> channel of each of its elements
    batch: int = 1  # images that go through together

    def count(self, name: str) -> int:
        """Return the scalars of a value for a batch."""
        return self.values[name].count * self.batch

    @property
    def output(self) -> Value:
        """The logits."""
        return self.values[self.steps[-1].out]

    @property
    def output_shift(self) -> int:
        """Low bits of the server's part of the logits that are not sent: what lies below the fraction bits."""
        return self.output.scale - self.options.fraction_bits

    @property
    def answer_bytes(self) -> int:
        """Bytes a logit on the wire."""
        return -(-(self.output.bits - self.output_shift) // 8)

    @cached_property
    def groups(self) -> list[list[Step]]:
        """Steps in the order in which they run: alone, or those that talk and do not depend on each other together.

        A step's level is how many talks its inputs have behind them; what talks on one level shares its rounds.
        """
        levels: dict[str, int] = {}
        talking: dict[int, list[Step]] = {}
        alone: dict[int, list[Step]] = {}
        for step in self.steps:
            level = levels[step.out] = max((levels[name] for name in step.inputs), default=0) + step.talks
            (talking if step.talks else alone).setdefault(level, []).append(step)
        groups: list[list[Step]] = []
        for level in range(max(levels.values()) + 1):
            groups += [talking[level]] if level in talking else []
            groups += [[step] for step in alone.get(level, [])]
        return groups

    @property
    def rounds(self) -> int:
        """Messages of one inference, one the answer to the other, without the logits."""
        return sum(max(step.rounds for step in group) for group in self.groups)

    def is_wide(self, step: Step) -> bool:
        """Whether a step makes or reads a value of more than a word."""
        return any(self.values[name].words > 1 for name in (step.out, *step.inputs))

    @cached_property
    def windows(self) -> dict[str, Window]:
        """What an opening of each value compares, by the value's name."""
        return {name: value.window(self.options) for name, value in self.values.items()}

    @cached_property
    def sha256(self) -> str:
        """Hash of the steps and of the values that they make: material fits the plan that it was made for, alone."""
        digest = hashlib.sha256()
        for step in self.steps:
            digest.update(step.fingerprint + f" {self.values[step.out]}\n".encode())
        return digest.hexdigest()
