"""Plaintext interpreter of a program: the oracle that every private inference is compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pibench.errors import UsageError
from pibench.lowering.program import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Input,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Poly,
    Program,
    Rearrange,
    Relu,
    Shift,
    Slice,
    Subtract,
    Weights,
)

Watch = Callable[[Op, list[Tensor]], None]


@torch.no_grad()
def evaluate(
    program: Program, weights: Weights, images: Tensor, dtype: torch.dtype = torch.float32, *,
    watch: Watch | None = None,
) -> Tensor:  # fmt: skip
    """Return the logits of a batch of images, computed in the clear in this type; `watch` sees every op's inputs."""
    if tuple(images.shape[1:]) != program.input_shape:
        raise UsageError(f"images have shape {tuple(images.shape[1:])}, the program takes {program.input_shape}")
    weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    values: dict[str, Tensor] = {}
    last_reader = {name: op.name for op in program for name in op.inputs}
    for op in program:
        inputs = [values[name] for name in op.inputs]
        if watch is not None:
            watch(op, inputs)
        values[op.name] = images.to(dtype) if isinstance(op, Input) else apply(op, inputs, weights, program)
        for name in op.inputs:
            if last_reader[name] == op.name:
                values.pop(name, None)
    return values[program.output.name]


def apply(op: Op, inputs: list[Tensor], weights: Weights, program: Program) -> Tensor:
    """Apply one operation in the clear to batched inputs."""
    x = inputs[0]
    match op:
        case Conv():
            bias = weights[op.bias] if op.bias is not None else None
            return F.conv2d(x, weights[op.weight], bias, op.stride, op.padding, op.dilation, op.groups)
        case Linear():
            return F.linear(x, weights[op.weight], weights[op.bias] if op.bias is not None else None)
        case Relu() | Poly():
            return _activation(op, x, weights, program)
        case Add():
            return x + inputs[1]
        case Subtract():
            return x - inputs[1]
        case Shift():
            return x + op.amount
        case AvgPool():
            return F.avg_pool2d(x, op.kernel, op.stride, op.padding)
        case MaxPool():
            return F.max_pool2d(x, op.kernel, op.stride, op.padding)
        case _:
            return reshape(op, inputs, program)


def reshape(op: Op, inputs: list[Tensor], program: Program) -> Tensor:
    """Apply one of the operations that only move values (of any type, ring elements too)."""
    x = inputs[0]
    match op:
        case Flatten():
            return x.flatten(1)
        case Slice():
            x = x if op.channels is None else x[:, op.channels[0] : op.channels[1]]
            return x if x.dim() == 2 else x[:, :, :: op.stride[0], :: op.stride[1]]
        case PadChannels():
            return F.pad(x, (0, 0, 0, 0, op.before, op.after))
        case Concat():
            return torch.cat(inputs, dim=1)
        case Rearrange():
            index = program.masks[op.index].to(x.device)
            joined = torch.cat([value.flatten(1) for value in inputs], dim=1)
            taken = joined.index_select(1, index.clamp(min=0))
            return taken.masked_fill(index < 0, 0).reshape(len(x), *op.shape)
        case _:
            raise UsageError(f"operation {op.name} ({type(op).__name__}) is unknown here")


def _activation(op: Relu | Poly, x: Tensor, weights: Weights, program: Program) -> Tensor:
    if isinstance(op, Relu):
        y = x.relu()
    else:
        c2, c1, c0 = (c.reshape(-1, *[1] * (x.dim() - 2)) for c in weights[op.coefficients])
        y = (c2 * x + c1) * x + c0
    return y if op.mask is None else torch.where(program.masks[op.mask].to(x.device), y, x)
