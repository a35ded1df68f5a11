"""Operations on ring elements in the clear, at 16 fraction bits throughout; products are rounded back at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pibench.lowering.program import (
    Add,
    AvgPool,
    Conv,
    Linear,
    MaxPool,
    Op,
    Poly,
    Program,
    Relu,
    Shift,
    Subtract,
    Weights,
)
from pibench.lowering.reference import reshape
from pibench.mpc.backends.backend import Backend
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.ring.conv import RingConv
from pibench.mpc.ring.fixedpoint import FRACTION_BITS, encode, truncate
from pibench.mpc.ring.words import RingMatrix, round_down

PRODUCT_BITS = 2 * FRACTION_BITS

Product = Callable[[Tensor], Tensor]


def encode_weights(program: Program, weights: Weights) -> Weights:
    """Return the weights in the ring; a bias stands at the scale of the product that it is added to."""
    biases = {op.bias for op in program if isinstance(op, Conv | Linear)}
    return {name: encode(w, PRODUCT_BITS if name in biases else FRACTION_BITS) for name, w in weights.items()}


def prepare_products(
    program: Program, weights: Weights, device: str, batch: int, range_bits: int
) -> dict[str, Product]:
    """Return every linear operation by name, with bias and rounding, made ready once; `weights` in host memory."""
    bits = PRODUCT_BITS + range_bits + 1
    linear = [op for op in program if isinstance(op, Conv | Linear)]
    if device != "cpu":
        backend = backend_for(device)
        return {op.name: _on_device(op, program, weights, backend, batch, bits) for op in linear}
    return {op.name: _on_processor(op, program, weights, bits) for op in linear}


def _on_device(
    op: Conv | Linear, program: Program, weights: Weights, backend: Backend, batch: int, bits: int
) -> Product:
    weight, bias = weights[op.weight], _bias(op, weights).reshape(-1, *[1] * (len(op.shape) - 1))
    if isinstance(op, Linear):
        product = backend.matrix(weight, batch=batch, bits=bits)
    else:
        product = backend.conv(
            weight, program.op(op.inputs[0]).shape, batch=batch, bits=bits, stride=op.stride, padding=op.padding,
            dilation=op.dilation, groups=op.groups,
        )  # fmt: skip
    unused, bias = 64 - bits, bias.to(backend.device)

    def multiply(x: Tensor) -> Tensor:
        made: Tensor = product(x, bias.expand(len(x), *op.shape).contiguous())
        return truncate(made << unused >> unused)

    return multiply


def _on_processor(op: Conv | Linear, program: Program, weights: Weights, bits: int) -> Product:
    weight, bias = weights[op.weight], _bias(op, weights).numpy()
    product = RingMatrix(weight) if isinstance(op, Linear) else RingConv(
        weight, program.op(op.inputs[0]).shape, bits=bits, stride=op.stride, padding=op.padding,
        dilation=op.dilation, groups=op.groups,
    )  # fmt: skip
    unused = 0 if isinstance(product, RingMatrix) else 64 - bits  # bits of a word above those of the ring

    def multiply(x: Tensor) -> Tensor:
        made = product(x.numpy())
        round_down(made.reshape(len(made), len(bias), -1), bias, unused, FRACTION_BITS)
        return torch.from_numpy(made)

    return multiply


def _bias(op: Conv | Linear, weights: Weights) -> Tensor:
    return weights[op.bias] if op.bias is not None else torch.zeros(op.shape[0], dtype=torch.int64)


def apply(op: Op, inputs: list[Tensor], weights: Weights, program: Program, products: dict[str, Product]) -> Tensor:
    """Apply one operation to batched ring elements."""
    x = inputs[0]
    match op:
        case Conv() | Linear():
            return products[op.name](x)
        case Relu() | Poly():
            return _activation(op, x, weights, program)
        case Add():
            return x + inputs[1]
        case Subtract():
            return x - inputs[1]
        case Shift():
            return x + encode(torch.tensor(op.amount)).to(x.device)
        case AvgPool():
            count = op.kernel[0] * op.kernel[1]
            total = _window_sums(x, op)
            return torch.div(total + count // 2, count, rounding_mode="floor")
        case MaxPool():  # exact in float64: values stay far below 2^53
            return F.max_pool2d(x.to(torch.float64), op.kernel, op.stride, op.padding).to(torch.int64)
        case _:
            return reshape(op, inputs, program)


def _window_sums(x: Tensor, op: AvgPool) -> Tensor:
    if x.device.type == "cpu":
        return F.avg_pool2d(x, op.kernel, op.stride, op.padding, divisor_override=1)
    total: Tensor = backend_for(str(x.device)).pool_sum(x, op.kernel, op.stride, op.padding)  # of integers, on a card
    return total


def _activation(op: Relu | Poly, x: Tensor, weights: Weights, program: Program) -> Tensor:
    if isinstance(op, Relu):
        y = x.clamp(min=0)
    else:
        c2, c1, c0 = (c.reshape(-1, *[1] * (x.dim() - 2)) for c in weights[op.coefficients])
        y = truncate((truncate(c2 * x) + c1) * x) + c0
    return y if op.mask is None else torch.where(program.masks[op.mask].to(x.device), y, x)
