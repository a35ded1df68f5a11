"""A program: a network lowered to a short list of typed operations, with BatchNorm folded and every ReLU site named.

Structure is public and known to both parties (operations, shapes, masks); weights belong to the server alone and
travel beside it as a plain `dict[str, Tensor]`. Shapes are those of one image, without the batch dimension.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pibench.errors import UsageError

Shape = tuple[int, ...]
Pair = tuple[int, int]
Weights = dict[str, Tensor]

INPUT = "input"


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation; `name` is also the name of the value that it makes, `inputs` the values that it reads."""

    kind: ClassVar[str] = "other"  # attribution: linear, relu, truncation or other
    name: str
    inputs: tuple[str, ...]
    shape: Shape  # of the output, one image
    stage: str = ""  # "stem", "S1".. "S4", "head", or "" where the network names none
    site: str = ""  # the torch module or call that it came from


@dataclass(frozen=True, kw_only=True)
class Input(Op):
    """The client's image."""


@dataclass(frozen=True, kw_only=True)
class Conv(Op):
    """2-d convolution; `weight` (O, C/groups, *kernel) and `bias` (O,) name tensors of the weights."""

    kind: ClassVar[str] = "linear"
    weight: str
    bias: str | None
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclass(frozen=True, kw_only=True)
class Linear(Op):
    """Fully connected layer on a flat value; `weight` (O, I), `bias` (O,)."""

    kind: ClassVar[str] = "linear"
    weight: str
    bias: str | None


@dataclass(frozen=True, kw_only=True)
class Add(Op):
    """Sum of two values of one shape."""


