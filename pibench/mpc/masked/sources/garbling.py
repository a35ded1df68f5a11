"""Garbled circuits for the gadgets that want them, beside what two parties make alone: no dealer anywhere.

Labels are rows of the garbler's own direction of transfers; its offset is the circuits', and every row serves once,
here or in another step's exchange.
"""

from __future__ import annotations

from typing import Any

from pibench.lowering.program import Weights
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender
from pibench.mpc.masked.gadgets.circa import Circa
from pibench.mpc.masked.gadgets.gadget import AnyGadget, Gadgets
from pibench.mpc.masked.gadgets.halfgates import HalfGates
from pibench.mpc.masked.gadgets.square import Squares
from pibench.mpc.masked.kernels import Ints
from pibench.mpc.masked.sources.two_party import TwoPartyClient, TwoPartyServer
from pibench.mpc.protocol import Cost, Party

KIND = "garbled circuits"  # under which the meter books what they cost offline


class Garbling:
    """One party's half of the transfers of a connection, and the layers garbled with them, which both count alike."""

    def __init__(self, party: Party, sender: OtSender, receiver: OtReceiver) -> None:
        self._party, self._layers = party, 0
        self._transfers = sender, receiver

    def complete(self, gadget: AnyGadget, half: Any, inputs: list[Ints] | None = None) -> None:
        """Make one gadget's circuit, if it has one; `inputs` are the client's parts, on the client."""
        if not isinstance(gadget, HalfGates | Circa):
            return
        number, self._layers = self._layers, self._layers + 1
        _, stage, site = gadget.step.label
        with self._party.meter.op(KIND, stage, site):
            if inputs is None:
                gadget.make_server(self._party.peer, *self._transfers, number, half)
            else:
                gadget.make_client(self._party.peer, *self._transfers, number, half, inputs)


class GarblingServer(TwoPartyServer):
    """The server's half: after the linear layers' correlations, a circuit a layer, two messages each."""

    def _set_up_linear(self, weights: Weights | None) -> None:
        super()._set_up_linear(weights)
        self._garbling = Garbling(self.party, self._sender, self._receiver)

    def _complete(self, gadget: AnyGadget, half: Any) -> None:
        self._garbling.complete(gadget, half)

    @classmethod
    def inference_cost(cls, gadgets: Gadgets) -> Cost:
        """Count the links that no circuit counts for itself: windows, and what the client says around the circuits."""
        windows, order = super().inference_cost(gadgets).offline_rounds, list(gadgets.values())
        garbled = [at for at, gadget in enumerate(order) if isinstance(gadget, HalfGates | Circa)]
        if not garbled:
            return Cost(offline_rounds=windows)
        if _client_garbles(gadgets):  # the server speaks first: together with its answer, if nothing is between
            between = order[: garbled[0]] + [gadget for gadget in order if isinstance(gadget, Squares)]
            return Cost(offline_rounds=windows if any(gadget.told_count for gadget in between) else windows - 2)
        after = any(gadget.told_count for gadget in order[garbled[-1] :])
        return Cost(offline_rounds=windows - 1 + after)


class GarblingClient(TwoPartyClient):
    """The client's half."""

    def _set_up_linear(self, weights: Weights | None) -> None:
        super()._set_up_linear(weights)
        self._garbling = Garbling(self.party, self._sender, self._receiver)

    def _complete(self, gadget: AnyGadget, half: Any, inputs: list[Ints]) -> None:
        self._garbling.complete(gadget, half, inputs)


SERVER, CLIENT = GarblingServer, GarblingClient


def _client_garbles(gadgets: Gadgets) -> bool:
    return any(isinstance(gadget, HalfGates) and gadget.client_garbles for gadget in gadgets.values())
