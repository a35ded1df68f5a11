"""Merging adjacent linear operations where no ReLU stands between them and it takes no more multiplications.

What is merged: a convolution, average pool or fully connected layer into the convolution before it, the sum of two
convolutions (or of one and a shortcut) over one input, and all that is linear before a flat value into one matrix.
Reduced networks have such neighbours; whether merging pays is a matter of sizes, since the kernels of merged layers
grow, and zero padding in between forbids it for convolutions: the report says. What is merged follows from the
program alone, not from the weights, which are secret.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pibench.lowering import compose, tail
from pibench.lowering.builder import live, mask_names, weight_names
from pibench.lowering.compose import Window
from pibench.lowering.program import Add, AvgPool, Conv, Flatten, Linear, Op, Program, Shape, Weights


@dataclass(frozen=True)
class Merge:
    """Two operations that became one, or did not."""

    first: str
    second: str
    macs_before: int
    macs_after: int
    reason: str = ""  # why not; empty where they were merged


@dataclass(frozen=True)
class MergeReport:
    """What merging did to a program, in multiplications for one image."""

    merged: tuple[Merge, ...]
    refused: tuple[Merge, ...]
    macs_before: int
    macs_after: int
    ops_before: int
    ops_after: int

    def render(self) -> str:
        """Return the report as text."""
        change = 1 - self.macs_after / self.macs_before if self.macs_before else 0.0
        pairs = "1 pair" if len(self.merged) == 1 else f"{len(self.merged)} pairs"
        lines = [
            f"merged {pairs}: {self.macs_before:,} -> {self.macs_after:,} MACs ({change:.1%} fewer), "
            f"{self.ops_before} -> {self.ops_after} operations"
        ]
        lines += [f"  {m.second} into {m.first}: {m.macs_before:,} -> {m.macs_after:,}" for m in self.merged]
        lines += [f"  not {m.second} into {m.first}: {m.reason}" for m in self.refused]
        return "\n".join(lines)


def merge(program: Program, weights: Weights) -> tuple[Program, Weights, MergeReport]:
    """Return the program with adjacent linear operations merged (weights through float64), and what that did."""
    graph = _Graph(program, weights)
    before = graph.macs()
    merged: list[Merge] = []
    while done := graph.step():
        merged.append(done)
    result, values = graph.finish()
    report = MergeReport(
        tuple(merged), tuple(graph.refused), before, graph.macs(), len(program.ops), len(result.ops)
    )  # fmt: skip
    return result, values, report


class _Graph:
    """A program under change."""

    def __init__(self, program: Program, weights: Weights) -> None:
        self._program = program
        self._ops = list(program.ops)
        self._weights: dict[str, Tensor] = {name: w.to(torch.float64) for name, w in weights.items()}
        self.refused: list[Merge] = []

    def step(self) -> Merge | None:
        """Merge the first pair that can be; return None, with all refusals, where there is none."""
        self.refused = []
        for op in self._ops:
            done = self._sum(op) if isinstance(op, Add) else self._chain(op)
            if done is not None and not done.reason:
                return done
            if done is not None:
                self.refused.append(done)
        return next((done for op in reversed(self._ops) if (done := self._tail(op))), None)

    def finish(self) -> tuple[Program, Weights]:
        """Return the changed program and its weights."""
        ops = live(self._ops, self._ops[-1].name)
        used = {name for op in ops for name in weight_names(op)}
        weights = {name: w.to(torch.float32) for name, w in self._weights.items() if name in used}
        return Program(tuple(ops), {name: self._program.masks[name] for op in ops for name in mask_names(op)}), weights

    def macs(self) -> int:
        """Return the multiplications of all linear operations."""
        return self._macs_after(self._ops)

    def _macs_after(self, ops: list[Op]) -> int:
        shapes = {op.name: op.shape for op in ops}
        return sum(op.shape[0] * shapes[op.inputs[0]][0] if isinstance(op, Linear) else self._macs_of(op) for op in ops)

    def _macs_of(self, op: Op) -> int:
        if isinstance(op, Linear):
            return self._weights[op.weight].numel()
        return self._window(op).macs(self._shape(op.inputs[0])) if isinstance(op, Conv) else 0

    def _chain(self, op: Op) -> Merge | None:
        """Merge an operation into the convolution before it."""
        if isinstance(op, Linear) and isinstance(self._op(op.inputs[0]), Linear):
            return self._matrices(op)
        flat = self._op(op.inputs[0]) if isinstance(op, Linear) else None
        first = self._op(flat.inputs[0]) if isinstance(flat, Flatten) else self._before(op)
        if not isinstance(first, Conv) or not isinstance(op, Conv | Linear | AvgPool):
            return None
        shape = self._shape(first.inputs[0])
        one, two = self._window(first), self._window(op, flat)
        before = self._macs_of(first) + self._macs_of(op)
        after = compose.chain_macs(one, two, shape)
        alone = self._alone(first) and (flat is None or self._alone(flat))
        reason = "" if alone else "the value between them is read elsewhere too"
        reason = reason or compose.border_reason(one, two) or _dearer(before, after)
        if not reason:
            self._put(op, (first, *([flat] if flat else [])), compose.chain(one, two), first.inputs[0])
        return Merge(first.name, op.name, before, after, reason)

    def _matrices(self, op: Linear) -> Merge:
        """Merge a fully connected layer into the one before it."""
        first = self._op(op.inputs[0])
        assert isinstance(first, Linear)
        one, two = self._weights[first.weight], self._weights[op.weight]
        before, after = one.numel() + two.numel(), two.shape[0] * one.shape[1]
        reason = _dearer(before, after) if self._alone(first) else "the value between them is read elsewhere too"
        if not reason:
            bias = compose.chain(_flat(one, self._bias(first)), _flat(two, self._bias(op))).bias
            weight, name = self._store(op, two @ one, bias)
            new = dataclasses.replace(op, inputs=first.inputs, weight=weight, bias=name)
            self._ops = [new if o is op else o for o in self._ops if o is not first]
        return Merge(first.name, op.name, before, after, reason)

    def _sum(self, op: Add) -> Merge | None:
        """Merge the sum of two convolutions over one input, or of a convolution and its own input."""
        left, right = (self._op(name) for name in op.inputs)
        if isinstance(left, Conv) and left.inputs[0] == right.name:
            first, other = left, None
        elif isinstance(right, Conv) and right.inputs[0] == left.name:
            first, other = right, None
        elif isinstance(left, Conv) and isinstance(right, Conv) and left.inputs == right.inputs and left is not right:
            first, other = left, right
        else:
            return None
        shape = self._shape(first.inputs[0])
        one = self._window(first)
        two = self._window(other) if other else compose.identity(shape[0], one.groups, one)
        both = compose.beside(one, two)
        before = self._macs_of(first) + (self._macs_of(other) if other else 0)
        after = both.macs(shape) if both else before
        reason = "" if all(self._alone(c) for c in (first, other) if c) else "one of them is read elsewhere too"
        if not reason and (both is None or both.size(shape) != op.shape[1:]):
            reason = "their strides or sizes differ"
        reason = reason or _dearer(before, after)
        if not reason and both:
            self._put(op, (first, *([other] if other else [])), both, first.inputs[0])
        return Merge(first.name, op.name, before, after, reason)

    def _tail(self, op: Op) -> Merge | None:
        """Put one matrix where all that leads to a flat value from some earlier one stood, if that is cheaper."""
        if len(op.shape) != 1 or not isinstance(op, tail.LINEAR):
            return None
        before, after, entry = self.macs(), math.inf, ""
        for name in tail.entries(self._ops, op):
            tried = self._with_tail(op, self._op(name))
            if (macs := self._macs_after(tried)) <= after:
                after, entry, ops = macs, name, tried
        if after >= before:
            return None
        between, masks = tail.stretch(self._ops, entry, op), self._program.masks
        self._store(op, *tail.matrix(between, self._op(entry), self._weights, masks))
        self._ops = ops
        return Merge(entry, op.name, before, int(after))

    def _with_tail(self, op: Op, entry: Op) -> list[Op]:
        """Return the operations with one matrix from `entry` to `op`."""
        flat = Flatten(
            name=f"{op.name}.flat", inputs=(entry.name,), shape=(math.prod(entry.shape),), stage=op.stage, site=op.site
        )
        made = Linear(
            name=op.name, inputs=(flat.name,), shape=op.shape, stage=op.stage, site=op.site,
            weight=f"{op.name}.merged.weight", bias=f"{op.name}.merged.bias",
        )  # fmt: skip
        return live([new for o in self._ops for new in ([flat, made] if o is op else [o])], self._ops[-1].name)

    def _put(self, op: Op, gone: tuple[Op, ...], window: Window, source: str) -> None:
        """Put one convolution where `op` and those before it stood; its value keeps the name of `op`."""
        height, width = window.size(self._shape(source))
        shape = (window.weight.shape[0], height, width)
        weight, bias = self._store(op, window.weight, window.bias)
        flat = len(op.shape) == 1
        conv = Conv(
            name=f"{op.name}.conv" if flat else op.name, inputs=(source,), shape=shape, stage=op.stage, site=op.site,
            weight=weight, bias=bias, kernel=window.kernel, stride=window.stride, padding=window.padding,
            dilation=window.dilation, groups=window.groups,
        )  # fmt: skip
        new: list[Op] = [conv]
        if flat:
            new.append(Flatten(name=op.name, inputs=(conv.name,), shape=op.shape, stage=op.stage, site=op.site))
        self._ops = [n for o in self._ops if o not in gone for n in (new if o is op else [o])]

    def _store(self, op: Op, weight: Tensor, bias: Tensor | None) -> tuple[str, str | None]:
        names = f"{op.name}.merged.weight", f"{op.name}.merged.bias"
        self._weights[names[0]] = weight
        if bias is not None:
            self._weights[names[1]] = bias
        return names[0], names[1] if bias is not None else None

    def _window(self, op: Op, flat: Op | None = None) -> Window:
        """Return an operation as a convolution; a linear layer spans the whole of what was flattened before it."""
        if isinstance(op, Conv):
            return Window(self._weights[op.weight], self._bias(op), op.stride, op.padding, op.dilation, op.groups)
        if isinstance(op, AvgPool):
            channels, count = op.shape[0], op.kernel[0] * op.kernel[1]
            like = next(iter(self._weights.values()))
            weight = like.new_full((channels, 1, *op.kernel), 1.0 / count)
            return Window(weight, None, op.stride, op.padding, groups=channels)
        assert isinstance(op, Linear)
        assert flat is not None
        weight = self._weights[op.weight]
        return Window(weight.reshape(weight.shape[0], *self._shape(flat.inputs[0])), self._bias(op))

    def _bias(self, op: Conv | Linear) -> Tensor | None:
        return self._weights[op.bias] if op.bias is not None else None

    def _before(self, op: Op) -> Op | None:
        return self._op(op.inputs[0]) if len(op.inputs) == 1 else None

    def _op(self, name: str) -> Op:
        return next(op for op in self._ops if op.name == name)

    def _shape(self, name: str) -> Shape:
        return self._op(name).shape

    def _alone(self, op: Op) -> bool:
        """Whether one operation alone reads this value, once, and it is not the program's result."""
        return sum(o.inputs.count(op.name) for o in self._ops) == 1 and op is not self._ops[-1]


def _dearer(before: int, after: int) -> str:
    return f"it would take {after:,} MACs instead of {before:,}" if after > before else ""


def _flat(weight: Tensor, bias: Tensor | None) -> Window:
    return Window(weight[:, :, None, None], bias)
