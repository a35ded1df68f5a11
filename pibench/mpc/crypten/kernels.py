"""Each operation as stock CrypTen computes it: crypten.nn modules with encrypted parameters, CrypTen tensors between.

Only encoding and decoding are ours (fixedpoint.py): values enter as ring elements and leave as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from pibench.errors import UsageError
from pibench.lowering.program import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Poly,
    Program,
    Rearrange,
    Relu,
    Shape,
    Shift,
    Slice,
    Subtract,
    Weights,
)
from pibench.mpc.crypten.compat import crypten
from pibench.mpc.protocol import SERVER
from pibench.mpc.ring.fixedpoint import FRACTION_BITS, encode

_CRYPTEN = crypten()
Shared = Any  # crypten.mpc.MPCTensor
Kernel = Callable[..., Shared]


def share(values: Tensor | None, shape: tuple[int, ...], src: int, device: str = "cpu") -> Shared:
    """Return a CrypTen tensor of real values that the party `src` knows; costs no message (seeds are shared).

    CrypTen encodes towards zero, so the ring elements are made here and its encoder is told their scale.
    """
    ring = torch.zeros(shape, dtype=torch.int64) if values is None else encode(values)
    tensor = _CRYPTEN.mpc.MPCTensor(ring.to(device), precision=0, src=src)
    tensor.encoder = _CRYPTEN.encoder.FixedPointEncoder(precision_bits=FRACTION_BITS)
    return tensor


def provider() -> Any:
    """Return CrypTen's source of correlated randomness (TrustedFirstParty), which belongs to the process."""
    return _CRYPTEN.mpc.get_default_provider()


def no_grad() -> Any:
    """Return CrypTen's context without gradients."""
    return _CRYPTEN.no_grad()


def watch_truncation(context: Callable[[], AbstractContextManager[None]]) -> Callable[[], None]:
    """Enter this context around each division of shares by the scale; returns the undoing.

    CrypTen truncates inside its products, so that there is no other place to tell the two apart.
    """
    shared = _CRYPTEN.mpc.primitives.ArithmeticSharedTensor
    stock = shared.div_

    def div_(self: Any, y: Any) -> Any:
        with context():
            return stock(self, y)

    shared.div_ = div_
    return lambda: setattr(shared, "div_", stock)


