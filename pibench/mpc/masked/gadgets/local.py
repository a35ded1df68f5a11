"""Steps that each party does alone and alike on its own part of a value: sums, pools, gathers, free truncations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pibench.lowering import program as ir
from pibench.mpc.masked import kernels
from pibench.mpc.masked.gadgets.gadget import Gadget
from pibench.mpc.masked.kernels import Ints
from pibench.mpc.masked.plan import Index, Step
from pibench.mpc.ring.randomness import Stream


@dataclass(frozen=True, kw_only=True)
class Sum(Step):
    """a 2^shift_a + b 2^shift_b, locally; `sign` is that of b."""

    shifts: tuple[int, int] = (0, 0)
    sign: int = 1


@dataclass(frozen=True, kw_only=True)
class PoolSum(Step):
    """Sum over windows times a small integer, locally; the divisor went into the scale."""

    kernel: ir.Pair
    stride: ir.Pair
    padding: ir.Pair
    factor: int = 1


@dataclass(frozen=True, kw_only=True)
class Gather(Step):
    """Elements of the flattened, joined inputs by position, locally; -1 stands for `fill` (on the server's part)."""

    index: Index = field(repr=False)
    fill: int = 0

    @cached_property
    def is_identity(self) -> bool:
        """Whether every element stays where it is."""
        return bool((self.index == np.arange(len(self.index))).all())

    @cached_property
    def filled(self) -> Index:
        """Positions of the output that take the fill."""
        return np.flatnonzero(self.index < 0)

    @property
    def fingerprint(self) -> bytes:
        """The positions belong to it."""
        return super().fingerprint + self.index.tobytes()


@dataclass(frozen=True, kw_only=True)
class Drop(Step):
    """Free truncation by `shift` bits: each party shifts its own part, and the ring shrinks by as many bits.

    Within one unit, and exact where nothing is lost (`kernels.rounding_up`).
    """

    kind: ClassVar[str] = "truncation"
    shift: int


LocalT = TypeVar("LocalT", bound=Step)


class Local(Gadget[LocalT, None, None]):
    """A step without halves: `apply` on a party's parts; constants go onto the server's part."""

    def draw_client(self, stream: Stream) -> None:
        """Nothing is drawn."""

    def draw_server(self, stream: Stream) -> None:
        """Nothing is drawn."""

    def client_part(self, inputs: list[Ints | None], half: None) -> Ints:
        """Apply the step to the client's parts."""
        return self.apply([part for part in inputs if part is not None], server=False)

    def alone(self, inputs: list[Ints], half: None) -> Ints:
        """Apply the step to the server's parts."""
        return self.apply(inputs, server=True)

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Return the party's part of the output."""
        raise NotImplementedError


class Summing(Local[Sum]):
    """See Sum."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Shift and add."""
        moved = [part << shift if shift else part for part, shift in zip(parts, self.step.shifts, strict=False)]
        if len(moved) == 1:
            return moved[0]
        return moved[0] + moved[1] if self.step.sign > 0 else moved[0] - moved[1]


class Pooling(Local[PoolSum]):
    """See PoolSum."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Add up the windows."""
        (part,), step = parts, self.step
        (ph, pw), (sh, sw) = step.padding, step.stride
        if part.shape[2:] == step.kernel and not (ph or pw):  # global pooling, the usual case
            total = part.reshape(*part.shape[:2], -1).sum(-1)[:, :, None, None]
        else:
            padded = np.pad(part, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
            total = sliding_window_view(padded, step.kernel, axis=(2, 3))[:, :, ::sh, ::sw].sum((-1, -2))
        made: Ints = total if step.factor == 1 else total * step.factor
        return made


class Gathering(Local[Gather]):
    """See Gather."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Take elements by position."""
        step = self.step
        flat = [part.reshape(len(part), math.prod(part.shape[1:])) for part in parts]
        joined = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
        if joined.shape[1] == len(step.index) and step.is_identity:
            return joined.reshape(self.shape)
        taken = joined[:, step.index]
        if len(step.filled):
            taken[:, step.filled] = step.fill if server else 0
        return taken.reshape(self.shape)


class Dropping(Local[Drop]):
    """See Drop."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Shift the part down: the server's rounded up."""
        return (parts[0] + kernels.rounding_up(self.step.shift) if server else parts[0]) >> self.step.shift
