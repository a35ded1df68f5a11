"""The phases of the fast protocol: what each party does in setup, offline and online, and who deals.

Setting: two semi-honest parties and a dealer who colludes with neither (CrypTen's TFP and TTP assume as much). The
server keeps its weights W in the clear, as the papers' own online phase does (DELPHI, Mishra et al., USENIX Security
2020), the client learns D = W - B, uniform; the client's part of every value is fixed before the image is known.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pibench.errors import MaterialError
from pibench.lowering.program import Op, Program, Weights
from pibench.mpc.masked.client import Client, ClientMaterial
from pibench.mpc.masked.cost import operation_cost
from pibench.mpc.masked.kernels import Bytes
from pibench.mpc.masked.material import Dealing, weight_masks, weight_shapes
from pibench.mpc.masked.plan import Options, plan_program
from pibench.mpc.masked.server import Server, ServerMaterial, encode, layer_weights
from pibench.mpc.masked.warmup import compile_kernels
from pibench.mpc.protocol import Cost, Party, Protocol
from pibench.mpc.randomness import SEED_BYTES, fresh_seed


class MaskedProtocol(Protocol):
    """Masked linear layers without online traffic, one-time-table ReLUs, material from a dealer."""

    name: ClassVar[str] = "masked"
    wants_dealer: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("pibench.mpc.dealer", "pibench.mpc.masked.warmup:compile_kernels")

    def __init__(self, program: Program, party: Party) -> None:
        super().__init__(program, party)
        self.options = Options.parse(party.options)
        self.plan = plan_program(program, self.options)
        self._side: Server | Client
        self._material: list[ServerMaterial | ClientMaterial] = []
        self._own_dealer: FirstPartyDealer | None = None

    def setup(self, weights: Weights | None) -> None:
        """Server: get B's seed, prepare W, open D = W - B to the client. Client: take D."""
        compile_kernels()
        party, shapes = self.party, weight_shapes(self.plan)
        if not party.is_server:
            masked = {name: torch.empty(shape, dtype=torch.int64) for name, shape in shapes.items()}
            for tensor in masked.values():
                party.peer.recv_into(tensor.numpy())
            self._side = Client(self.plan, masked, party.peer, party.meter, party.batch)
            return
        assert weights is not None
        weights = layer_weights(self.plan, weights)
        masks = weight_masks(self.plan, self._seed_of_masks())
        for name, mask in masks.items():
            party.peer.send((encode(weights[name], self.options.fraction_bits) - mask).numpy())
        if party.dealer is None:
            self._own_dealer = FirstPartyDealer(self, masks)
        self._side = Server(self.plan, weights, party.peer, party.meter, party.batch)

    def _seed_of_masks(self) -> bytes:
        if self.party.dealer is None:
            return fresh_seed()
        seed = np.empty(SEED_BYTES, np.uint8)
        self.party.dealer.recv_into(seed)
        return seed.tobytes()

    def offline(self, inferences: int) -> None:
        """Get material for this many batches; the client also sends what of it the server needs."""
        if isinstance(self._side, Server) and self.party.dealer is not None:
            self.party.dealer.send(np.array([inferences], np.int64))
        for _ in range(inferences):
            seed = self._seed()
            if isinstance(self._side, Server):
                material = self._side.receive_material(seed, self._corrections())
                self._side.hear_offsets(material)
                self._material.append(material)
            else:
                self._material.append(self._side.expand_material(seed))

    def _seed(self) -> bytes:
        """Take this party's seed of the next inference, from the dealer or from the server that deals."""
        if self._own_dealer is not None:
            return self._own_dealer.next_inference()
        seed = np.empty(SEED_BYTES, np.uint8)
        (self.party.dealer or self.party.peer).recv_into(seed)
        return seed.tobytes()

    def _corrections(self) -> Any:
        if self._own_dealer is not None:
            return self._own_dealer.corrections
        dealer = self.party.dealer
        assert dealer is not None

        def receive(size: int) -> Bytes:
            into = np.empty(size, np.uint8)
            dealer.recv_into(into)
            return into

        return receive

    def online(self, images: Tensor | None) -> Tensor | None:
        """Run one batch on fresh material, which is gone afterwards whatever happens."""
        if not self._material:
            raise MaterialError("no material is left for another inference", remedy="run the offline phase again")
        material = self._material.pop(0)
        if isinstance(self._side, Server):
            assert isinstance(material, ServerMaterial)
            self._side.run(material)
            return None
        assert isinstance(material, ClientMaterial)
        assert images is not None
        return self._side.run(images, material)

    def close(self) -> None:
        """Tell the dealer that no more is wanted."""
        if isinstance(getattr(self, "_side", None), Server) and self.party.dealer is not None:
            self.party.dealer.send(np.array([0], np.int64))

    @classmethod
    def cost(cls, program: Program, op: Op, batch: int, options: dict[str, Any]) -> Cost:
        """Declare one operation's cost: see cost.py."""
        return operation_cost(program, op, batch, options)


class FirstPartyDealer:
    """The server deals for both, as CrypTen's first party does: same work, same traffic, no privacy from the server."""

    def __init__(self, protocol: MaskedProtocol, masks: dict[str, Tensor]) -> None:
        self._protocol, self._masks = protocol, masks
        self._dealing: Any = None

    def next_inference(self) -> bytes:
        """Draw the next inference's seeds, send the client its own, return the server's."""
        client, server, secret = (fresh_seed() for _ in range(3))
        self._protocol.party.peer.send(np.frombuffer(client, np.uint8))
        plan, batch = self._protocol.plan, self._protocol.party.batch
        self._dealing = iter(Dealing(plan, self._masks, batch, (client, server, secret)))
        return server

    def corrections(self, size: int) -> Bytes:
        """Return the next correction; nothing is sent, since the dealer is at home here."""
        if not size:
            return np.empty(0, np.uint8)
        made: Bytes = next(self._dealing)
        if made.size != size:
            raise MaterialError(f"a correction has {made.size} bytes where the plan wants {size}")
        return made


PROTOCOL = MaskedProtocol
