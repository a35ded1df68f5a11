"""From a program to a plan: steps, and the scale of every value.

A linear layer adds `fraction_bits` to the scale; a value that is about to enter a second one is truncated first. A
truncation is planned as free (SIRNN, Rathee et al., S&P 2021, "truncate and reduce": dropping m low bits of both parts
is exact to within one unit if m ring bits may be given up); `bits.py` then sees where the ring must be extended.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pibench.errors import UsageError
from pibench.lowering import program as ir
from pibench.lowering.program import Program, Shape
from pibench.mpc.masked.bits import assign_bits
from pibench.mpc.masked.gadgets.image import Receive
from pibench.mpc.masked.gadgets.local import Drop, Gather, PoolSum, Sum
from pibench.mpc.masked.gadgets.product import Product
from pibench.mpc.masked.gadgets.relu_circa import SignedRelu
from pibench.mpc.masked.gadgets.relu_halfgates import GarbledRelu
from pibench.mpc.masked.gadgets.relu_truth_tables import ReluStep
from pibench.mpc.masked.gadgets.relu_two_messages import OfferedRelu
from pibench.mpc.masked.gadgets.remask import Remask
from pibench.mpc.masked.gadgets.square import Square
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Index, Plan, Step, Value

RELUS: dict[str, type[Any]] = {"tables": ReluStep, "offers": OfferedRelu, "halfgates": GarbledRelu, "sign": SignedRelu}


def plan_program(program: Program, options: Options, batch: int = 1) -> Plan:
    """Turn a program into steps; raises UsageError where an operation cannot be carried in 64 bits."""
    planner = _Planner(program, options)
    for op in program:
        planner.plan(op)
    planner.end(program.output)
    return assign_bits(Plan(tuple(planner.steps), planner.values, options, planner.channels, batch))


class _Planner:
    """Forward pass: steps and scales."""

    def __init__(self, program: Program, options: Options) -> None:
        self.program, self.options = program, options
        self.f = options.fraction_bits
        self.steps: list[Step] = []
        self.values: dict[str, Value] = {}
        self.names: dict[str, str] = {}  # program value -> plan value
        self.derived: dict[tuple[str, str], str] = {}  # (what was done, value) -> its result, made once
        self.channels: dict[str, Index] = {}

    def plan(self, op: ir.Op) -> None:
        """Add the steps of one operation."""
        handler = getattr(self, f"_{type(op).__name__.lower()}", None)
        if handler is None:
            raise UsageError(f"the masked protocol has no step for {type(op).__name__} ({op.name})")
        self.names[op.name] = handler(op, *[self.names[name] for name in op.inputs])

    def end(self, op: ir.Op) -> None:
        """Make the logits the last step's, where an operation that does nothing has named an earlier one's."""
        source = self.names[op.name]
        if self.steps[-1].out != source:
            count = self.values[source].count
            self._gather(op, (source,), np.arange(count), self.values[source].shape, f"{op.name}/logits")

    def _emit(self, step: Step, shape: Shape, scale: int, *, drawn: bool = False, beyond: int = 0) -> str:
        self.steps.append(step)
        local = isinstance(step, Sum | PoolSum | Gather | Drop)  # the dealer can follow what is done to what it knows
        known = local and all(self.values[name].drawn for name in step.inputs)
        self.values[step.out] = Value(step.out, shape, scale, drawn=drawn or known, beyond=beyond)
        return step.out

    def _once(self, what: str, source: str) -> str | None:
        return self.derived.get((what, source))

    def _truncated(self, source: str, op: ir.Op) -> str:
        """Return the value at scale f, truncating it once however many operations read it."""
        value = self.values[source]
        if value.scale <= self.f + 8:  # pooled values carry a few bits more: cheaper to keep them
            return source
        if (done := self._once("truncated", source)) is None:
            shift = value.scale - self.f
            step = Drop(out=f"{source}/f", inputs=(source,), op=op, shift=shift)
            done = self.derived["truncated", source] = self._emit(step, value.shape, self.f)
        return done

    def _drawn(self, source: str, op: ir.Op) -> str:
        """Return the value with a client's part that the dealer knows."""
        value = self.values[source]
        if value.drawn:
            return source
        if (done := self._once("remasked", source)) is None:
            step = Remask(out=f"{source}/masked", inputs=(source,), op=op)
            done = self.derived["remasked", source] = self._emit(step, value.shape, value.scale, drawn=True)
        return done

    def _input(self, op: ir.Input) -> str:
        return self._emit(Receive(out=op.name, inputs=(), op=op), op.shape, self.f, drawn=True)

    def _conv(self, op: ir.Conv | ir.Linear, source: str) -> str:
        source = self._drawn(self._truncated(source, op), op)
        step = Product(out=op.name, inputs=(source,), op=op, layer=op)
        return self._emit(step, op.shape, self.values[source].scale + self.f)

    _linear = _conv

    def _add(self, op: ir.Add, left: str, right: str) -> str:
        a, b = self.values[left].scale, self.values[right].scale
        top = max(a, b)
        return self._emit(Sum(out=op.name, inputs=(left, right), op=op, shifts=(top - a, top - b)), op.shape, top)

    def _subtract(self, op: ir.Subtract, left: str, right: str) -> str:
        a, b = self.values[left].scale, self.values[right].scale
        top = max(a, b)
        step = Sum(out=op.name, inputs=(left, right), op=op, shifts=(top - a, top - b), sign=-1)
        return self._emit(step, op.shape, top)

    def _shift(self, op: ir.Shift, source: str) -> str:
        """Add a public number, which goes onto the server's part."""
        value, out = self.values[source], f"{op.name}/amount"
        nowhere = np.full(value.count, -1)
        amount = self._gather(op, (source,), nowhere, op.shape, out, round(op.amount * 2**value.scale))
        return self._emit(Sum(out=op.name, inputs=(source, amount), op=op, shifts=(0, 0)), op.shape, value.scale)

    def _avgpool(self, op: ir.AvgPool, source: str) -> str:
        size, scale = math.prod(op.kernel), self.values[source].scale
        exact = size & (size - 1) == 0
        if not exact and scale > self.f:
            source = self._truncated(source, op)
            scale = self.values[source].scale
        extra = size.bit_length() - 1 if exact else self.f + size.bit_length()  # the factor's own error is 2^-f or less
        factor = 1 if exact else round(2**extra / size)
        step = PoolSum(
            out=op.name, inputs=(source,), op=op, kernel=op.kernel, stride=op.stride, padding=op.padding, factor=factor
        )
        return self._emit(step, op.shape, scale + extra)

    def _gather(self, op: ir.Op, sources: tuple[str, ...], index: Index, shape: Shape, out: str, fill: int = 0) -> str:
        """Emit a Gather after bringing its sources to one scale (smaller scales move up, locally)."""
        top = max(self.values[s].scale for s in sources)
        level: list[str] = []
        for s in sources:
            v = self.values[s]
            if v.scale < top:
                shift = top - v.scale
                s = self._emit(Sum(out=f"{out}/up{len(level)}", inputs=(s,), op=op, shifts=(shift, 0)), v.shape, top)
            level.append(s)
        return self._emit(Gather(out=out, inputs=tuple(level), op=op, index=index, fill=fill), shape, top)

    def _flatten(self, op: ir.Flatten, source: str) -> str:
        return self._gather(op, (source,), np.arange(math.prod(op.shape)), op.shape, op.name)

    def _slice(self, op: ir.Slice, source: str) -> str:
        shape = self.values[source].shape
        first, last = op.channels or (0, shape[0])
        grid = np.arange(math.prod(shape)).reshape(shape)[first:last, :: op.stride[0], :: op.stride[1]]
        return self._gather(op, (source,), grid.reshape(-1).copy(), op.shape, op.name)

    def _padchannels(self, op: ir.PadChannels, source: str) -> str:
        grid = np.full(op.shape, -1)
        shape = self.values[source].shape
        grid[op.before : op.before + shape[0]] = np.arange(math.prod(shape)).reshape(shape)
        return self._gather(op, (source,), grid.reshape(-1), op.shape, op.name)

    def _concat(self, op: ir.Concat, *sources: str) -> str:
        return self._gather(op, sources, np.arange(math.prod(op.shape)), op.shape, op.name)

    def _rearrange(self, op: ir.Rearrange, *sources: str) -> str:
        index = self.program.masks[op.index].numpy()
        return self._gather(op, sources, index, op.shape, op.name)

    def _relu(self, op: ir.Relu, source: str) -> str:
        value = self.values[source]
        shift = value.scale - self.f
        if op.mask is None:
            return self._emit(self._relu_step(op.name, source, op, shift), op.shape, self.f, drawn=True)
        return self._masked(op, source, lambda kept: self._relu_on(op, kept, shift, f"{op.name}/relu"))

    def _relu_step(self, out: str, source: str, op: ir.Op, shift: int, **more: int) -> Step:
        choices = self.options.relu_choices | more
        made: Step = RELUS[self.options.relu](out=out, inputs=(source,), op=op, shift=shift, **choices)
        return made

    def _relu_on(self, op: ir.Op, source: str, shift: int, out: str) -> str:
        value = self.values[source]
        step = self._relu_step(out, source, op, shift)
        return self._emit(step, value.shape, value.scale - shift, drawn=True)

    def _masked(self, op: ir.Relu | ir.Poly, source: str, act: Any) -> str:
        """Gather the kept elements, act on them, truncate the others, scatter: cost follows the kept count."""
        assert op.mask is not None
        mask = self.program.masks[op.mask].reshape(-1).numpy().astype(bool)
        kept, rest = np.flatnonzero(mask), np.flatnonzero(~mask)
        if not len(kept):
            return source
        if not len(rest):
            return str(act(source))
        # the truncation of the rest comes first, so that its bits travel with the first message of the activation
        left = self._gather(op, (source,), rest, (len(rest),), f"{op.name}/rest")
        if self.values[left].scale > self.f:
            shift = self.values[left].scale - self.f
            left = self._emit(Drop(out=f"{left}/f", inputs=(left,), op=op, shift=shift), (len(rest),), self.f)
        done = act(self._gather(op, (source,), kept, (len(kept),), f"{op.name}/kept"))
        index = np.empty(len(mask), np.int64)
        index[kept], index[rest] = np.arange(len(kept)), len(kept) + np.arange(len(rest))
        return self._gather(op, (done, left), index, op.shape, op.name)

    def _poly(self, op: ir.Poly, source: str) -> str:
        channel = np.repeat(np.arange(op.shape[0]), math.prod(op.shape[1:]))
        if op.mask is None:
            return self._weighed(op, source, channel)
        kept = channel[self.program.masks[op.mask].reshape(-1).numpy().astype(bool)]
        return self._masked(op, source, lambda part: self._weighed(op, part, kept))

    def _weighed(self, op: ir.Poly, source: str, channel: Index) -> str:
        """c2 t^2 + c1 t + c0 as a square, then a layer of one filter an element that weighs t^2 and t."""
        value, n = self.values[source], len(channel)
        step = Square(out=f"{op.name}/square", inputs=(source,), op=op, shift=value.scale - self.f)
        both = self._emit(step, (2 * n, 1, 1), 2 * self.f, drawn=True)
        name = f"{op.name}/coefficients"
        layer = ir.Conv(
            name=name, inputs=(both,), shape=(n, 1, 1), weight=name, bias=f"{name}/constant", kernel=(1, 1), groups=n
        )
        self.channels[name] = channel
        out = self._emit(Product(out=name, inputs=(both,), op=op, layer=layer), (n, 1, 1), 3 * self.f)
        return self._gather(op, (self._truncated(out, op),), np.arange(n), value.shape, f"{op.name}/poly")

    def _maxpool(self, op: ir.MaxPool, source: str) -> str:
        """Tournament: max(a, b) = b + relu(a - b), one ReLU step a level for all windows together, or one for all.

        What lies outside of the image is as low as the range goes, and the gap of two values has one bit more of range.
        """
        value = self.values[source]
        lanes = _windows(value.shape, op)
        size, low = lanes.shape[1], -(1 << (value.scale + self.options.range_bits))
        current = self._gather(op, (source,), lanes.T.reshape(-1).copy(), (lanes.size,), f"{op.name}/windows", low)
        if RELUS[self.options.relu].chains and size > 1:
            return self._chained(op, current, len(lanes), size)
        for level in range(size.bit_length() if size & (size - 1) else size.bit_length() - 1):
            current, size = self._round(op, current, len(lanes), size, level)
        return self._gather(op, (current,), np.arange(len(lanes)), op.shape, op.name)

    def _chained(self, op: ir.MaxPool, source: str, windows: int, size: int) -> str:
        """All of a tournament in one step, which takes the gaps of `size` rows of `windows` candidates."""
        rows, scale = np.arange(size * windows), self.values[source].scale
        a, b, last = (
            self._gather(op, (source,), row, (len(row),), f"{op.name}/{tag}")
            for tag, row in (("a", rows[:-windows]), ("b", rows[windows:]), ("last", rows[-windows:]))
        )
        step = Sum(out=f"{op.name}/gaps", inputs=(a, b), op=op, sign=-1)
        gaps = self._emit(step, self.values[a].shape, scale, beyond=1)
        relu = self._relu_step(f"{gaps}/relu", gaps, op, 0, gaps=size - 1)
        gain = self._emit(relu, (windows,), scale, drawn=True)
        best = self._emit(Sum(out=f"{op.name}/best", inputs=(gain, last), op=op), (windows,), scale)
        return self._gather(op, (best,), np.arange(windows), op.shape, op.name)

    def _round(self, op: ir.MaxPool, source: str, windows: int, size: int, level: int) -> tuple[str, int]:
        """One level: pairs (2i, 2i+1) of `size` rows of `windows` candidates; an odd last row passes."""
        pairs, scale = size // 2, self.values[source].scale
        row = np.arange(windows)
        first = np.concatenate([2 * i * windows + row for i in range(pairs)])
        tag = f"{op.name}/{level}"
        a = self._gather(op, (source,), first, (len(first),), f"{tag}a")
        b = self._gather(op, (source,), first + windows, (len(first),), f"{tag}b")
        gap = self._emit(Sum(out=f"{tag}gap", inputs=(a, b), op=op, sign=-1), (len(first),), scale, beyond=1)
        gain = self._relu_on(op, gap, 0, f"{gap}/relu")
        best = self._emit(Sum(out=f"{tag}best", inputs=(gain, b), op=op), (len(first),), scale)
        if size % 2 == 0:
            return best, pairs
        tail = (size - 1) * windows + row
        index = np.concatenate([np.arange(len(first)), len(first) + tail])
        return self._gather(op, (best, source), index, (len(index),), f"{tag}odd"), pairs + 1


def _windows(shape: Shape, op: ir.MaxPool) -> Index:
    """Positions (windows, kernel size) that each window reads; -1 outside."""
    _, height, width = shape
    (kh, kw), (sh, sw), (ph, pw) = op.kernel, op.stride, op.padding
    channels, rows, columns = op.shape
    y = (np.arange(rows) * sh - ph)[:, None] + np.arange(kh)  # (rows, kh)
    x = (np.arange(columns) * sw - pw)[:, None] + np.arange(kw)
    inside = ((y >= 0) & (y < height))[:, None, :, None] & ((x >= 0) & (x < width))[None, :, None, :]
    plane = np.where(inside, y[:, None, :, None] * width + x[None, :, None, :], -1).reshape(rows * columns, kh * kw)
    offset = (np.arange(channels) * height * width)[:, None, None]
    return np.where(plane[None] < 0, -1, plane[None] + offset).reshape(-1, kh * kw)
