"""Garbled circuits for the gadgets that want them, beside what two parties make alone: no dealer anywhere.

Labels are rows of the garbler's own direction of transfers; its offset is the circuits', and every row serves once,
here or in another step's exchange.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pibench.lowering.program import Weights
from pibench.mpc.backends.backend import Ints
from pibench.mpc.crypto.garbling.offline import Acts, Ends
from pibench.mpc.crypto.garbling.store import Store
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender
from pibench.mpc.masked.gadgets.gadget import AnyGadget, Gadgets
from pibench.mpc.masked.gadgets.garbled import Garbled
from pibench.mpc.masked.gadgets.square import Squares
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.sources.source import Material
from pibench.mpc.masked.sources.two_party import TwoParty, TwoPartyClient, TwoPartyServer
from pibench.mpc.protocol import Cost, Party

KIND = "garbled circuits"  # under which the meter books what they cost offline


class Garbling:
    """One party's half of what a connection garbles with, and the layers garbled, which both count alike."""

    def __init__(self, party: Party, sender: OtSender, receiver: OtReceiver, folder: str) -> None:
        self._party, self._layers = party, 0
        self._ends = Ends(party.peer, sender, receiver, Store(folder))
        self._begun: list[tuple[AnyGadget, Acts[None]]] = []

    def refuse(self, gadgets: Gadgets, inferences: int) -> None:
        """Raise MaterialError where circuits for so many inferences will not fit into the folder for them."""
        if self._party.is_server == _client_garbles(gadgets):
            self._ends.store.refuse(inferences * sum(gadget.waiting_bytes for gadget in garbled(gadgets)))

    def begin(self, gadget: AnyGadget, half: Any, inputs: list[Ints] | None = None) -> None:
        """Begin one gadget's circuit, if it has one; `inputs` are the client's parts, on the client."""
        if not isinstance(gadget, Garbled):
            return
        number, self._layers = self._layers, self._layers + 1
        if inputs is None:
            acts = gadget.make_server(self._ends, number, half)
        else:
            acts = gadget.make_client(self._ends, number, half, inputs)
        self._begun += self._further([(gadget, acts)])

    def complete(self) -> None:
        """Carry on side by side all that has begun: what flows one way for all of them, then what flows back."""
        while self._begun:
            self._begun = self._further(self._begun)

    def _further(self, begun: list[tuple[AnyGadget, Acts[None]]]) -> list[tuple[AnyGadget, Acts[None]]]:
        """Carry each one act further; returns those that have more."""
        left = []
        for gadget, acts in begun:
            _, stage, site = gadget.step.label
            with self._party.meter.op(KIND, stage, site), suppress(StopIteration):
                next(acts)
                left.append((gadget, acts))
        return left


class _Garbles(TwoParty):
    """What both halves add to those of two parties alone."""

    def _set_up_linear(self, weights: Weights | None) -> None:
        super()._set_up_linear(weights)
        self._garbling = Garbling(self.party, self._sender, self._receiver, _folder(self.plan))

    def make(self, inferences: int) -> Iterator[Material]:
        """Make material for one inference after another; raises MaterialError beforehand where it will not fit."""
        self._garbling.refuse(self.gadgets, inferences)
        return super().make(inferences)  # type: ignore[safe-super]  # the other base has it

    def _complete(self) -> None:
        self._garbling.complete()


class GarblingServer(_Garbles, TwoPartyServer):
    """The server's half: after the linear layers' correlations, all circuits, two messages whatever the depth."""

    def _begin(self, gadget: AnyGadget, half: Any) -> None:
        self._garbling.begin(gadget, half)

    @classmethod
    def inference_cost(cls, gadgets: Gadgets) -> Cost:
        """Two messages for all circuits, of which the first joins another one of the same direction where one flows."""
        linear, every = super().inference_cost(gadgets).offline_rounds, list(gadgets.values())
        if not garbled(gadgets):
            return Cost(offline_rounds=linear)
        if not _client_garbles(gadgets):  # with what the client says at last go its choices, then come the circuits
            return Cost(offline_rounds=max(1, linear) + 1)
        said = any(gadget.told_count or isinstance(gadget, Squares) for gadget in every)
        return Cost(offline_rounds=max(2, linear + 2 * said))  # else the server's choices go with its answers


class GarblingClient(_Garbles, TwoPartyClient):
    """The client's half."""

    def _begin(self, gadget: AnyGadget, half: Any, inputs: list[Ints]) -> None:
        self._garbling.begin(gadget, half, inputs)


SERVER, CLIENT = GarblingServer, GarblingClient


def garbled(gadgets: Gadgets) -> list[Garbled[Any, Any, Any]]:
    """Return the gadgets that have circuits."""
    return [gadget for gadget in gadgets.values() if isinstance(gadget, Garbled)]


def _folder(plan: Plan) -> str:
    return str(getattr(plan.options, "circuits_dir", ""))


def _client_garbles(gadgets: Gadgets) -> bool:
    return any(gadget.client_garbles for gadget in garbled(gadgets))
