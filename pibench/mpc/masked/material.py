"""Correlated randomness of one inference: what each party draws from its own seed, and what the dealer corrects.

The client's material is its seed. The server draws what is uniform from its own seed and receives corrections, which
put the dealer's secrets onto shares of zero: the server's share is the client's share changed in place.
Draws happen in the order of the plan, on both ends of a seed alike; every byte of a stream is used once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pibench.lowering import program as ir
from pibench.mpc.masked import kernels
from pibench.mpc.masked.kernels import BITS_MASK, Bytes, Halves, Ints, Words
from pibench.mpc.masked.local import apply_local
from pibench.mpc.masked.options import DIGITS, Options
from pibench.mpc.masked.plan import Extend, Plan, Product, Receive, ReluStep, Remask, Square, Step
from pibench.mpc.ring.limbs import conv_words
from pibench.mpc.ring.randomness import Stream

_COMBINATION = kernels.combination()


@dataclass
class ReluShare:
    """One party's share of what a ReLU of n elements uses up; all arrays are views of one buffer."""

    buffer: Bytes
    words: Words  # (digit words, n): one-hot words of r's digits, by XOR
    table: Words  # one-time table of the combination, by XOR
    s: Ints  # the bit that masks the sign; this and the next two by addition
    rp: Ints  # -(r >> shift)
    srp: Ints  # s times that
    rt: Halves  # r's top bit, modulo 2^32
    srt: Halves  # s times that

    @classmethod
    def over(cls, buffer: Bytes, n: int, options: Options) -> ReluShare:
        """Lay the arrays over a buffer of `relu_share_bytes(n)` bytes."""
        per = DIGITS << (options.digit_bits - 6)
        sizes = {"words": (8 * per, np.uint64), "table": (8, np.uint64), "s": (8, np.int64), "rp": (8, np.int64),
                 "srp": (8, np.int64), "rt": (4, np.uint32), "srt": (4, np.uint32)}  # fmt: skip
        at, views = 0, {}
        for name, (size, kind) in sizes.items():
            views[name] = buffer[at : at + size * n].view(kind)
            at += size * n
        views["words"] = views["words"].reshape(per, n)
        return cls(buffer, **views)


def relu_share_bytes(n: int, options: Options) -> int:
    """Bytes of one party's share for n ReLUs."""
    return n * (8 * (DIGITS << (options.digit_bits - 6)) + 8 + 3 * 8 + 2 * 4)


@dataclass
class ReluDraw:
    """What the client draws for a ReLU: its share, its part r1 of the opening's mask, its bit mask, its output part."""

    share: ReluShare
    r: Ints
    mu: Bytes
    part: Ints


@dataclass
class ExtendDraw:
    """What the client draws for a ring extension: two pads and its share of the top bits' product."""

    p0: Halves
    p1: Halves
    x: Halves


@dataclass
class SquareShare:
    """One party's share of what a square of n elements uses up, by addition."""

    buffer: Bytes
    rp: Ints  # -(r >> shift)
    sq: Ints  # its square
    rt: Halves  # r's top bit, modulo 2^32
    rprt: Halves  # their product

    @classmethod
    def over(cls, buffer: Bytes, n: int) -> SquareShare:
        """Lay the arrays over a buffer of SQUARE_BYTES * n."""
        rp, sq = buffer[: 8 * n].view(np.int64), buffer[8 * n : 16 * n].view(np.int64)
        return cls(buffer, rp, sq, buffer[16 * n : 20 * n].view(np.uint32), buffer[20 * n :].view(np.uint32))


SQUARE_BYTES = 24


@dataclass
class SquareDraw:
    """What the client draws for a square: its share, its part r1 of the opening's mask, its part of both outputs."""

    share: SquareShare
    r: Ints
    part: Ints


