"""What the lowering writes into: operations, float64 weights and masks, and the BatchNorms that fold at the end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from pibench.errors import UnsupportedLayer
from pibench.lowering.program import INPUT, Conv, Input, Linear, Op, Pair, Program, Shape, Weights

SUPPORTED = (
    "convolutions, linear layers, BatchNorm with its statistics, ReLU (under masks too), ReLU6, LeakyReLU, PReLU, "
    "clamp, polynomials of degree 2 a channel, average and max pools, sums, differences, products with constants, "
    "and all that only moves values (views, slices, padding, shuffles, concatenation)"
)


@dataclass(frozen=True)
class Ref:
    """A value of the program: its name and its shape for one image."""

    name: str
    shape: Shape

    @property
    def count(self) -> int:
        """Scalars of one image."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Call:
    """One call in the traced module: where it stands, and where its operation goes."""

    builder: Builder
    site: str  # path of the module, or of the enclosing module and the call's own name
    stage: str
    operation: str  # as the user knows it, for messages
    out: Shape  # shape of its result for one image, as torch computed it
    function: str = ""  # torch's name of what is called

    def emit(self, cls: type[Op], *inputs: Ref, **fields: Any) -> Ref:
        """Append an operation of this class and return its value."""
        name = self.builder.unique(self.site)
        names = tuple(ref.name for ref in inputs)
        fields.setdefault("shape", self.out)
        op = cls(name=name, inputs=names, stage=self.stage, site=self.site, **fields)
        self.builder.ops.append(op)
        return Ref(name, op.shape)

    def weight(self, suffix: str, tensor: Tensor) -> str:
        """Store a weight of the operation that comes next; each operation has its own copy (folding changes it)."""
        return self.builder.store(f"{self.builder.peek(self.site)}.{suffix}", tensor)

    def mask(self, tensor: Tensor) -> str | None:
        """Keep a public tensor under the name of the operation that comes next; a mask that keeps all is none."""
        if tensor.dtype == torch.bool and bool(tensor.all()):
            return None
        name = self.builder.peek(self.site)
        self.builder.masks[name] = tensor.detach().to("cpu").clone()
        return name

    def error(self, reason: str) -> UnsupportedLayer:
        """Return the one error that says which module, which operation, why, and what would work."""
        return UnsupportedLayer(
            f"{self.operation} cannot be lowered: {reason}",
            where=f"module {self.site}",
            remedy=f"supported: {SUPPORTED}",
        )

    def refuse(self, reason: str) -> NoReturn:
        """Raise that error."""
        raise self.error(reason)


class Builder:
    """Collects a program while the traced module is walked."""

    def __init__(self, input_shape: Shape) -> None:
        self.ops: list[Op] = [Input(name=INPUT, inputs=(), shape=input_shape)]
        self.weights: Weights = {}
        self.masks: dict[str, Tensor] = {}
        self.scalings: set[str] = set()  # BatchNorms written as depthwise convolutions: candidates for folding
        self._names: set[str] = {INPUT}
        self.image = Ref(INPUT, input_shape)

    def ref(self, name: str) -> Ref:
        """Return the value that an operation made."""
        return Ref(name, next(op.shape for op in self.ops if op.name == name))

    def peek(self, site: str) -> str:
        """Return the name that the next operation of this site will have."""
        name, count = site, 0
        while name in self._names:
            count += 1
            name = f"{site}_{count}"
        return name

    def unique(self, site: str) -> str:
        """Take a name for an operation of this site."""
        name = self.peek(site)
        self._names.add(name)
        return name

    def store(self, name: str, tensor: Tensor) -> str:
        """Keep a weight in float64 until everything has been folded."""
        where = "meta" if tensor.is_meta else "cpu"  # without data, a network is lowered just to be counted
        self.weights[name] = tensor.detach().to(where, torch.float64).clone()
        return name

    def finish(self, output: Ref) -> tuple[Program, Weights]:
        """Fold BatchNorms and drop what the output does not need; weights are float64 still."""
        result = self._fold(output.name)
        ops = live(self.ops, result)
        used = {name for op in ops for name in weight_names(op)}
        masks = {name: self.masks[name] for op in ops for name in mask_names(op)}
        weights = {name: self.weights[name].contiguous() for name in self.weights if name in used}
        return Program(tuple(ops), masks), weights

    def _fold(self, result: str) -> str:
        """Fold each scaling into the convolution or linear layer before it, where nothing else reads that one."""
        ops = live(self.ops, result)
        for name in [op.name for op in ops if op.name in self.scalings]:
            by_name = {op.name: op for op in ops}
            scaling = by_name[name]
            before = by_name[scaling.inputs[0]]
            alone = sum(before.name in op.inputs for op in ops) == 1
            if not isinstance(before, Conv | Linear) or not alone:
                continue
            folded = self._scaled(before, scaling)
            rest = [op for op in ops if op is not scaling]
            ops = [folded if op is before else renamed(op, name, before.name) for op in rest]
            result = before.name if result == name else result
        self.ops = ops
        return result

    def _scaled(self, before: Conv | Linear, scaling: Op) -> Op:
        """Return the layer with the scaling's factor in its weights and its shift in its bias."""
        assert isinstance(scaling, Conv | Linear)
        factor = self.weights[scaling.weight]
        factor = factor.diagonal() if isinstance(scaling, Linear) else factor.flatten()
        weight = self.weights[before.weight]
        self.weights[before.weight] = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
        if before.bias is None and scaling.bias is None:
            return before
        bias = self.weights[before.bias] if before.bias is not None else torch.zeros_like(factor)
        name = before.bias or f"{before.name}.bias"
        self.weights[name] = bias * factor + (self.weights[scaling.bias] if scaling.bias is not None else 0.0)
        return dataclasses.replace(before, bias=name)


def weight_names(op: Op) -> list[str]:
    """Return the names of the weights that an operation reads."""
    names = [getattr(op, field, None) for field in ("weight", "bias", "coefficients")]
    return [name for name in names if name is not None]


def mask_names(op: Op) -> list[str]:
    """Return the names of the public tensors that an operation reads."""
    return [name for field in ("mask", "index") if (name := getattr(op, field, None)) is not None]


def renamed(op: Op, old: str, new: str) -> Op:
    """Return the operation reading `new` wherever it read `old`."""
    return dataclasses.replace(op, inputs=tuple(new if name == old else name for name in op.inputs))


def live(ops: list[Op], result: str) -> list[Op]:
    """Return the operations that the value `result` depends on, and the input, in order."""
    needed = {result, INPUT}
    kept: list[Op] = []
    for op in reversed(ops):
        if op.name in needed:
            kept.append(op)
            needed.update(op.inputs)
    return kept[::-1]


def pair(value: int | Sequence[int]) -> Pair:
    """Return torch's int-or-pair as a pair."""
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[-1]))
