"""Linear layers: the server multiplies its own part by weights in the clear, and adds what was made offline.

The halves have K0 + K1 = W k in common, k the client's part of the input; how that comes about, without the client
learning W or the server k, is the source's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from pibench.lowering import program as ir
from pibench.lowering.program import Weights
from pibench.mpc.backends.backend import Backend, Bytes, Ints, Multiply
from pibench.mpc.masked.gadgets.gadget import PartDrawn
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.ring.fixedpoint import encode


@dataclass(frozen=True, kw_only=True)
class Product(Step):
    """A convolution or fully connected layer `layer` (the operation itself, or a polynomial's weighing): no traffic."""

    layer: ir.Conv | ir.Linear


@dataclass
class ServerHalf:
    """K0 (batch, *shape): W k - K1, to which the server adds the bias."""

    pre: Ints = field(init=False)


@dataclass
class ClientHalf:
    """K1, flat: uniform, and the client's part of the output. As it is drawn, K', to which the product is added."""

    part: Ints


class LinearLayer(PartDrawn[Product, ServerHalf, ClientHalf]):
    """See Product. As a dealer makes them, the halves are of the masked weights: `sources/dealer.py`."""

    server_half, client_half = ServerHalf, ClientHalf

    def __init__(self, plan: Plan, step: Product, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        self.layer, self.source = step.layer, plan.values[step.inputs[0]]
        self.dealt_bytes = 8 * self.size
        self._multiply: Multiply
        self._bias: Ints | None = None

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Public shape of the layer's weights."""
        channels = self.source.shape[0]
        if isinstance(self.layer, ir.Linear):
            return self.layer.shape[0], channels
        return self.layer.shape[0], channels // self.layer.groups, *self.layer.kernel

    def prepare(self, weights: Weights) -> None:
        """Encode the layer's weights and bias."""
        op, f = self.layer, self.options.fraction_bits
        weight = encode(weights[op.weight], f)
        if isinstance(op, ir.Conv):
            self._multiply = self.backend.conv(
                weight, self.source.shape, batch=self.plan.batch, bits=self.out.bits,
                stride=op.stride, padding=op.padding, dilation=op.dilation, groups=op.groups,
            )  # fmt: skip
        else:
            self._multiply = self.backend.matrix(weight, batch=self.plan.batch, bits=self.out.bits)
        if op.bias is not None:
            bias = encode(weights[op.bias], self.source.scale + f).view(-1, *[1] * (len(op.shape) - 1))
            self._bias = self.backend.lift(bias.numpy())

    def multiply_words(self, x: Ints, weight: Ints) -> Ints:
        """Apply the layer to full words x (batch, *shape) with full-word weights, modulo 2^64 (offline work)."""
        op, conv = self.layer, self.backend.conv_words
        if isinstance(op, ir.Linear):
            x, weight = x.reshape(len(x), -1, 1, 1), weight.reshape(*weight.shape, 1, 1)
            return conv(x, weight, (1, 1), (0, 0), (1, 1), 1).reshape(len(x), -1)
        return conv(x, weight, op.stride, op.padding, op.dilation, op.groups)

    def receive(self, half: ServerHalf, correction: Bytes) -> None:
        """Take K0."""
        half.pre = self.backend.view(correction, "int64").reshape(self.shape)

    def hear(self, half: ServerHalf, told: Ints | None) -> None:
        """Add the bias to K0."""
        if self._bias is not None:
            half.pre += self._bias

    def alone(self, inputs: list[Ints], half: ServerHalf) -> Ints:
        """W s + K0 + bias."""
        return self._multiply(inputs[0], half.pre)


def layer_weights(plan: Plan, weights: Weights) -> Weights:
    """Return the weights with those of polynomials' weighings: coefficients by channel become filters by element."""
    made = dict(weights)
    for step in plan.steps:
        if isinstance(step, Product) and isinstance(step.op, ir.Poly):
            c2, c1, c0 = weights[step.op.coefficients][:, torch.from_numpy(plan.channels[step.layer.weight])]
            made[step.layer.weight] = torch.stack([c2, c1], 1)[:, :, None, None]
            assert step.layer.bias is not None
            made[step.layer.bias] = c0
    return made


def weight_masks(backend: Backend, layers: list[LinearLayer], seed: bytes) -> dict[str, Ints]:
    """Return B, the mask of every weight tensor of a model, drawn in the order of the plan."""
    stream, masks = backend.stream(seed), dict[str, Ints]()
    for layer in layers:
        if (name := layer.layer.weight) not in masks:
            masks[name] = stream.words(math.prod(layer.weight_shape)).reshape(layer.weight_shape)
    return masks
