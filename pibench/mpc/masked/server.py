"""The server's side of the interactive steps, and its part of the offline phase (rank 0: owns the weights)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pibench.errors import MaterialError, PartyError
from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.lowering import program as ir
from pibench.lowering.program import Weights
from pibench.mpc.masked import kernels
from pibench.mpc.masked.kernels import Bytes, Halves, Ints
from pibench.mpc.masked.local import apply_local
from pibench.mpc.masked.material import SQUARE_BYTES, ReluShare, ServerDraws, SquareShare, correction_bytes, count
from pibench.mpc.masked.plan import Extend, Plan, Product, Receive, ReluStep, Remask, Square, Step
from pibench.mpc.masked.shelf import Arrays
from pibench.mpc.masked.talk import Conversation, Send, converse
from pibench.mpc.masked.talk import Receive as Await
from pibench.mpc.ring.fixedpoint import encode
from pibench.mpc.ring.limbs import RingConv, RingMatrix
from pibench.mpc.ring.packing import pack, unpack, unpack_halves

Multiply = Callable[[Ints, Ints], Ints]


@dataclass
class ServerMaterial:
    """What one inference uses up on the server, by the name of the step's output."""

    pre: dict[str, Ints] = field(default_factory=dict)  # what is added: products, openings, fresh masks
    share: dict[str, ReluShare] = field(default_factory=dict)
    square: dict[str, SquareShare] = field(default_factory=dict)
    mu: dict[str, Bytes] = field(default_factory=dict)
    held: dict[str, Bytes] = field(default_factory=dict)
    pad: dict[str, Halves] = field(default_factory=dict)
    parts: dict[str, Ints] = field(default_factory=dict)  # the server's parts of the values of the inference

    def to_arrays(self) -> Arrays:
        """Return everything as named arrays, for the shelf."""
        made: Arrays = {}
        for kind in ("pre", "mu", "held", "pad"):
            made |= {f"{kind}:{name}": array for name, array in getattr(self, kind).items()}
        for kind in ("share", "square"):
            made |= {f"{kind}:{name}": share.buffer for name, share in getattr(self, kind).items()}
        return made

    @classmethod
    def from_arrays(cls, arrays: Arrays, plan: Plan, batch: int) -> ServerMaterial:
        """Rebuild what `to_arrays` returned; raises MaterialError where it does not fit the plan."""
        made = cls()
        try:
            for label, array in arrays.items():
                kind, _, name = label.partition(":")
                if kind == "share":
                    source = next(step.inputs[0] for step in plan.steps if step.out == name)
                    made.share[name] = ReluShare.over(array, count(plan, source, batch), plan.options)
                elif kind == "square":
                    made.square[name] = SquareShare.over(array, array.size // SQUARE_BYTES)
                else:
                    getattr(made, kind)[name] = array
        except (StopIteration, ValueError, AttributeError) as error:
            raise MaterialError("kept material does not fit the program", remedy="delete the keep_dir") from error
        return made


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


def prepare_products(plan: Plan, weights: Weights) -> tuple[dict[str, Multiply], dict[str, Tensor]]:
    """Encode the weights and prepare every linear layer; returns the products by step and the encoded biases."""
    products: dict[str, Multiply] = {}
    biases: dict[str, Tensor] = {}
    f = plan.options.fraction_bits
    for step in plan.steps:
        if not isinstance(step, Product):
            continue
        op = step.layer
        scale, bits = plan.values[step.inputs[0]].scale, plan.values[step.out].bits
        products[step.out] = _product(op, encode(weights[op.weight], f), plan.values[step.inputs[0]].shape, bits)
        if op.bias is not None:
            biases[step.out] = encode(weights[op.bias], scale + f).view(-1, *[1] * (len(op.shape) - 1))
    return products, biases


def _product(op: ir.Conv | ir.Linear, weight: Tensor, shape: ir.Shape, bits: int) -> Multiply:
    if isinstance(op, ir.Conv):
        return RingConv(
            weight, shape, bits=bits, stride=op.stride, padding=op.padding, dilation=op.dilation, groups=op.groups
        )
    return RingMatrix(weight)


class Server:
    """Runs the plan on the server's parts."""

    def __init__(self, plan: Plan, weights: Weights, channel: Channel, meter: Meter, batch: int) -> None:
        self.plan, self.channel, self.meter, self.batch = plan, channel, meter, batch
        self._products, self._biases = prepare_products(plan, weights)
        self._share: Ints | None = None

    def receive_material(self, seed: bytes, corrections: Callable[[int], Bytes]) -> ServerMaterial:
        """Take one inference's corrections (in the order of the plan) and add what the server draws itself."""
        draws, made = ServerDraws(seed, self.plan, self.batch), ServerMaterial()
        for step in self.plan.steps:
            size = correction_bytes(self.plan, step, self.batch)
            if isinstance(step, Product):
                shape = (self.batch, *self.plan.values[step.out].shape)
                made.pre[step.out] = corrections(size).view(np.int64).reshape(shape)
                if step.out in self._biases:
                    made.pre[step.out] += self._biases[step.out].numpy()
            elif isinstance(step, ReluStep):
                n = count(self.plan, step.inputs[0], self.batch)
                made.share[step.out] = ReluShare.over(corrections(size), n, self.plan.options)
                made.pre[step.out], made.mu[step.out] = draws.relu(step)
            elif isinstance(step, Square):
                n = count(self.plan, step.inputs[0], self.batch)
                made.square[step.out] = SquareShare.over(corrections(size), n)
                made.pre[step.out] = draws.square(step)
            elif isinstance(step, Extend):
                made.held[step.out] = draws.extend(step)
                made.pad[step.out] = corrections(size).view(np.uint32)
        return made

    def hear_offsets(self, material: ServerMaterial) -> None:
        """Take the client's input-independent messages: its parts of openings, and differences of fresh masks."""
        for step in self.plan.steps:
            if isinstance(step, ReluStep | Square | Remask):
                value, window = self.plan.values[step.out], self.plan.windows[step.inputs[0]]
                width = value.wire_bytes if isinstance(step, Remask) else window.wire_bytes
                heard = np.empty(count(self.plan, step.inputs[0], self.batch) * width, np.uint8)
                self.channel.recv_into(heard)
                offset = unpack(heard, width)
                if isinstance(step, Remask):
                    material.pre[step.out] = offset.reshape(self.batch, *value.shape)
                else:
                    material.pre[step.out] += offset + window.offset

    def run(self, material: ServerMaterial) -> None:
        """Run one inference; the last message carries the server's part of the logits, its valid bits alone."""
        output = self.plan.output
        part = np.ascontiguousarray(self.compute(material)).reshape(-1) & ring_mask(output.bits)
        self.channel.send(pack(part, output.wire_bytes))

    def compute(self, material: ServerMaterial, share: Ints | None = None) -> Ints:
        """Return the server's part of the output; `share` is its additive share of the input, where it has one."""
        parts = material.parts
        self._share = share
        for group in self.plan.groups:
            if group[0].talks:
                converse(self.channel, self.meter, [(s.label, self._talk(s, parts, material)) for s in group])
                continue
            step = group[0]
            with self.meter.op(*step.label):
                parts[step.out] = self._alone(step, parts, material)
        return parts[self.plan.output.name]

    def _alone(self, step: Step, parts: dict[str, Ints], material: ServerMaterial) -> Ints:
        first = parts[step.inputs[0]]
        if isinstance(step, Product):
            return self._products[step.out](first, material.pre[step.out])
        if isinstance(step, Remask):
            made = np.empty(first.shape, np.int64)
            kernels.drop_and_mask(first.reshape(-1), step.shift, material.pre[step.out].reshape(-1), made.reshape(-1))
            return made
        return apply_local(self.plan, step, [parts[name] for name in step.inputs], server=True)

    def _talk(self, step: Step, parts: dict[str, Ints], material: ServerMaterial) -> Conversation:
        if isinstance(step, Receive):
            return self._receive(step, parts)
        if isinstance(step, Extend):
            return self._extend(step, parts, material)
        if isinstance(step, Square):
            return self._square(step, parts, material)
        assert isinstance(step, ReluStep)
        return self._relu(step, parts, material)

    def _receive(self, step: Receive, parts: dict[str, Ints]) -> Conversation:
        value = self.plan.values[step.out]
        heard = yield Await(value.count * self.batch * value.wire_bytes)
        masked = unpack(heard, value.wire_bytes).reshape(self.batch, *value.shape)
        parts[step.out] = masked if self._share is None else masked + self._share

    def _relu(self, step: ReluStep, parts: dict[str, Ints], material: ServerMaterial) -> Conversation:
        """Four messages; see docs/protocol.md for why each is uniform to whoever gets it.

        1. to the client: c = x + offset + r, then this party's share of the six masked bits, read at c.
        2. from the client: its share of the six bits, and of the masked sign.
        3. to the client: the masked sign beta.
        4. from the client: its share of y minus the part that it will hold.
        """
        source, out = self.plan.values[step.inputs[0]], self.plan.values[step.out]
        window, share = self.plan.windows[source.name], material.share[step.out]
        x = np.ascontiguousarray(parts[source.name]).reshape(-1)
        n = x.size
        if self.plan.options.check_ranges:
            yield from self._check_range(step, x)
        c, bits, beta, y = np.empty(n, np.int64), np.empty(n, np.uint8), np.empty(n, np.uint8), np.empty(n, np.int64)
        kernels.open_masked(x, material.pre[step.out], c)
        yield Send(pack(c, window.wire_bytes))
        c = c & ring_mask(window.bits)  # a new array: what goes out may be the old one itself
        digit_bits = self.plan.options.digit_bits
        kernels.read_digits(c, share.words, material.mu[step.out], window.low, digit_bits, bits)
        yield Send(np.bitwise_and(bits, np.uint8(kernels.BITS_MASK)))
        reply = yield Await(n)
        kernels.decide(bits, reply, share.table, c, window.sign_bit, beta)
        yield Send(np.packbits(beta))
        kernels.select(
            c, beta, share.s, share.rp, share.srp, share.rt, share.srt, step.shift, window.bits, window.offset, 1, y
        )  # fmt: skip
        heard = yield Await(n * out.wire_bytes)
        y += unpack(heard, out.wire_bytes)
        parts[step.out] = y.reshape(self.batch, *out.shape)

    def _square(self, step: Square, parts: dict[str, Ints], material: ServerMaterial) -> Conversation:
        """Two messages: the masked value to the client, and its share of both outputs, minus its part, back."""
        source, out = self.plan.values[step.inputs[0]], self.plan.values[step.out]
        window, share = self.plan.windows[source.name], material.square[step.out]
        x = np.ascontiguousarray(parts[source.name]).reshape(-1)
        c, y = np.empty(x.size, np.int64), np.empty(2 * x.size, np.int64)
        kernels.open_masked(x, material.pre[step.out], c)
        yield Send(pack(c, window.wire_bytes))
        c = c & ring_mask(window.bits)  # a new array: what goes out may be the old one itself
        raised = self.plan.options.fraction_bits
        kernels.square(
            c, share.rp, share.sq, share.rt, share.rprt, step.shift, window.bits, window.offset, raised, 1, y
        )
        heard = yield Await(y.size * out.wire_bytes)
        y += unpack(heard, out.wire_bytes)
        parts[step.out] = y.reshape(self.batch, *out.shape)

    def _extend(self, step: Extend, parts: dict[str, Ints], material: ServerMaterial) -> Conversation:
        """Two messages: the masked top bits to the client, and its two padded offers back."""
        source, out = self.plan.values[step.inputs[0]], self.plan.values[step.out]
        window = self.plan.windows[source.name]
        bits = window.bits
        x = np.ascontiguousarray(parts[source.name]).reshape(-1)
        y, top = np.empty(x.size, np.int64), np.empty(x.size, np.uint8)
        kernels.cut_part(x, step.shift, bits, window.offset, y, top)
        yield Send(np.packbits(top ^ material.held[step.out]))
        size = offer_bytes(out.bits, bits, step.shift)
        offers = unpack_halves((yield Await(2 * x.size * size)), size)
        kernels.wrap_take(top, offers, material.pad[step.out], bits - step.shift, y)
        parts[step.out] = y.reshape(self.batch, *out.shape)

    def _check_range(self, step: ReluStep, x: Ints) -> Conversation:
        """Debug mode only: the client shows its part, and the server sees the value, modulo the opening's ring.

        Nothing before a ReLU keeps more bits than that, and a plan that did would be another one than runs.
        """
        source = self.plan.values[step.inputs[0]]
        heard = yield Await(8 * x.size)
        bits = self.plan.windows[source.name].bits
        value = ((x + heard.view(np.int64)) << (64 - bits)) >> (64 - bits)
        limit = 1 << (self.plan.options.range_bits + source.beyond)
        if (worst := float(np.abs(value).max()) / 2**source.scale) >= limit:
            raise PartyError(
                f"the input of {step.op.site or step.op.name} reaches {worst:.1f}, or that and a multiple of "
                f"{2 ** (bits - source.scale)}, outside the protocol's range of {limit}",
                remedy="raise range_bits in the protocol's options",
            )


def ring_mask(bits: int) -> int:
    """Return the mask that cuts a word to a ring of `bits`."""
    return (1 << bits) - 1 if bits < 64 else -1


def offer_bytes(out_bits: int, bits: int, shift: int) -> int:
    """Bytes of one offer of a ring extension: the bits that the wrap's weight leaves below the output's ring."""
    return max(1, -(-(out_bits - bits + shift) // 8))