class ClientDraws:
    """The client's material, drawn step by step; the dealer draws the same from the same seed."""

    def __init__(self, seed: bytes, plan: Plan, batch: int) -> None:
        self._stream, self._plan, self._batch = Stream(seed), plan, batch

    def relu(self, step: ReluStep) -> ReluDraw:
        """Draw for one ReLU step."""
        n = count(self._plan, step.inputs[0], self._batch)
        buffer = self._stream.bytes(relu_share_bytes(n, self._plan.options))
        share = ReluShare.over(buffer, n, self._plan.options)
        return ReluDraw(share, self._stream.words(n), self._stream.small(n, BITS_MASK), self._stream.words(n))

    def extend(self, step: Extend) -> ExtendDraw:
        """Draw for one ring extension."""
        n = count(self._plan, step.out, self._batch)
        return ExtendDraw(self._stream.halves(n), self._stream.halves(n), self._stream.halves(n))

    def square(self, step: Square) -> SquareDraw:
        """Draw for one square."""
        n = count(self._plan, step.inputs[0], self._batch)
        share = SquareShare.over(self._stream.bytes(SQUARE_BYTES * n), n)
        return SquareDraw(share, self._stream.words(n), self._stream.words(2 * n))

    def part(self, step: Step) -> Ints:
        """Draw the client's part of a step's output (an image's mask, a fresh mask, an offset of a product)."""
        return self._stream.words(count(self._plan, step.out, self._batch))


class ServerDraws:
    """What the server draws from its own seed."""

    def __init__(self, seed: bytes, plan: Plan, batch: int) -> None:
        self._stream, self._plan, self._batch = Stream(seed), plan, batch

    def relu(self, step: ReluStep) -> tuple[Ints, Bytes]:
        """Draw the server's part r0 of the opening's mask, and its bit mask."""
        n = count(self._plan, step.inputs[0], self._batch)
        return self._stream.words(n), self._stream.small(n, BITS_MASK)

    def square(self, step: Square) -> Ints:
        """Draw the server's part r0 of the opening's mask."""
        return self._stream.words(count(self._plan, step.inputs[0], self._batch))

    def extend(self, step: Extend) -> Bytes:
        """Draw which pad the server holds."""
        return self._stream.small(count(self._plan, step.out, self._batch), 1)


class Dealing:
    """The dealer's side of one inference: an iterator over the corrections, in the order of the plan."""

    def __init__(
        self, plan: Plan, weight_masks: dict[str, Tensor], batch: int, seeds: tuple[bytes, bytes, bytes]
    ) -> None:
        self._plan, self._masks, self._batch = plan, weight_masks, batch
        self._client = ClientDraws(seeds[0], plan, batch)
        self._server = ServerDraws(seeds[1], plan, batch)
        self._secret = Stream(seeds[2])
        self._parts: dict[str, Ints] = {}  # client's parts that the dealer knows

    def __iter__(self) -> Iterator[Bytes]:
        for step in self._plan.steps:
            if isinstance(step, Receive | Remask):
                self._know(step, self._client.part(step))
            elif isinstance(step, Product):
                yield self._product(step)
            elif isinstance(step, ReluStep):
                yield self._relu(step)
            elif isinstance(step, Square):
                yield self._square(step)
            elif isinstance(step, Extend):
                yield self._extend(step)
            elif all(name in self._parts for name in step.inputs):
                inputs = [self._parts[name] for name in step.inputs]
                self._know(step, apply_local(self._plan, step, inputs, server=False))

    def _know(self, step: Step, part: Ints) -> None:
        self._parts[step.out] = part.reshape(self._batch, *self._plan.values[step.out].shape)

    def _product(self, step: Product) -> Bytes:
        """C - K' with C = B * A: A masks the input, B the weights, K' is the client's offset."""
        a = torch.from_numpy(self._parts[step.inputs[0]])
        product = multiply_words(step.layer, a, self._masks[step.layer.weight])
        product -= torch.from_numpy(self._client.part(step)).view(product.shape)
        return product.numpy().reshape(-1).view(np.uint8)

    def _square(self, step: Square) -> Bytes:
        draw, r0 = self._client.square(step), self._server.square(step)
        self._know(step, draw.part)
        bits = self._plan.windows[step.inputs[0]].bits
        r, share = cut(draw.r + r0, bits), draw.share
        top, high = ((r >> (bits - 1)) & 1).astype(np.uint32), -shift_down(r, step.shift)
        np.subtract(high, share.rp, out=share.rp)
        np.subtract(high * high, share.sq, out=share.sq)
        np.subtract(top, share.rt, out=share.rt)
        np.subtract(high.astype(np.uint32) * top, share.rprt, out=share.rprt)
        return share.buffer

    def _relu(self, step: ReluStep) -> Bytes:
        draw = self._client.relu(step)
        r0, mu0 = self._server.relu(step)
        self._know(step, draw.part)
        window = self._plan.windows[step.inputs[0]]
        r = cut(draw.r + r0, window.bits)
        share = draw.share
        s = self._secret.small(len(r), 1)
        kernels.deal_digits(r, window.low, self._plan.options.digit_bits, share.words)
        kernels.deal_choice(r, np.bitwise_xor(draw.mu, mu0), s, window.sign_bit, _COMBINATION, share.table)
        top = ((r >> (window.bits - 1)) & 1).astype(np.uint32)
        high = -shift_down(r, step.shift)
        np.subtract(s, share.s, out=share.s)
        np.subtract(high, share.rp, out=share.rp)
        np.subtract(high * s, share.srp, out=share.srp)
        np.subtract(top, share.rt, out=share.rt)
        np.subtract(top * s, share.srt, out=share.srt)
        return share.buffer

    def _extend(self, step: Extend) -> Bytes:
        draw = self._client.extend(step)
        held = self._server.extend(step)
        if step.inputs[0] in self._parts:
            self._know(step, extended_part(self._plan, step, self._parts[step.inputs[0]], draw)[0])
        return np.where(held.astype(bool), draw.p1, draw.p0).view(np.uint8)


