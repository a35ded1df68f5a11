"""The phases of the fast protocol: what each party does in setup, offline and online, and who deals.

Setting: two semi-honest parties and a dealer who colludes with neither (CrypTen's TFP and TTP assume as much). The
server keeps its weights W in the clear, as the papers' own online phase does (DELPHI, Mishra et al., USENIX Security
2020), the client learns D = W - B, uniform; the client's part of every value is fixed before the image is known.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pibench.errors import MaterialError, TransportError, UsageError
from pibench.lowering.program import Op, Program, Weights
from pibench.mpc.masked.client import Client, ClientMaterial
from pibench.mpc.masked.cost import operation_cost
from pibench.mpc.masked.kernels import Bytes
from pibench.mpc.masked.material import Dealing, weight_masks, weight_shapes
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Plan, Product
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.server import Server, ServerMaterial, layer_weights
from pibench.mpc.masked.shelf import ID_BYTES, Shelf, new_item
from pibench.mpc.masked.warmup import compile_kernels
from pibench.mpc.protocol import Cost, Party, Protocol
from pibench.mpc.ring.fixedpoint import encode
from pibench.mpc.ring.randomness import SEED_BYTES, fresh_seed


class MaskedProtocol(Protocol):
    """Masked linear layers without online traffic, one-time-table ReLUs, material from a dealer."""

    name: ClassVar[str] = "masked"
    wants_dealer: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("pibench.mpc.masked.dealer", "pibench.mpc.masked.warmup:compile_kernels")

    def __init__(self, program: Program, party: Party) -> None:
        super().__init__(program, party)
        self.options = Options.parse(party.options)
        self.plan = plan_program(program, self.options)
        self._side: Server | Client
        self._material: list[ServerMaterial | ClientMaterial] = []
        self._spent: ServerMaterial | ClientMaterial | None = None
        self._own_dealer: FirstPartyDealer | None = None
        self._shelf: Shelf | None = None
        if folder := self.options.keep_dir:
            key = f"{program.sha256} {self.plan.sha256} {self.options.key()} {party.batch}"
            self._shelf = Shelf(Path(folder), "server" if party.is_server else "client", key)

    def setup(self, weights: Weights | None) -> None:
        """Server: get B's seed, prepare W, open D = W - B to the client. Client: take D. A kept D is not sent again."""
        compile_kernels()
        if self.party.is_server:
            assert weights is not None
            self._setup_server(layer_weights(self.plan, weights))
        else:
            self._setup_client()

    def _setup_server(self, weights: Weights) -> None:
        party, peer = self.party, self.party.peer
        encoded = {name: encode(weights[name], self.options.fraction_bits) for name in weight_shapes(self.plan)}
        digest = _digest(self.plan, weights)
        seed, model, kept = self._mask_seed(digest)
        masks = weight_masks(self.plan, seed)
        peer.send(np.frombuffer(model, np.uint8))
        known = np.zeros(1, np.uint8)
        peer.recv_into(known)
        if not known[0]:
            for name, mask in masks.items():
                peer.send((encoded[name] - mask).numpy())
        if self._shelf is not None and not (kept and known[0]):
            self._shelf.put_model({"seed": _bytes(seed), "model": _bytes(model), "digest": _bytes(digest)})
        if party.dealer is None:
            self._own_dealer = FirstPartyDealer(self, masks)
        self._side = Server(self.plan, weights, peer, party.meter, party.batch)

    def _mask_seed(self, digest: bytes) -> tuple[bytes, bytes, bool]:
        """Return B's seed, the model's name for kept material, and whether both were kept from before."""
        held = self._shelf.model() if self._shelf is not None else None
        kept = held is not None and held["digest"].tobytes() == digest
        seed = held["seed"].tobytes() if kept and held is not None else fresh_seed()
        if self.party.dealer is not None:
            self.party.dealer.send(np.frombuffer(seed, np.uint8))
        return seed, held["model"].tobytes() if kept and held is not None else new_item(), kept

    def _setup_client(self) -> None:
        party, peer, shapes = self.party, self.party.peer, weight_shapes(self.plan)
        model = np.empty(ID_BYTES, np.uint8)
        peer.recv_into(model)
        held = self._shelf.model() if self._shelf is not None else None
        known = held is not None and bool((held["model"] == model).all())
        peer.send(np.array([known], np.uint8))
        if known and held is not None:
            masked = {name: torch.from_numpy(held[name]) for name in shapes}
        else:
            masked = {name: torch.empty(shape, dtype=torch.int64) for name, shape in shapes.items()}
            for tensor in masked.values():
                peer.recv_into(tensor.numpy())
            if self._shelf is not None:
                self._shelf.put_model({"model": model, **{name: tensor.numpy() for name, tensor in masked.items()}})
        self._side = Client(self.plan, masked, peer, party.meter, party.batch)

    def offline(self, inferences: int) -> None:
        """Get material for this many batches: kept material first, then fresh; `deal_ahead` more are kept for later."""
        wanted, ahead = inferences, 0
        if self._shelf is not None:
            wanted, ahead = self._take_kept(self._shelf, inferences), self.options.deal_ahead
        if self.party.is_server and self.party.dealer is not None:
            self.party.dealer.send(np.array([wanted + ahead], np.int64))
        for k in range(wanted + ahead):
            seed = self._seed()
            made = self._fresh_server(seed) if self.party.is_server else self._fresh_client(seed)
            if k < wanted:
                self._material.append(made)
            elif self._shelf is not None:
                self._keep(self._shelf, made, seed)

    def _fresh_server(self, seed: bytes) -> ServerMaterial | ClientMaterial:
        assert isinstance(self._side, Server)
        made = self._side.receive_material(seed, self._corrections())
        self._side.hear_offsets(made)
        return made

    def _fresh_client(self, seed: bytes) -> ServerMaterial | ClientMaterial:
        assert isinstance(self._side, Client)
        return self._side.expand_material(seed)

    def _take_kept(self, shelf: Shelf, inferences: int) -> int:
        """Take what both parties have kept; returns how many batches still need fresh material."""
        if isinstance(self._side, Server):
            both = self._offer_kept(shelf, inferences)
            made = [ServerMaterial.from_arrays(shelf.take(item), self.plan, self.party.batch) for item in both]
            self._material += made
        else:
            both = self._choose_kept(shelf, inferences)
            seeds = [shelf.take(item)["seed"].tobytes() for item in both]
            self._material += [self._side.expand_material(seed, tell=False) for seed in seeds]
        return inferences - len(both)

    def _offer_kept(self, shelf: Shelf, inferences: int) -> list[bytes]:
        """Server: name the oldest items, and return those that the client has too; the others serve nobody and go."""
        offered, peer = shelf.items()[:inferences], self.party.peer
        peer.send(np.array([len(offered)], np.int64))
        peer.send(np.frombuffer(b"".join(offered), np.uint8))
        had = np.zeros(len(offered), np.uint8)
        peer.recv_into(had)
        for item, both in zip(offered, had, strict=True):
            if not both:
                shelf.discard(item)
        return [item for item, both in zip(offered, had, strict=True) if both]

    def _choose_kept(self, shelf: Shelf, inferences: int) -> list[bytes]:
        """Client: return what it has of the items that the server names."""
        mine, peer = set(shelf.items()), self.party.peer
        size = np.zeros(1, np.int64)
        peer.recv_into(size)
        if not 0 <= (announced := int(size[0])) <= inferences:
            raise TransportError(
                f"the server offers {announced} kept items for {inferences} inferences: this is no peer"
            )
        names = np.empty(announced * ID_BYTES, np.uint8)
        peer.recv_into(names)
        offered = [name.tobytes() for name in names.reshape(-1, ID_BYTES)]
        peer.send(np.array([item in mine for item in offered], np.uint8))
        return [item for item in offered if item in mine]

    def _keep(self, shelf: Shelf, made: ServerMaterial | ClientMaterial, seed: bytes) -> None:
        if isinstance(made, ServerMaterial):
            item = new_item()
            self.party.peer.send(np.frombuffer(item, np.uint8))
            shelf.put(item, made.to_arrays())
            return
        name = np.empty(ID_BYTES, np.uint8)
        self.party.peer.recv_into(name)
        shelf.put(name.tobytes(), {"seed": _bytes(seed)})

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
        material = self._spent = self._next()
        if isinstance(self._side, Server):
            assert isinstance(material, ServerMaterial)
            self._side.run(material)
            return None
        assert isinstance(material, ClientMaterial)
        assert images is not None
        return self._side.run(images, material)

    def settle(self) -> None:
        """Give the memory of used material back: with tens of megabytes that takes milliseconds."""
        self._spent = None

    def online_shares(self, share: Tensor) -> Tensor:
        """Run one batch from additive shares to additive shares, modulo 2^64 and at CrypTen's scale.

        `share` int64 (batch, *input_shape) is this party's; both parties call this, and nothing is opened. Wants
        `whole_output: true`, and a program that ends in a ReLU (its output stands at 16 fractional bits).
        """
        if not self.options.whole_output or self.plan.output.scale != self.options.fraction_bits:
            raise UsageError(
                "the output has no 64 valid bits at the scale of a share", remedy="set whole_output, end in a ReLU"
            )
        material = self._next()
        if isinstance(self._side, Server):
            assert isinstance(material, ServerMaterial)
            return torch.from_numpy(self._side.compute(material, share.numpy()))
        assert isinstance(material, ClientMaterial)
        return torch.from_numpy(self._side.compute(share.numpy(), material))

    def _next(self) -> ServerMaterial | ClientMaterial:
        if not self._material:
            raise MaterialError("no material is left for another inference", remedy="run the offline phase again")
        return self._material.pop(0)

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


def _digest(plan: Plan, weights: Weights) -> bytes:
    """Hash the weights and the biases of every layer: kept material holds products and biases of these, no others."""
    digest = hashlib.sha256()
    for layer in (step.layer for step in plan.steps if isinstance(step, Product)):
        for name in filter(None, (layer.weight, layer.bias)):
            digest.update(name.encode() + weights[name].detach().contiguous().numpy().tobytes())
    return digest.digest()


def _bytes(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


PROTOCOL = MaskedProtocol
