"""Garbled circuits for the gadgets that want them, made by both parties alone over one set of base transfers."""

from __future__ import annotations

from typing import Any

from pibench.lowering.program import Weights
from pibench.mpc.crypto.softspoken import set_up_receiver, set_up_sender
from pibench.mpc.masked.gadgets.gadget import AnyGadget, Arrays, Gadgets
from pibench.mpc.masked.gadgets.halfgates import HalfGates
from pibench.mpc.masked.kernels import Ints
from pibench.mpc.masked.sources.first_party import FirstPartyClient, FirstPartyServer
from pibench.mpc.protocol import Cost, Party
from pibench.mpc.ring.randomness import SEED_BYTES

SESSION, ROLE = b"pibench delphi", b"garbling"
KIND = "garbled circuits"  # under which the meter books what they cost offline


class Garbling:
    """One party's half of the transfers of a connection, and the layers garbled with them, which both count alike."""

    def __init__(self, party: Party, gadgets: Gadgets) -> None:
        self._party = party
        garbles = any(isinstance(g, HalfGates) and g.client_garbles for g in gadgets.values()) != party.is_server
        set_up = set_up_sender if garbles else set_up_receiver
        self._ot = set_up(party.peer, SESSION, ROLE)
        self._layers = 0

    def complete(self, gadget: AnyGadget, half: Any, inputs: list[Ints] | None = None) -> None:
        """Make one gadget's circuit, if it has one; `inputs` are the client's parts, on the client."""
        if not isinstance(gadget, HalfGates):
            return
        number, self._layers = self._layers, self._layers + 1
        _, stage, site = gadget.step.label
        with self._party.meter.op(KIND, stage, site):
            if inputs is None:
                gadget.make_server(self._party.peer, self._ot, number, half)
            else:
                gadget.make_client(self._party.peer, self._ot, number, half, inputs)


class GarblingServer(FirstPartyServer):
    """The server's half; linear correlations are its own."""

    def setup(self, weights: Weights | None, kept: Arrays | None) -> Arrays:
        """Make the base transfers, too."""
        made = super().setup(weights, kept)
        self._garbling = Garbling(self.party, self.gadgets)
        return made

    @classmethod
    def inference_cost(cls, gadgets: Gadgets) -> Cost:
        """Count the client's seed."""
        return Cost(offline_server_bytes=SEED_BYTES)

    def _complete(self, gadget: AnyGadget, half: Any) -> None:
        self._garbling.complete(gadget, half)


class GarblingClient(FirstPartyClient):
    """The client's half."""

    def setup(self, weights: Weights | None, kept: Arrays | None) -> Arrays:
        """Make the base transfers, too."""
        made = super().setup(weights, kept)
        self._garbling = Garbling(self.party, self.gadgets)
        return made

    def _complete(self, gadget: AnyGadget, half: Any, inputs: list[Ints]) -> None:
        self._garbling.complete(gadget, half, inputs)


SERVER, CLIENT = GarblingServer, GarblingClient
