"""A fresh mask before a linear layer whose input's client part a source could not know: nothing is said online."""

from __future__ import annotations

from dataclasses import dataclass, field

from pibench.mpc.backends.backend import Backend, Ints
from pibench.mpc.masked.gadgets.gadget import PartDrawn
from pibench.mpc.masked.plan import Plan, Step


@dataclass(frozen=True, kw_only=True)
class Remask(Step):
    """Drop `shift` bits and replace the client's part by one that the dealer knows; the difference goes offline."""

    shift: int = 0


@dataclass
class ServerHalf:
    """The client's old part, truncated, less the fresh one: heard from the client."""

    gap: Ints = field(init=False)


@dataclass
class ClientHalf:
    """The client's fresh part, uniform."""

    part: Ints


class FreshMask(PartDrawn[Remask, ServerHalf, ClientHalf]):
    """See Remask."""

    server_half, client_half = ServerHalf, ClientHalf

    def __init__(self, plan: Plan, step: Remask, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        self.told_width, self.told_count = self.out.wire_bytes, self.size

    def tell(self, inputs: list[Ints], half: ClientHalf) -> Ints:
        """Return the old part, truncated, less the fresh one, which hides it."""
        return (inputs[0] >> self.step.shift).reshape(-1) - half.part

    def hear(self, half: ServerHalf, told: Ints | None) -> None:
        """Take the difference."""
        assert told is not None
        half.gap = told

    def alone(self, inputs: list[Ints], half: ServerHalf) -> Ints:
        """Truncate and add the difference."""
        x = self.backend.flat(inputs[0])
        return self.backend.drop_and_mask(x, self.step.shift, half.gap).reshape(self.shape)
