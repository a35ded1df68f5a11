"""A dealer: a third process makes the halves, knows the public program only, and colludes with neither party.

Each party gets a seed and draws from it; the server also gets corrections. For linear layers the server's weights W
hide behind a mask B, whose seed the server draws: the client holds D = W - B, the dealer B. With k the client's part of
an input, the client's part of the product is D k + K', and the server is dealt B k - K'.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pibench.errors import TransportError
from pibench.links.meter import Meter, Tally
from pibench.links.transport import Channel
from pibench.lowering.program import Program, Weights, load_masks
from pibench.mpc.backends.backend import Backend, Bytes, Host, Ints
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.masked.gadgets import gadgets_of, layers_of
from pibench.mpc.masked.gadgets.gadget import AnyGadget, Arrays, Gadgets, Parts
from pibench.mpc.masked.gadgets.product import LinearLayer, masked_layers, weight_masks
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.sources.source import Material, Source, as_array, hear, walk
from pibench.mpc.protocol import Cost
from pibench.mpc.ring.randomness import SEED_BYTES, fresh_seed

if TYPE_CHECKING:
    from pibench.session.job import Job

ORDER_BYTES = 8  # how many inferences are wanted


class Dealing:
    """The dealing of one inference: both seeds, and an iterator over the corrections in the order of the plan."""

    def __init__(self, plan: Plan, gadgets: Gadgets, backend: Backend, masks: dict[str, Ints]) -> None:
        self.client_seed, self.server_seed, self._secret = fresh_seed(), fresh_seed(), backend.stream(fresh_seed())
        self._plan, self._gadgets, self._backend, self._masks = plan, gadgets, backend, masks
        self._known = Parts()  # the client's parts, as far as they follow from what it draws

    def __iter__(self) -> Iterator[Bytes]:
        client_stream, server_stream = map(self._backend.stream, (self.client_seed, self.server_seed))
        for name, gadget in self._gadgets.items():
            client, server = gadget.draw_client(client_stream), gadget.draw_server(server_stream)
            inputs = [self._known.get(source) for source in gadget.step.inputs]
            if self._plan.values[name].drawn:
                self._known[name] = gadget.client_part(inputs, client).reshape(gadget.shape)
            if isinstance(gadget, LinearLayer):
                assert inputs[0] is not None
                yield gadget.dealt(inputs[0], self._masks[gadget.mask_name], client.part)
            elif gadget.dealt_bytes:
                yield gadget.deal(client, server, self._secret)


class DealtServer(Source):
    """The server's half: it draws the seed of B, and takes a seed and corrections an inference."""

    def setup(self, weights: Weights | None, kept: Arrays | None) -> Arrays:
        """Give the dealer B's seed, and the client D = W - B unless it has it."""
        assert weights is not None
        seed = kept["seed"].tobytes() if kept else fresh_seed()
        masks = self._share_seed(seed)
        if not kept:
            for name, layer in masked_layers(layers_of(self.gadgets)).items():
                encoded = self.backend.lift(layer.encoded(weights).numpy())
                self.party.peer.send(layer.hide(encoded, masks[name]))
        return {"seed": as_array(seed)}

    def _share_seed(self, seed: bytes) -> dict[str, Ints]:
        """Give B's seed to whoever deals; returns B."""
        assert self.party.dealer is not None
        self.party.dealer.send(seed)
        return weight_masks(self.backend, layers_of(self.gadgets), seed)

    def make(self, inferences: int) -> Iterator[Material]:
        """Order so many from the dealer and take them one by one."""
        self._order(inferences)
        for _ in range(inferences):
            material, stream = Material(), self.backend.stream(self._next_seed())
            for name, gadget in self.gadgets.items():
                half = material.halves[name] = gadget.draw_server(stream)
                if gadget.dealt_bytes:
                    gadget.receive(half, self._correction(gadget.dealt_bytes))
                self._complete(gadget, half)
                hear(gadget, half, self.party.peer)
            yield material

    def _complete(self, gadget: AnyGadget, half: Any) -> None:
        """Make what no dealer can, with the client; nothing here."""

    def _order(self, inferences: int) -> None:
        assert self.party.dealer is not None
        self.party.dealer.send(inferences.to_bytes(ORDER_BYTES, sys.byteorder))

    def _next_seed(self) -> bytes:
        assert self.party.dealer is not None
        return _receive(self.party.dealer, SEED_BYTES)

    def _correction(self, size: int) -> Bytes:
        assert self.party.dealer is not None
        heard = self.backend.buffer(size)
        self.party.dealer.recv_into(heard)
        return self.backend.lift(heard)

    def close(self) -> None:
        """Tell the dealer that no more is wanted."""
        self._order(0)

    @classmethod
    def step_cost(cls, gadget: AnyGadget) -> Cost:
        """Corrections come from the dealer."""
        return Cost(dealer_bytes=gadget.dealt_bytes)

    @classmethod
    def setup_cost(cls, gadgets: Gadgets) -> Cost:
        """D, once a weight tensor."""
        layers = masked_layers(layers_of(gadgets)).values()
        return Cost(setup_server_bytes=sum(layer.hidden_bytes for layer in layers), setup_rounds=1)

    @classmethod
    def inference_cost(cls, gadgets: Gadgets) -> Cost:
        """Two seeds; the dealer's message, and what the client then tells."""
        told = any(gadget.told_count for gadget in gadgets.values())
        return Cost(dealer_bytes=2 * SEED_BYTES, offline_rounds=1 + told)


