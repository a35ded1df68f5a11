"""Operations on ring elements in the clear, at 16 fraction bits throughout; products are rounded back at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pibench.lowering.program import Add, AvgPool, Conv, Linear, MaxPool, Op, Poly, Program, Relu, Weights
from pibench.lowering.reference import reshape
from pibench.mpc import ring
from pibench.mpc.fixedpoint import FRACTION_BITS, encode, truncate

PRODUCT_BITS = 2 * FRACTION_BITS


def encode_weights(program: Program, weights: Weights) -> Weights:
    """Return the weights in the ring; a bias stands at the scale of the product that it is added to."""
    biases = {op.bias for op in program if isinstance(op, Conv | Linear)}
    return {name: encode(w, PRODUCT_BITS if name in biases else FRACTION_BITS) for name, w in weights.items()}


def apply(op: Op, inputs: list[Tensor], weights: Weights, program: Program) -> Tensor:
    """Apply one operation to batched ring elements."""
    x = inputs[0]
    match op:
        case Conv() | Linear():
            return _product(op, x, weights)
        case Relu() | Poly():
            return _activation(op, x, weights, program)
        case Add():
            return x + inputs[1]
        case AvgPool():
            count = op.kernel[0] * op.kernel[1]
            total = F.avg_pool2d(x, op.kernel, op.stride, op.padding, divisor_override=1)
            return torch.div(total + count // 2, count, rounding_mode="floor")
        case MaxPool():  # exact in float64: values stay far below 2^53
            return F.max_pool2d(x.to(torch.float64), op.kernel, op.stride, op.padding).to(torch.int64)
        case _:
            return reshape(op, inputs)


def _product(op: Conv | Linear, x: Tensor, weights: Weights) -> Tensor:
    if isinstance(op, Conv):
        y = ring.conv2d(x, weights[op.weight], op.stride, op.padding, op.dilation, op.groups)
    else:
        y = ring.linear(x, weights[op.weight])
    if op.bias is not None:
        y = y + weights[op.bias].reshape(-1, *[1] * (y.dim() - 2))
    return truncate(y)


def _activation(op: Relu | Poly, x: Tensor, weights: Weights, program: Program) -> Tensor:
    if isinstance(op, Relu):
        y = x.clamp(min=0)
    else:
        c2, c1, c0 = (c.reshape(-1, *[1] * (x.dim() - 2)) for c in weights[op.coefficients])
        y = truncate((truncate(c2 * x) + c1) * x) + c0
    return y if op.mask is None else torch.where(program.masks[op.mask].to(x.device), y, x)
