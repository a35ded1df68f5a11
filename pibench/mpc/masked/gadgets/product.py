"""Linear layers: the server multiplies its own part by weights in the clear, and adds what was made offline.

The halves have K0 + K1 = W k in common, k the client's part of the input; how that comes about, without the client
learning W or the server k, is the source's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pibench.lowering import program as ir
from pibench.lowering.program import Weights
from pibench.mpc.backends.backend import Backend, Bytes, Host, Ints, Multiply, Stream
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
        self._make(self.encoded(weights), weights, batch=self.plan.batch, bits=self.out.bits)

    def encoded(self, weights: Weights) -> Tensor:
        """Return the layer's weights in fixed point (int64, host)."""
        return encode(weights[self.layer.weight], self.options.fraction_bits)

    def _make(self, weight: Tensor, weights: Weights, *, batch: int, bits: int) -> None:
        op = self.layer
        if isinstance(op, ir.Conv):
            self._multiply = self.backend.conv(
                weight, self.source.shape, batch=batch, bits=bits,
                stride=op.stride, padding=op.padding, dilation=op.dilation, groups=op.groups,
            )  # fmt: skip
        else:
            self._multiply = self.backend.matrix(weight, batch=batch, bits=bits)
        if op.bias is not None:
            scale = self.source.scale + self.options.fraction_bits
            bias = encode(weights[op.bias], scale).view(-1, *[1] * (len(op.shape) - 1))
            self._bias = self.backend.lift(bias.numpy())

    # as a dealer has it: masked weights D = W - B, and products of full words with D or B

    @property
    def mask_name(self) -> str:
        """Name of the weights' mask: layers of the same weights share it."""
        return self.layer.weight

    @property
    def hidden_bytes(self) -> int:
        """Of D on the wire."""
        return 8 * math.prod(self.weight_shape)

    def draw_mask(self, stream: Stream) -> Ints:
        """Return B, uniform."""
        return self._uniform(stream, math.prod(self.weight_shape)).reshape(self.weight_shape)

    def hide(self, weight: Ints, mask: Ints) -> Host:
        """Return D = W - B as it is sent."""
        return self.backend.host(weight - mask)

    def hidden(self, heard: Host) -> Ints:
        """Return D from what was sent."""
        return self.backend.lift(heard.view("int64").reshape(self.weight_shape))

    def dealt(self, part: Ints, mask: Ints, offset: Ints) -> Bytes:
        """Return B k - K': k masks the input, B the weights, K' is the client's offset."""
        product = self.multiply_words(part, mask).reshape(-1)
        product -= offset
        return self.backend.raw(product)

    def shared(self, part: Ints, hidden: Ints, offset: Ints) -> Ints:
        """Return the client's part of the output, D k + K', flat."""
        made = self.multiply_words(part, hidden).reshape(-1)
        made += offset
        return made

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


def masked_layers(layers: list[LinearLayer]) -> dict[str, LinearLayer]:
    """Return the first layer of every mask, by the mask's name, in the order of the plan."""
    found = dict[str, LinearLayer]()
    for layer in layers:
        found.setdefault(layer.mask_name, layer)
    return found


def weight_masks(backend: Backend, layers: list[LinearLayer], seed: bytes) -> dict[str, Ints]:
    """Return B, the mask of every weight tensor of a model, drawn in the order of the plan."""
    stream = backend.stream(seed)
    return {name: layer.draw_mask(stream) for name, layer in masked_layers(layers).items()}