class Model:
    """A program as CrypTen modules, the server's weights encrypted in them."""

    def __init__(self, program: Program, weights: Weights | None, shapes: dict[str, Shape], device: str) -> None:
        self.program, self._device = program, device
        self._weights, self._shapes = weights, shapes
        self._kernels = {op.name: self._kernel(op) for op in program.ops[1:]}

    def apply(self, op: Op, inputs: list[Shared]) -> Shared:
        """Apply one operation to shared values."""
        return self._kernels[op.name](*inputs)

    def _parameter(self, name: str) -> Shared:
        values = self._weights[name] if self._weights is not None else None
        return share(values, self._shapes[name], SERVER, self._device)

    def _kernel(self, op: Op) -> Kernel:
        nn = _CRYPTEN.nn
        match op:
            case Conv():
                return self._conv(op)
            case Linear():
                module = nn.Linear(1, 1, bias=op.bias is not None)
                return self._encrypted(module, op)
            case Relu() | Poly():
                return self._activation(op)
            case Add():
                add = _ready(nn.Add())
                return lambda x, y: add([x, y])
            case Subtract():
                return lambda x, y: x - y
            case Shift():
                return lambda x: x + op.amount
            case Rearrange():
                return _gather(self.program.masks[op.index].to(self._device), op.shape)
            case AvgPool():
                return _ready(nn.AvgPool2d(op.kernel, op.stride, op.padding))
            case MaxPool():
                return _ready(nn.MaxPool2d(op.kernel, op.stride, op.padding))
            case Flatten():
                return _ready(nn.Flatten(1))
            case _:
                return _moves(op)

    def _conv(self, op: Conv) -> Kernel:
        module = _CRYPTEN.nn.Conv2d(
            1, 1, 1, stride=op.stride, padding=op.padding, dilation=op.dilation, groups=1, bias=op.bias is not None
        )
        module.groups = op.groups
        return self._encrypted(module, op)

    def _encrypted(self, module: Any, op: Conv | Linear) -> Kernel:
        """Put the server's shared weights where the module's own (of one element, never used) stand."""
        module.set_parameter("weight", self._parameter(op.weight))
        if op.bias is not None:
            module.set_parameter("bias", self._parameter(op.bias))
        return _ready(module)

    def _activation(self, op: Relu | Poly) -> Kernel:
        kernel = _ready(_CRYPTEN.nn.ReLU()) if isinstance(op, Relu) else self._polynomial(op)
        if op.mask is None:
            return kernel
        kept = self._kept(op.mask)
        return lambda x: _where_kept(kernel, x, kept)

    def _kept(self, mask: str) -> Tensor:
        return self.program.masks[mask].flatten().nonzero().flatten().to(self._device)

    def _polynomial(self, op: Poly) -> Kernel:
        """Return c2 x^2 + c1 x + c0: one square, then one product of both powers with their coefficients."""
        table = self._parameter(op.coefficients)  # (3, C)
        if op.mask is None:
            spread = table.view(3, -1, *[1] * (len(op.shape) - 1))
        else:  # one coefficient for each kept element
            pixels = math.prod(op.shape[1:])
            kept = self._kept(op.mask)
            spread = table.index_select(1, kept // pixels)
        c2_c1, c0 = _CRYPTEN.cat([spread[0], spread[1]]), spread[2]

        def kernel(x: Shared) -> Shared:
            powers = _CRYPTEN.cat([x.square(), x], dim=1)
            terms = powers * c2_c1
            half = x.size(1)
            return terms.narrow(1, 0, half) + terms.narrow(1, half, half) + c0

        return kernel


def _ready(module: Any) -> Kernel:
    """Tell a module that its parameters, if any, are encrypted."""
    module.encrypted = True
    return module  # type: ignore[no-any-return]


def _where_kept(kernel: Kernel, x: Shared, kept: Tensor) -> Shared:
    """Gather the kept elements, apply the activation to that vector, scatter it back: cost follows the kept count."""
    flat = x.flatten(start_dim=1)
    active = kernel(flat.index_select(1, kept))
    result = x.clone()
    if isinstance(flat.share, Tensor):
        share = flat.share.index_copy(1, kept, active.share)
    else:  # CrypTen's words on a card have no index_copy
        share = flat.share.scatter(1, kept.expand(len(flat.share), -1), active.share)
    result.share = share.view(x.size())
    return result


def _gather(index: Tensor, shape: Shape) -> Kernel:
    """Return what takes scalars of the joined values by position; position 0 of the row before them is zero."""

    def kernel(*values: Shared) -> Shared:
        flat = [value.flatten(start_dim=1) for value in values]
        joined = flat[0] if len(flat) == 1 else _CRYPTEN.cat(flat, dim=1)
        return joined.pad((1, 0)).index_select(1, index + 1).view(-1, *shape)

    return kernel


def _moves(op: Op) -> Kernel:
    """Return an operation that only moves values: the same on every share."""
    match op:
        case Slice():
            start, stop = op.channels or (0, None)
            if len(op.shape) == 1:
                return lambda x: x[:, start:stop]
            return lambda x: x[:, start:stop, :: op.stride[0], :: op.stride[1]]
        case PadChannels():
            return lambda x: x.pad((0, 0, 0, 0, op.before, op.after))
        case Concat():
            return lambda *parts: _CRYPTEN.cat(list(parts), dim=1)
        case _:
            raise UsageError(f"operation {op.name} ({type(op).__name__}) is unknown to the CrypTen protocol")
