"""Stock CrypTen: Beaver products, a 64-bit carry circuit for each ReLU, local truncation, over gloo.

This is what a CrypTen user has today. Correlated randomness comes from CrypTen's TrustedFirstParty provider, which
makes each tuple at the moment it is used: the offline work of `crypten` is inside its online phase.

Options: `wire` is gloo (CrypTen's own; `rendezvous` is host:port) or channel (ours: one hop an exchange).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from pibench.errors import UsageError
from pibench.lowering.program import Input, Op, Program, Weights
from pibench.mpc.crypten.cuda import plain
from pibench.mpc.protocol import CLIENT, Party, Protocol
from pibench.mpc.ring.fixedpoint import decode

if TYPE_CHECKING:  # these import CrypTen, which takes seconds: only who runs it pays
    from pibench.mpc.crypten.communicator import MeteredGloo, OverChannel
    from pibench.mpc.crypten.kernels import Model

WIRES = ("gloo", "channel")


class CrypTen(Protocol):
    """One side of stock CrypTen, tuples made inline."""

    name: ClassVar[str] = "crypten"

    def __init__(self, program: Program, party: Party) -> None:
        super().__init__(program, party)
        self._wire = str(party.options.get("wire", "gloo"))
        if self._wire not in WIRES:
            raise UsageError(f"CrypTen has no wire {self._wire!r}", remedy=f"choose one of {', '.join(WIRES)}")
        self._communicator: MeteredGloo | OverChannel | None = None
        self._model: Model | None = None
        self._op: Op | None = None
        self._device: str | None = None

    def setup(self, weights: Weights | None) -> None:
        """Connect, exchange CrypTen's seeds, share the weights (no traffic: the peer's share is pseudo-random)."""
        rendezvous = str(self.party.options.get("rendezvous", ""))
        if self._wire == "gloo" and not rendezvous:
            raise UsageError("CrypTen over gloo needs option rendezvous, host:port")
        from pibench.mpc.crypten import communicator, kernels

        self._communicator = communicator.start(self.party, self._wire, rendezvous, self.party.peer.timeout_s)
        self._undo = kernels.watch_truncation(self._truncating)
        self._model = kernels.Model(self.program, weights, self.program.weight_shapes(), self.party.device)

    def offline(self, inferences: int) -> None:
        """Do nothing: tuples are made when they are used."""

    def online(self, images: Tensor | None) -> Tensor | None:
        """Share the image, run the program, open the logits to the client alone."""
        shape = (self.party.batch, *self.program.input_shape)
        if not self.party.is_server and (images is None or tuple(images.shape) != shape):
            raise UsageError(f"images have shape {None if images is None else tuple(images.shape)}, not {shape}")
        return self._run(images)

    def _run(self, images: Tensor | None) -> Tensor | None:
        from pibench.mpc.crypten.kernels import no_grad, share

        assert self._model is not None
        values: dict[str, Any] = {}
        last_reader = {name: op.name for op in self.program for name in op.inputs}
        with no_grad():
            for op in self.program:
                with self._on(op):
                    if isinstance(op, Input):
                        shape = (self.party.batch, *self.program.input_shape)
                        values[op.name] = share(images, shape, CLIENT, self.party.device)
                    else:
                        values[op.name] = self._model.apply(op, [values[name] for name in op.inputs])
                for name in op.inputs:
                    if last_reader[name] == op.name:
                        values.pop(name, None)
            with self.party.meter.op("other", "", "output"):
                ring = values[self.program.output.name].reveal(dst=CLIENT)
        self._device = str(values[self.program.output.name].share.device)
        return None if self.party.is_server else decode(plain(ring).to("cpu"))

    def device(self) -> str | None:
        """Return where the last logits were made; None before the first."""
        return self._device

    @contextmanager
    def _on(self, op: Op) -> Iterator[None]:
        site = op.site or op.name
        with self.party.meter.op(op.kind, op.stage, site):
            self._op = op
            yield
            self._op = None

    @contextmanager
    def _truncating(self) -> Iterator[None]:
        """Book the truncation after a product apart from the product."""
        if self._op is None or self._op.kind != "linear":
            yield
            return
        with self.party.meter.op("truncation", self._op.stage, self._op.site):
            yield

    def close(self) -> None:
        """Leave the process group."""
        if self._communicator is not None:
            self._undo()
            self._communicator.close()
            self._communicator = None


PROTOCOL: type[Protocol] = CrypTen
