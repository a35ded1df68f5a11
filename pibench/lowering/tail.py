"""A stretch of linear operations that ends in a flat value, as the one matrix that it is.

Culling the ReLUs of a network's last stage leaves everything from the last ReLU to the logits linear: convolutions,
shortcuts, pooling and head are then one matrix from the stage's input to the classes, whatever the borders do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pibench.lowering import reference
from pibench.lowering.program import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Input,
    Linear,
    Op,
    PadChannels,
    Program,
    Rearrange,
    Shift,
    Slice,
    Subtract,
)

LINEAR = (Add, AvgPool, Concat, Conv, Flatten, Linear, PadChannels, Rearrange, Shift, Slice, Subtract)


def entries(ops: list[Op], end: Op) -> list[str]:
    """Return the values that `end` depends on by linear operations alone and through which all of it goes, last first.

    Each of them may be taken for the input of one matrix that makes `end`.
    """
    by_name = {op.name: op for op in ops}
    frontier, found = {end.name}, []
    for op in reversed(ops[: ops.index(end) + 1]):
        if op.name not in frontier:
            continue
        if frontier == {op.name} and op is not end:
            found.append(op.name)
        if not isinstance(op, LINEAR):
            break  # all else that is still on the frontier comes before it
        frontier = (frontier - {op.name}) | set(by_name[op.name].inputs)
    return found


def stretch(ops: list[Op], entry: str, end: Op) -> list[Op]:
    """Return the operations from the value `entry` (not included) to `end`, in order."""
    needed, found = {end.name}, []
    for op in reversed(ops[: ops.index(end) + 1]):
        if op.name in needed and op.name != entry:
            found.append(op)
            needed.update(op.inputs)
    return found[::-1]


def matrix(ops: list[Op], source: Op, weights: dict[str, Tensor], masks: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return what the operations do to the value of `source`: a matrix (outputs, inputs) and a bias (outputs,).

    One pass forward, and one backward with a row of the identity for every output: its gradients are the rows. Without
    data (meta tensors) the results have none either.
    """
    outputs, inputs = ops[-1].shape[0], math.prod(source.shape)
    like = next(iter(weights.values()))
    if like.is_meta:
        return like.new_empty(outputs, inputs), like.new_empty(outputs)
    start = like.new_zeros((outputs, *source.shape)).requires_grad_()
    values = {source.name: start}
    program = Program((Input(name=source.name, inputs=(), shape=source.shape), *ops), masks)
    with torch.enable_grad():
        for op in ops:
            values[op.name] = reference.apply(op, [values[name] for name in op.inputs], weights, program)
        made = values[ops[-1].name]
        (rows,) = torch.autograd.grad(made, start, torch.eye(outputs, dtype=like.dtype, device=like.device))
    return rows.reshape(outputs, inputs), made[0].detach()