class DealtClient(Source):
    """The client's half: it holds D, and all of an inference follows from a seed."""

    def setup(self, weights: Weights | None, kept: Arrays | None) -> Arrays:
        """Take D from the server, or from what was kept."""
        layers = masked_layers(layers_of(self.gadgets))
        held = kept or {name: self._take(layer.hidden_bytes) for name, layer in layers.items()}
        self._hidden = {name: layer.hidden(held[name]) for name, layer in layers.items()}
        return held

    def _take(self, size: int) -> Host:
        heard = self.backend.buffer(size)
        self.party.peer.recv_into(heard)
        return heard

    def make(self, inferences: int) -> Iterator[Material]:
        """Take a seed an inference and draw all from it."""
        for _ in range(inferences):
            yield self._expand(self._next_seed(), self.party.peer)

    def _next_seed(self) -> bytes:
        assert self.party.dealer is not None
        return _receive(self.party.dealer, SEED_BYTES)

    def _expand(self, seed: bytes, tell: Channel | None) -> Material:
        stream = self.backend.stream(seed)

        def half_of(gadget: AnyGadget, inputs: list[Ints]) -> Any:
            half = gadget.draw_client(stream)
            if isinstance(gadget, LinearLayer):  # K1 = D k + K'
                half.part = gadget.shared(inputs[0], self._hidden[gadget.mask_name], half.part)
            if tell is not None:
                self._complete(gadget, half, inputs)
            return half

        made = walk(self.plan, self.gadgets, half_of, tell)
        made.seed = seed
        return made

    def _complete(self, gadget: AnyGadget, half: Any, inputs: list[Ints]) -> None:
        """Make what no dealer can, with the server; nothing here."""

    def to_arrays(self, material: Material) -> Arrays:
        """Return the seed."""
        return {"seed": as_array(material.seed)}

    def from_arrays(self, arrays: Arrays) -> Material:
        """Draw all again, without telling."""
        return self._expand(arrays["seed"].tobytes(), None)


SERVER, CLIENT = DealtServer, DealtClient


def _receive(channel: Channel, size: int) -> bytes:
    into = bytearray(size)
    channel.recv_into(into)
    return bytes(into)


class Dealer:
    """The third process: deals for one program between one pair of parties."""

    def __init__(self, program: Program, options: dict[str, Any], batch: int, server: Channel, client: Channel) -> None:
        self._backend = backend_for("cpu")
        self._backend.prepare()
        known = {k: v for k, v in options.items() if k in Options.__dataclass_fields__}
        self._plan = plan_program(program, Options.parse(known), batch)
        self._gadgets = gadgets_of(self._plan, self._backend)
        self._server, self._client = server, client
        seed = _receive(server, SEED_BYTES)  # the server draws it, so that material kept for its model stays good
        self._masks = weight_masks(self._backend, layers_of(self._gadgets), seed)

    def deal(self) -> None:
        """Make and deliver the material of one batch."""
        dealing = Dealing(self._plan, self._gadgets, self._backend, self._masks)
        self._client.send(dealing.client_seed)
        self._server.send(dealing.server_seed)
        for correction in dealing:
            self._server.send(correction)


def serve(job: Job, server_socket: socket.socket, client_socket: socket.socket) -> dict[str, Any]:
    """Deal until the server wants no more; returns the tally of all dealing."""
    program = Program.from_json(job.program, load_masks(job.masks))
    meter = Meter()
    server, client = (Channel(sock, meter, job.timeout_s) for sock in (server_socket, client_socket))
    with meter.phase() as setup:
        dealer = Dealer(program, job.options, job.batch, server, client)
    total = deal_orders(dealer, Channel(server_socket, Meter(), timeout_s=float("inf")), meter)
    total.add(setup.total)
    return {**vars(total), "parts": []}


def deal_orders(dealer: Dealer, orders: Channel, meter: Meter | None = None) -> Tally:
    """Deal what the server orders until it wants no more; returns the tally of all dealing."""
    total, meter = Tally(), meter or Meter()
    while wanted := _next_order(orders):
        with meter.phase() as tally:
            for _ in range(wanted):
                dealer.deal()
        total.add(tally.total)
    return total


def _next_order(orders: Channel) -> int:
    """Wait for how many inferences the server wants next; a server that has hung up wants none."""
    try:
        return int.from_bytes(_receive(orders, ORDER_BYTES), sys.byteorder)
    except TransportError:
        return 0
