"""Correlated randomness of one inference: what each party draws from its own seed, and what the dealer corrects.

The client's material is its seed. The server draws what is uniform from its own seed and receives corrections, which
put the dealer's secrets onto shares of zero: the server's share is the client's share changed in place.
Draws happen in the order of the plan, on both ends of a seed alike; every byte of a stream is used once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pibench.lowering import program as ir
from pibench.lowering.program import Program
from pibench.mpc.masked import kernels
from pibench.mpc.masked.kernels import BITS_MASK, Bytes, Halves, Ints, Words
from pibench.mpc.masked.plan import DIGITS, Extend, Options, Plan, Product, Receive, ReluStep, Remask, Step
from pibench.mpc.randomness import Stream
from pibench.mpc.limbs import conv_words

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


class ClientDraws:
    """The client's material, drawn step by step; the dealer draws the same from the same seed."""

    def __init__(self, seed: bytes, plan: Plan, batch: int) -> None:
        self._stream, self._plan, self._batch = Stream(seed), plan, batch

    def relu(self, step: ReluStep) -> ReluDraw:
        """Draw for one ReLU step."""
        n = count(self._plan, step.inputs[0], self._batch)
        buffer = self._stream.bytes(relu_share_bytes(n, self._plan.options))
        share = ReluShare.over(buffer, n, self._plan.options)
        return ReluDraw(share, self._stream.words(n), self._stream.bytes(n) & BITS_MASK, self._stream.words(n))

    def extend(self, step: Extend) -> ExtendDraw:
        """Draw for one ring extension."""
        n = count(self._plan, step.out, self._batch)
        return ExtendDraw(self._stream.halves(n), self._stream.halves(n), self._stream.halves(n))

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
        return self._stream.words(n), self._stream.bytes(n) & BITS_MASK

    def extend(self, step: Extend) -> Bytes:
        """Draw which pad the server holds."""
        return self._stream.bytes(count(self._plan, step.out, self._batch)) & 1


class Dealing:
    """The dealer's side of one inference: an iterator over the corrections, in the order of the plan."""

    def __init__(self, plan: Plan, weight_masks: dict[str, Tensor], batch: int, seeds: tuple[bytes, bytes, bytes]) -> None:
        self._plan, self._masks, self._batch = plan, weight_masks, batch
        self._client = ClientDraws(seeds[0], plan, batch)
        self._server = ServerDraws(seeds[1], plan, batch)
        self._secret = Stream(seeds[2])
        self._parts: dict[str, Ints] = {}  # client's parts that the dealer knows

    def __iter__(self) -> Iterator[Bytes]:
        for step in self._plan.steps:
            if isinstance(step, Receive | Remask):
                self._parts[step.out] = self._client.part(step)
            elif isinstance(step, Product):
                yield self._product(step)
            elif isinstance(step, ReluStep):
                yield self._relu(step)
            elif isinstance(step, Extend):
                yield self._extend(step)

    def _product(self, step: Product) -> Bytes:
        """C - K' with C = B * A: A masks the input, B the weights, K' is the client's offset."""
        source = self._plan.values[step.inputs[0]]
        a = torch.from_numpy(self._parts[source.name]).view(self._batch, *source.shape)
        product = multiply_words(step.op, a, self._masks[step.op.weight])  # type: ignore[attr-defined]
        product -= torch.from_numpy(self._client.part(step)).view(product.shape)
        return product.numpy().reshape(-1).view(np.uint8)

    def _relu(self, step: ReluStep) -> Bytes:
        draw = self._client.relu(step)
        r0, mu0 = self._server.relu(step)
        self._parts[step.out] = draw.part
        window = self._plan.options.window(self._plan.values[step.inputs[0]].scale)
        r = cut(draw.r + r0, window.bits)
        share = draw.share
        s = self._secret.bytes(len(r)) & 1
        kernels.deal_digits(r, window.low, self._plan.options.digit_bits, share.words)
        kernels.deal_choice(r, draw.mu ^ mu0, s, window.sign_bit, _COMBINATION, share.table)
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
        return np.where(held.astype(bool), draw.p1, draw.p0).view(np.uint8)


def correction_bytes(plan: Plan, step: Step, batch: int) -> int:
    """Bytes that the dealer sends to the server for one step."""
    if isinstance(step, Product):
        return 8 * count(plan, step.out, batch)
    if isinstance(step, ReluStep):
        return relu_share_bytes(count(plan, step.inputs[0], batch), plan.options)
    if isinstance(step, Extend):
        return 4 * count(plan, step.out, batch)
    return 0


def multiply_words(op: ir.Conv | ir.Linear, x: Tensor, weight: Tensor) -> Tensor:
    """Apply a linear operation to full words (N, *shape) with full-word weights, modulo 2^64."""
    if isinstance(op, ir.Linear):
        flat = conv_words(x.reshape(len(x), -1, 1, 1), weight[:, :, None, None], (1, 1), (0, 0), (1, 1), 1)
        return flat[:, :, 0, 0]
    return conv_words(x, weight, op.stride, op.padding, op.dilation, op.groups)


def weight_masks(program: Program, shapes: dict[str, tuple[int, ...]], seed: bytes) -> dict[str, Tensor]:
    """Return B, the mask of every weight tensor of a model, drawn in the order of the program."""
    stream, masks = Stream(seed), {}
    for op in program:
        if isinstance(op, ir.Conv | ir.Linear) and op.weight not in masks:
            shape = shapes[op.weight]
            masks[op.weight] = torch.from_numpy(stream.words(int(np.prod(shape)))).view(shape)
    return masks


def weight_shapes(program: Program) -> dict[str, tuple[int, ...]]:
    """Return the public shape of every linear operation's weights, from the program's structure."""
    shapes: dict[str, tuple[int, ...]] = {}
    for op in program:
        if isinstance(op, ir.Linear):
            shapes[op.weight] = (op.shape[0], program.op(op.inputs[0]).shape[0])
        elif isinstance(op, ir.Conv):
            shapes[op.weight] = (op.shape[0], program.op(op.inputs[0]).shape[0] // op.groups, *op.kernel)
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


