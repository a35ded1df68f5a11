"""The phases of the fast protocol: what each party does in setup, offline and online.

Setting: two semi-honest parties, and a source of correlated randomness (`sources/`): a dealer who colludes with
neither, unless a suite says otherwise (CrypTen's TFP and TTP assume as much). The server keeps its weights W in the
clear, as the papers' own online phase does (DELPHI, Mishra et al., USENIX Security 2020); the client's part of every
value is fixed before the image is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor

from pibench.errors import MaterialError
from pibench.lowering.program import Program, Weights
from pibench.mpc.backends.backend import Backend
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.masked.client import Client
from pibench.mpc.masked.gadgets import gadgets_of
from pibench.mpc.masked.gadgets.product import layer_weights
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.server import Server
from pibench.mpc.masked.sources import source_class
from pibench.mpc.masked.sources.shelf import Kept
from pibench.mpc.masked.sources.source import Material, Source
from pibench.mpc.protocol import Party, Protocol


class MaskedProtocol(Protocol):
    """Masked linear layers without online traffic, one-time-table ReLUs, material from a source."""

    name: ClassVar[str] = "masked"
    options_class: ClassVar[type[Options]] = Options

    def __init__(self, program: Program, party: Party) -> None:
        super().__init__(program, party)
        self.options = self.options_class.parse(party.options)
        self.plan = plan_program(program, self.options, party.batch)
        self.backend = self._choose_backend()
        party.meter.synchronise = self.backend.synchronise
        self.gadgets = gadgets_of(self.plan, self.backend)
        self.source = self._choose_source()
        self._side: Server | Client
        self._material: list[Material] = []
        self._spent: Material | None = None

    def _choose_backend(self) -> Backend:
        return backend_for(self.party.device)

    def _choose_source(self) -> Source:
        party, options = self.party.beside or self.party, self.options
        source = source_class(options.provider, party.is_server)(self.plan, self.gadgets, party)
        if not options.keep_dir:
            return source
        key = f"{self.program.sha256} {self.plan.sha256} {options.key()} {party.batch}"
        return Kept(source, Path(options.keep_dir), key)

    def setup(self, weights: Weights | None) -> None:
        """Set up the source, then prepare the server's products."""
        self.backend.prepare()
        party, made = self.party, layer_weights(self.plan, weights) if weights is not None else None
        self.source.setup(made, None)
        if made is not None:
            self._side = Server(self.plan, self.gadgets, self.backend, made, party.peer, party.meter)
        else:
            self._side = Client(self.plan, self.gadgets, self.backend, party.peer, party.meter)

    def offline(self, inferences: int) -> None:
        """Get material for this many batches: kept material first, then fresh; `deal_ahead` more are kept for later."""
        self._material += self.source.make(inferences)

    def online(self, images: Tensor | None) -> Tensor | None:
        """Run one batch on fresh material, which is gone afterwards whatever happens."""
        material = self._spent = self._next()
        if isinstance(self._side, Server):
            self._side.run(material)
            return None
        assert images is not None
        return self._side.run(images, material)

    def device(self) -> str:
        """Return where the words are."""
        return self.backend.device

    def held_bytes(self) -> int | None:
        """Return the bytes of one inference's material, as it would be kept."""
        waiting = self._material[-1:]
        return sum(array.nbytes for array in self.source.to_arrays(waiting[0]).values()) if waiting else None

    def backend_name(self) -> str:
        """Return what holds them."""
        return self.backend.name

    def settle(self) -> None:
        """Give the memory of used material back: with tens of megabytes that takes milliseconds."""
        self._spent = None

    def _next(self) -> Material:
        if not self._material:
            raise MaterialError("no material is left for another inference", remedy="run the offline phase again")
        return self._material.pop(0)

    def close(self) -> None:
        """Say that no more material is wanted."""
        if hasattr(self, "_side"):
            self.source.close()


PROTOCOL = MaskedProtocol
