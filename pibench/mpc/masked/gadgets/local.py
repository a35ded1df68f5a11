"""Steps that each party does alone and alike on its own part of a value: sums, pools, gathers, free truncations."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, TypeVar

from pibench.lowering import program as ir
from pibench.mpc.backends.backend import Ints, Places, Stream, rounding_up
from pibench.mpc.masked.gadgets.gadget import Gadget
from pibench.mpc.masked.plan import Index, Step


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

    @property
    def fingerprint(self) -> bytes:
        """The positions belong to it."""
        return super().fingerprint + self.index.tobytes()


@dataclass(frozen=True, kw_only=True)
class Drop(Step):
    """Free truncation by `shift` bits: each party shifts its own part, and the ring shrinks by as many bits.

    Within one unit, and exact where nothing is lost (`rounding_up`).
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
        total = self.backend.pool_sum(part, step.kernel, step.stride, step.padding)
        return total if step.factor == 1 else total * step.factor


class Gathering(Local[Gather]):
    """See Gather."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Take elements by position."""
        return self.backend.gather(parts, self._places, self.step.fill if server else 0).reshape(self.shape)

    @cached_property
    def _places(self) -> Places:
        return self.backend.places(self.step.index)


class Dropping(Local[Drop]):
    """See Drop."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Shift the part down: the server's rounded up."""
        return (parts[0] + rounding_up(self.step.shift) if server else parts[0]) >> self.step.shift