@dataclass(frozen=True, kw_only=True)
class Relu(Op):
    """max(x, 0) where the mask (boolean, the value's shape, public) is true, x elsewhere; without one everywhere."""

    kind: ClassVar[str] = "relu"
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class Poly(Op):
    """c2 x^2 + c1 x + c0 where the mask is true (everywhere without one), x elsewhere.

    `coefficients` names a weight of shape (3, C) holding c2, c1, c0 a channel; they are the server's, like weights.
    """

    kind: ClassVar[str] = "relu"
    coefficients: str
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class AvgPool(Op):
    """Average over windows; zero padding counts in the divisor. Global and adaptive pools are lowered to this."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclass(frozen=True, kw_only=True)
class MaxPool(Op):
    """Maximum over windows; padding never wins."""

    kind: ClassVar[str] = "relu"
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Flatten(Op):
    """(C, H, W) to (C*H*W,)."""


@dataclass(frozen=True, kw_only=True)
class Slice(Op):
    """Every `stride`-th pixel in both directions, and channels `channels[0]:channels[1]` (None: all)."""

    stride: Pair = (1, 1)
    channels: Pair | None = None


@dataclass(frozen=True, kw_only=True)
class PadChannels(Op):
    """Zero channels before and after (the parameter-free shortcut of CIFAR ResNets)."""

    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class Concat(Op):
    """Values joined along channels."""


@dataclass(frozen=True, kw_only=True)
class Subtract(Op):
    """The first value less the second, of one shape."""


@dataclass(frozen=True, kw_only=True)
class Shift(Op):
    """The value and a public number: the 6 of ReLU6."""

    amount: float


@dataclass(frozen=True, kw_only=True)
class Rearrange(Op):
    """Scalars of the flattened, joined inputs by position: shuffles, permutations, padding in space.

    `index` names a public tensor (int64, as many as the output has scalars); -1 stands for zero.
    """

    index: str


OPS: dict[str, type[Op]] = {
    cls.__name__: cls
    for cls in (
        Input, Conv, Linear, Add, Subtract, Shift, Relu, Poly, AvgPool, MaxPool, Flatten, Slice, PadChannels, Concat,
        Rearrange,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """Operations in an order in which each reads only earlier values; the last one makes the logits."""

    ops: tuple[Op, ...]
    masks: Mapping[str, Tensor] = field(default_factory=dict)  # public tensors: boolean masks, positions of a Rearrange

    def __post_init__(self) -> None:
        known: set[str] = set()
        for op in self.ops:
            if missing := [name for name in op.inputs if name not in known]:
                raise UsageError(f"operation {op.name} reads {missing}, which nothing before it makes")
            if op.name in known:
                raise UsageError(f"two operations are named {op.name}")
            known.add(op.name)
            if isinstance(op, Rearrange) and op.index in self.masks:
                _check_positions(op, self.masks[op.index], sum(math.prod(self.op(name).shape) for name in op.inputs))
        if not self.ops or not isinstance(self.ops[0], Input):
            raise UsageError("a program starts with its input")

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    @property
    def input_shape(self) -> Shape:
        """Shape of one image."""
        return self.ops[0].shape

    @property
    def output(self) -> Op:
        """The operation that makes the logits."""
        return self.ops[-1]

    def op(self, name: str) -> Op:
        """Return the operation that makes the value `name`."""
        return next(op for op in self.ops if op.name == name)

    def weight_shapes(self) -> dict[str, Shape]:
        """Return the shape of every weight, which is public: the client has no other way to know."""
        shapes: dict[str, Shape] = {}
        for op in self.ops:
            if isinstance(op, Conv | Linear):
                inputs = self.op(op.inputs[0]).shape[0]
                tail = (inputs // op.groups, *op.kernel) if isinstance(op, Conv) else (inputs,)
                shapes[op.weight] = (op.shape[0], *tail)
                if op.bias is not None:
                    shapes[op.bias] = (op.shape[0],)
            elif isinstance(op, Poly):
                shapes[op.coefficients] = (3, op.shape[0])
        return shapes

    def readers(self, name: str) -> list[Op]:
        """Return the operations that read the value `name`."""
        return [op for op in self.ops if name in op.inputs]

    def kept(self, op: Relu | Poly) -> int:
        """Return how many scalars of one image the activation acts on."""
        if op.mask is not None:
            return int(self.masks[op.mask].sum())
        return int(torch.Size(op.shape).numel())

    @property
    def relu_count(self) -> int:
        """Evaluated scalar ReLUs for one image (papers' convention: max-pool comparisons are not counted)."""
        return sum(self.kept(op) for op in self.ops if isinstance(op, Relu))

    def to_json(self) -> list[dict[str, Any]]:
        """Return the structure (without masks' contents) as plain data."""
        return [{"op": type(op).__name__, **dataclasses.asdict(op)} for op in self.ops]

    @classmethod
    def from_json(cls, data: list[dict[str, Any]], masks: Mapping[str, Tensor] | None = None) -> Program:
        """Rebuild a program from `to_json`; raises UsageError for an unknown operation or field."""
        if not isinstance(data, list):
            raise UsageError("a program is a list of operations")
        return cls(tuple(_op_from(number, row) for number, row in enumerate(data)), dict(masks or {}))

    @property
    def sha256(self) -> str:
        """Hash of everything public: what offline material is bound to."""
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode())
        for name in sorted(self.masks):
            mask = self.masks[name].contiguous()
            mask = mask.to(torch.uint8) if mask.dtype == torch.bool else mask
            digest.update(f"{name}{tuple(mask.shape)}".encode() + mask.numpy().tobytes())
        return digest.hexdigest()


def load_masks(path: str | None) -> dict[str, Tensor]:
    """Return the public tensors of a program's safetensors file; none without one."""
    from safetensors.torch import load_file

    found = load_file(path) if path else {}
    return {name: tensor if tensor.dtype == torch.int64 else tensor.bool() for name, tensor in found.items()}


def _check_positions(op: Rearrange, index: Tensor, count: int) -> None:
    """Refuse positions outside of the inputs: they would read another value's memory."""
    fits = index.dtype == torch.int64 and index.numel() == math.prod(op.shape)
    if not fits or not index.numel() or int(index.min()) < -1 or int(index.max()) >= count:
        raise UsageError(f"operation {op.name} takes positions that its inputs have not")


def _op_from(number: int, row: Any) -> Op:
    """Rebuild one operation; the fields that every operation has must be of their types."""
    try:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k != "op"}
        op = OPS[row["op"]](**values)
        names, sizes = (op.name, op.stage, op.site, *op.inputs), tuple(op.shape)
        if not all(isinstance(name, str) for name in names) or not all(type(size) is int for size in sizes):
            raise TypeError("name, inputs or shape are of another type")
        return op
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"operation {number} of the program is malformed: {error}") from error