def correction_bytes(plan: Plan, step: Step, batch: int) -> int:
    """Bytes that the dealer sends to the server for one step."""
    if isinstance(step, Product):
        return 8 * count(plan, step.out, batch)
    if isinstance(step, ReluStep):
        return relu_share_bytes(count(plan, step.inputs[0], batch), plan.options)
    if isinstance(step, Square):
        return SQUARE_BYTES * count(plan, step.inputs[0], batch)
    if isinstance(step, Extend):
        return 4 * count(plan, step.out, batch)
    return 0


def extended_part(plan: Plan, step: Extend, part: Ints, draw: ExtendDraw) -> tuple[Ints, Bytes]:
    """Return the client's part of a ring extension's output, and the top bits of its part of the input."""
    bits = plan.windows[step.inputs[0]].bits
    y, top = np.empty(part.size, np.int64), np.empty(part.size, np.uint8)
    kernels.cut_part(np.ascontiguousarray(part).reshape(-1), step.shift, bits, 0, y, top)
    return y + (draw.x.astype(np.int64) << (bits - step.shift)), top


def multiply_words(op: ir.Conv | ir.Linear, x: Tensor, weight: Tensor) -> Tensor:
    """Apply a linear operation to full words (N, *shape) with full-word weights, modulo 2^64."""
    if isinstance(op, ir.Linear):
        flat = conv_words(x.reshape(len(x), -1, 1, 1), weight[:, :, None, None], (1, 1), (0, 0), (1, 1), 1)
        return flat[:, :, 0, 0]
    return conv_words(x, weight, op.stride, op.padding, op.dilation, op.groups)


def weight_masks(plan: Plan, seed: bytes) -> dict[str, Tensor]:
    """Return B, the mask of every weight tensor of a model, drawn in the order of the plan."""
    stream = Stream(seed)
    return {
        name: torch.from_numpy(stream.words(math.prod(shape))).view(shape)
        for name, shape in weight_shapes(plan).items()
    }


def weight_shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the public shape of every linear layer's weights."""
    shapes: dict[str, tuple[int, ...]] = {}
    for step in plan.steps:
        if isinstance(step, Product):
            layer, channels = step.layer, plan.values[step.inputs[0]].shape[0]
            if isinstance(layer, ir.Linear):
                shapes[layer.weight] = (layer.shape[0], channels)
            else:
                shapes[layer.weight] = (layer.shape[0], channels // layer.groups, *layer.kernel)
    return shapes


def count(plan: Plan, name: str, batch: int) -> int:
    """Scalars of a value for a batch."""
    return plan.values[name].count * batch


def cut(values: Ints, bits: int) -> Ints:
    """Return the values modulo 2^bits, as non-negative numbers where bits < 64."""
    return values if bits == 64 else values & ((1 << bits) - 1)


def shift_down(values: Ints, shift: int) -> Ints:
    """Return the values, taken as unsigned, shifted right."""
    return (values.view(np.uint64) >> np.uint64(shift)).view(np.int64)
