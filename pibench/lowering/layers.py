"""How each layer with weights becomes operations. Handlers have the signature of torch's function, after the `Call`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pibench.lowering.builder import Call, Ref, pair
from pibench.lowering.moves import rearranged, reshaped
from pibench.lowering.pointwise import scaling
from pibench.lowering.program import Conv, Linear, Pair

Size = int | Sequence[int]
_TWO_SECRETS = "only a value of the network times a constant matrix; it multiplies two secret values otherwise"
MOST_WEIGHTS = 1 << 24  # of a matrix that a sum of products is written as
_SECRET_WEIGHT = "its weights are computed from the image: a product of two secret values"


def conv2d(
    call: Call, x: Ref, weight: Any, bias: Any = None, stride: Size = 1, padding: Size | str = 0, dilation: Size = 1,
    groups: int = 1,
) -> Ref:  # fmt: skip
    """Lower a 2-d convolution; padding that differs from side to side is moved into zeros around the image."""
    _constant(call, weight, bias)
    kernel, spread = pair(weight.shape[2:]), pair(dilation)
    before, after = _padding(padding, kernel, spread)
    if before != after:
        x, before = pad_space(call, x, before, after), (0, 0)
    name = call.weight("weight", weight)
    return call.emit(
        Conv, x, weight=name, bias=call.weight("bias", bias) if bias is not None else None,
        kernel=kernel, stride=pair(stride), padding=before, dilation=spread, groups=groups,
    )  # fmt: skip


def conv1d(
    call: Call, x: Ref, weight: Any, bias: Any = None, stride: Size = 1, padding: Size | str = 0, dilation: Size = 1,
    groups: int = 1,
) -> Ref:  # fmt: skip
    """Lower a 1-d convolution as a 2-d one of one row."""
    _constant(call, weight, bias)
    row = reshaped(call, x, (x.shape[0], 1, x.shape[1]))
    around = padding if isinstance(padding, str) else (0, pair(padding)[0])
    wide = dataclasses.replace(call, out=(call.out[0], 1, call.out[1]))
    made = conv2d(wide, row, weight.unsqueeze(2), bias, (1, pair(stride)[0]), around, (1, pair(dilation)[0]), groups)
    return reshaped(call, made, call.out)


def conv3d(
    call: Call, x: Ref, weight: Any, bias: Any = None, stride: Size = 1, padding: Size | str = 0, dilation: Size = 1,
    groups: int = 1,
) -> Ref:  # fmt: skip
    """Lower a 3-d convolution along its first dimension alone, as over channels, as a 2-d one of one column."""
    _constant(call, weight, bias)
    steps, pads, spread = _triple(stride), _triple(0 if isinstance(padding, str) else padding), _triple(dilation)
    if isinstance(padding, str) or (*weight.shape[3:], *steps[1:], *pads[1:]) != (1, 1, 1, 1, 0, 0):
        call.refuse("a convolution over three dimensions at once; only one along the first")
    flat = reshaped(call, x, (*x.shape[:2], math.prod(x.shape[2:])))
    wide = dataclasses.replace(call, out=(*call.out[:2], flat.shape[2]))
    made = conv2d(wide, flat, weight.flatten(3), bias, (steps[0], 1), (pads[0], 0), (spread[0], 1), groups)
    return reshaped(call, made, call.out)


def _triple(value: Size) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)


def linear(call: Call, x: Ref, weight: Any, bias: Any = None) -> Ref:
    """Lower a fully connected layer: of a flat value, or of the last dimension as a convolution of one tap."""
    _constant(call, weight, bias)
    if len(x.shape) == 1:
        name = call.weight("weight", weight)
        return call.emit(
            Linear, x, shape=call.out, weight=name, bias=call.weight("bias", bias) if bias is not None else None
        )
    channels = x.shape[-1]
    places = torch.arange(x.count).reshape(-1, channels).T
    columns = rearranged(call, [x], places.flatten(), (channels, x.count // channels, 1))
    shape = (weight.shape[0], x.count // channels, 1)
    name = call.weight("weight", weight[:, :, None, None])
    offset = call.weight("bias", bias) if bias is not None else None
    made = call.emit(Conv, columns, shape=shape, weight=name, bias=offset, kernel=(1, 1))
    back = torch.arange(made.count).reshape(shape[0], -1).T
    return rearranged(call, [made], back.flatten(), call.out)


def batch_norm(
    call: Call, x: Ref, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Ref:  # fmt: skip
    """Lower a normalisation with fixed statistics to a scaling a channel, to be folded where possible."""
    if running_mean is None or running_var is None:
        call.refuse("it has no running statistics (track_running_stats=False), and would mix the images of a batch")
    if training:
        call.refuse("it is in training mode in a network in inference: does it lie in a list that is no nn.ModuleList?")
    factor = torch.rsqrt(running_var.double() + eps)
    factor = factor * weight.double() if weight is not None else factor
    shift = -running_mean.double() * factor + (bias.double() if bias is not None else 0.0)
    if len(x.shape) in (1, 3):
        return scaling(call, x, factor, shift)
    return reshaped(call, scaling(call, reshaped(call, x, (x.shape[0], -1, 1)), factor, shift), x.shape)


def pad_space(call: Call, x: Ref, before: Pair, after: Pair, *, edge: bool = False) -> Ref:
    """Return the value with zeros, or its own edge, around the image: (rows, columns) before and after."""
    places = torch.arange(x.count, dtype=torch.float64).reshape(1, *x.shape)
    sides = (before[1], after[1], before[0], after[0])
    mode = "replicate" if edge else "constant"
    moved = torch.nn.functional.pad(places, sides, mode, None if edge else -1.0)[0]
    return rearranged(call, [x], moved.long().flatten(), tuple(moved.shape))


def _padding(padding: Size | str, kernel: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """Return a convolution's padding before and after."""
    if not isinstance(padding, str):
        return pair(padding), pair(padding)
    if padding == "valid":
        return (0, 0), (0, 0)
    whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return (whole[0] // 2, whole[1] // 2), (whole[0] - whole[0] // 2, whole[1] - whole[1] // 2)


def _constant(call: Call, *weights: Any) -> None:
    if any(isinstance(weight, Ref) for weight in weights):
        call.refuse(_SECRET_WEIGHT)


def addmm(call: Call, bias: Any, x: Any, weight: Any, *, beta: float = 1, alpha: float = 1) -> Ref:
    """Lower beta bias + alpha x weight, where the matrix and the bias are constant."""
    if not isinstance(x, Ref) or isinstance(bias, Ref):
        call.refuse(_TWO_SECRETS)
    _constant(call, weight)
    return linear(call, x, alpha * weight.T, (beta * bias).expand(weight.shape[1]))


def einsum(call: Call, equation: str, *operands: Any) -> Ref:
    """Lower a sum of products of one value and constants: a matrix, whose rows are what it makes of each scalar."""
    operands = tuple(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    values = [operand for operand in operands if isinstance(operand, Ref)]
    if len(values) != 1:
        call.refuse(_TWO_SECRETS)
    x = values[0]
    if x.count * math.prod(call.out) > MOST_WEIGHTS:
        call.refuse(f"as a matrix it would have {x.count * math.prod(call.out):,} weights; write it as a convolution")
    ones = torch.eye(x.count, dtype=torch.float64).reshape(x.count, *x.shape)
    constants = [ones if isinstance(operand, Ref) else operand.double() for operand in operands]
    if any(constant.is_meta for constant in constants):
        constants = [constant.to("meta") for constant in constants]
    rows = torch.einsum(equation, *constants).reshape(x.count, -1)
    flat = dataclasses.replace(call, out=(rows.shape[1],))
    return reshaped(call, linear(flat, reshaped(call, x, (x.count,)), rows.T), call.out)


def matmul(call: Call, x: Any, other: Any) -> Ref:
    """Lower a product with a constant matrix on the right."""
    if not isinstance(x, Ref) or not isinstance(other, Tensor) or other.dim() != 2:
        call.refuse(_TWO_SECRETS)
    return linear(call, x, other.T)
