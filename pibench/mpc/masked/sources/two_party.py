"""No third party: the two make all correlated randomness by themselves, by encryption and oblivious transfer.

Setup, once a connection: both directions of oblivious transfer, and the client's key. Then an inference takes three
messages whatever its depth, since the client's part of every linear layer's input is drawn and waits for nothing:

1. client: choices of its transfers, ciphertexts of its parts.
2. server: corrections and choices of its own, answers to the ciphertexts.
3. client: its corrections, and what the walk through the plan tells.

A party holds what is between two messages, so a large batch is worked on in windows of WINDOW_BYTES, two messages each.
Both are semi-honest; unaudited, for measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from pibench.lowering.program import Weights
from pibench.mpc.backends.backend import Backend, Bytes, Ints
from pibench.mpc.crypto.rlwe.layer import Layer
from pibench.mpc.crypto.rlwe.linear import Exchange as LinearSizes
from pibench.mpc.crypto.rlwe.linear import LinearClient, LinearServer, weight_class
from pibench.mpc.crypto.rlwe.params import LIMITS
from pibench.mpc.crypto.softspoken import ANSWER_BYTES, OFFER_BYTES, set_up_both
from pibench.mpc.masked.gadgets import layers_of
from pibench.mpc.masked.gadgets.extend import Extension
from pibench.mpc.masked.gadgets.gadget import AnyGadget, Arrays, Gadgets, Parts
from pibench.mpc.masked.gadgets.product import ClientHalf, LinearLayer, Product, ServerHalf
from pibench.mpc.masked.gadgets.relu_truth_tables import Tables
from pibench.mpc.masked.gadgets.square import Squares
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.sources import transferred
from pibench.mpc.masked.sources.exchange import ClientExchange, ServerExchange, Talk
from pibench.mpc.masked.sources.source import Material, Source, hear, lifted, walk
from pibench.mpc.masked.sources.weighing import Laid
from pibench.mpc.protocol import Cost
from pibench.mpc.ring.fixedpoint import encode
from pibench.mpc.ring.randomness import Stream, fresh_seed

WINDOW_BYTES = 1 << 30
# Transformed weights are made anew: those of a full ResNet18 fill 1.9 GB, whose first touch can take seconds, and save
# a quarter of each later inference's offline time.
KEPT_BYTES = 0
_HELD = 5  # bytes that a party holds between messages, for every byte of the client's choices
_ROLES = b"server", b"client"  # by who sends the transfers


class ClientLinear(ClientExchange[LinearLayer]):
    """A linear layer's client: its part k goes encrypted, W k - K0 comes back."""

    def __init__(self, gadget: LinearLayer, talk: Talk, linear: LinearClient, part: Ints) -> None:
        super().__init__(gadget, talk)
        self._linear, self._part, self._name, self._laid = linear, part, gadget.step.out, Laid.of(gadget)

    def ask(self) -> None:
        """Send the ciphertexts."""
        self.talk.channel.send(self._linear.request(self._name, self._laid.part(self._part)))

    def take(self) -> None:
        """Decrypt the answer."""
        message = self.talk.hear(self._linear.exchange.answer_bytes(self._name))
        self.half = ClientHalf(self._laid.share(self._linear.take(self._name, message)))


class ServerLinear(ServerExchange[LinearLayer]):
    """A linear layer's server: it answers while the client decrypts what came before."""

    def __init__(self, gadget: LinearLayer, talk: Talk, linear: LinearServer) -> None:
        super().__init__(gadget, talk)
        self._linear, self._name, self._laid = linear, gadget.step.out, Laid.of(gadget)
        self._request: Bytes

    def hear(self) -> None:
        """Keep the ciphertexts until the client has asked for all."""
        self._request = self.talk.hear(self._linear.exchange.request_bytes(self._name))

    def answer(self) -> None:
        """Multiply and answer."""
        answer, share = self._linear.answer(self._name, self._request)
        self.talk.channel.send(answer)
        self.half = ServerHalf()
        self.half.pre = self._laid.share(share).reshape(self.gadget.shape)
        del self._request


def described(gadgets: Gadgets) -> list[Layer]:
    """Return the linear layers as the encryption knows them, by the names of what they make."""
    return [Laid.of(gadget).layer for gadget in layers_of(gadgets)]


class TwoParty(Source):
    """What both halves share: transfers in both directions, and which steps are worked on together."""

    def setup(self, weights: Weights | None, kept: Arrays | None) -> Arrays:
        """Make keys for this connection; none is ever kept, material may be."""
        channel, session = self.party.peer, bytes.fromhex(self.plan.sha256)
        mine, theirs = _ROLES if self.party.is_server else _ROLES[::-1]
        self._sender, self._receiver = set_up_both(channel, session, mine, theirs)
        self._set_up_linear(weights)
        return {}

    def _set_up_linear(self, weights: Weights | None) -> None:
        raise NotImplementedError

    def _talk(self) -> Talk:
        return Talk(self.party.peer, self._sender, self._receiver, Stream(fresh_seed()))

    @property
    def _sizes(self) -> LinearSizes:
        raise NotImplementedError

    def _windows(self) -> list[list[AnyGadget]]:
        return windows(self.gadgets, self._sizes)

    @classmethod
    def step_cost(cls, gadget: AnyGadget) -> Cost:
        """Declare what a step's exchange sends."""
        if isinstance(gadget, LinearLayer):
            name, all_of_it = gadget.step.out, answered(gadget.plan, gadget.backend)
            sizes = assumed_sizes({name: gadget}, gadget.plan.batch, all_of_it)
            return Cost(offline_client_bytes=sizes.request_bytes(name), offline_server_bytes=sizes.answer_bytes(name))
        return _transfer_cost(gadget)

    @classmethod
    def inference_cost(cls, gadgets: Gadgets) -> Cost:
        """Two messages a window, and the client's last; no step waits for another one's material."""
        batch = next(iter(gadgets.values())).plan.batch
        made = windows(gadgets, assumed_sizes(gadgets, batch))
        return Cost(offline_rounds=2 * len(made) + 1 if made else 0)

    @classmethod
    def settled(cls, gadgets: Gadgets, weights: Weights) -> dict[str, Any]:
        """Return the class of weights that the server will name."""
        integers = _integers(gadgets, weights)
        return {"weight_bits": weight_class(integers, _options(gadgets).weight_bits)} if integers else {}

    @classmethod
    def setup_cost(cls, gadgets: Gadgets) -> Cost:
        """Two exchanges for both directions of transfers; the server's greeting and the client's key."""
        sizes = assumed_sizes(gadgets, next(iter(gadgets.values())).plan.batch)
        both = OFFER_BYTES + ANSWER_BYTES
        return Cost(
            setup_server_bytes=both + sizes.setup_server_bytes, setup_client_bytes=both + sizes.setup_client_bytes,
            setup_rounds=4,
        )  # fmt: skip


class TwoPartyServer(TwoParty):
    """The server's half."""

    def _set_up_linear(self, weights: Weights | None) -> None:
        assert weights is not None
        self._linear = LinearServer(
            described(self.gadgets), _integers(self.gadgets, weights), self.plan.batch, kept_bytes=KEPT_BYTES,
            limit=self.plan.options.weight_bits,
        )  # fmt: skip
        self._linear.setup(self.party.peer)

    @property
    def _sizes(self) -> LinearSizes:
        return self._linear.exchange

    def make(self, inferences: int) -> Iterator[Material]:
        """Make material for one inference after another."""
        for _ in range(inferences):
            material, talk = Material(), self._talk()
            for window in self._windows():
                self._work(window, talk, material)
            for name, gadget in self.gadgets.items():
                if name not in material.halves:
                    material.halves[name] = lifted(gadget, gadget.draw_server(talk.stream))
                self._begin(gadget, material.halves[name])
                hear(gadget, material.halves[name], self.party.peer)
            self._complete()
            yield material

    def _begin(self, gadget: AnyGadget, half: Any) -> None:
        """Begin what waits for the client's parts, step by step; nothing here."""

    def _complete(self) -> None:
        """Make what has begun."""

    def _work(self, window: list[AnyGadget], talk: Talk, material: Material) -> None:
        exchanges = [self._exchange(gadget, talk) for gadget in window]
        for act in (ServerExchange.hear, ServerExchange.answer, ServerExchange.close):
            for exchange in exchanges:
                with self.party.meter.op(*exchange.gadget.step.label):
                    getattr(exchange, act.__name__)()
        for exchange in exchanges:
            material.halves[exchange.gadget.step.out] = lifted(exchange.gadget, exchange.half)

    def _exchange(self, gadget: AnyGadget, talk: Talk) -> ServerExchange[Any]:
        if isinstance(gadget, LinearLayer):
            return ServerLinear(gadget, talk, self._linear)
        return _TRANSFERRED[type(gadget)][0](gadget, talk)


class TwoPartyClient(TwoParty):
    """The client's half."""

    def _set_up_linear(self, weights: Weights | None) -> None:
        self._linear = LinearClient(described(self.gadgets), self.plan.batch)
        self._linear.setup(self.party.peer)

    @property
    def _sizes(self) -> LinearSizes:
        return self._linear.exchange

    def make(self, inferences: int) -> Iterator[Material]:
        """Make material for one inference after another."""
        for _ in range(inferences):
            talk = self._talk()
            halves, exchanges = self._draw(talk)
            for window in self._windows():
                self._work([exchanges[gadget.step.out] for gadget in window])
            halves |= {name: lifted(exchange.gadget, exchange.half) for name, exchange in exchanges.items()}
            material = walk(self.plan, self.gadgets, partial(self._half_of, halves), self.party.peer)
            self._complete()
            yield material

    def _half_of(self, halves: dict[str, Any], gadget: AnyGadget, inputs: list[Ints]) -> Any:
        half = halves[gadget.step.out]
        self._begin(gadget, half, inputs)
        return half

    def _begin(self, gadget: AnyGadget, half: Any, inputs: list[Ints]) -> None:
        """Begin what waits for the client's parts, step by step; nothing here."""

    def _complete(self) -> None:
        """Make what has begun."""

    def _draw(self, talk: Talk) -> tuple[dict[str, Any], dict[str, ClientExchange[Any]]]:
        """Return drawn halves, and exchanges for the others: parts that need no answer are known at once."""
        halves, exchanges, parts = dict[str, Any](), dict[str, ClientExchange[Any]](), Parts()
        for name, gadget in self.gadgets.items():
            inputs = [parts.get(source) for source in gadget.step.inputs]
            if isinstance(gadget, LinearLayer):
                assert inputs[0] is not None
                exchanges[name] = ClientLinear(gadget, talk, self._linear, self.backend.host(inputs[0]))
                continue
            if type(gadget) in _TRANSFERRED:
                exchange = exchanges[name] = _TRANSFERRED[type(gadget)][1](gadget, talk)
                half = exchange.half
            else:
                half = gadget.draw_client(talk.stream)
                halves[name] = lifted(gadget, half)
            if self.plan.values[name].drawn:
                parts[name] = gadget.client_part(inputs, lifted(gadget, half)).reshape(gadget.shape)
        return halves, exchanges

    def _work(self, exchanges: list[ClientExchange[Any]]) -> None:
        for act in (ClientExchange.ask, ClientExchange.take, ClientExchange.finish):
            for exchange in exchanges:
                with self.party.meter.op(*exchange.gadget.step.label):
                    getattr(exchange, act.__name__)()


SERVER, CLIENT = TwoPartyServer, TwoPartyClient

_TRANSFERRED: dict[type[AnyGadget], tuple[type[ServerExchange[Any]], type[ClientExchange[Any]]]] = {
    Tables: (transferred.ServerTables, transferred.ClientTables),
    Squares: (transferred.ServerSquaring, transferred.ClientSquaring),
    Extension: (transferred.ServerExtending, transferred.ClientExtending),
}


def windows(gadgets: Gadgets, sizes: LinearSizes) -> list[list[AnyGadget]]:
    """Return the steps that take an exchange, in windows: transfers first, whose work overlaps with encryption."""
    made: list[list[AnyGadget]] = []
    room = 0
    taking = [gadget for gadget in gadgets.values() if type(gadget) in _TRANSFERRED]
    for gadget in taking + [gadget for gadget in gadgets.values() if isinstance(gadget, LinearLayer)]:
        name = gadget.step.out
        linear = isinstance(gadget, LinearLayer)
        held = sizes.request_bytes(name) if linear else _HELD * _transfer_cost(gadget).offline_client_bytes
        if not made or held > room:
            made.append([])
            room = WINDOW_BYTES
        made[-1].append(gadget)
        room -= held
    return made


def _transfer_cost(gadget: AnyGadget) -> Cost:
    if isinstance(gadget, Tables):
        return transferred.tables_cost(gadget)
    if isinstance(gadget, Squares):
        return transferred.squaring_cost(gadget)
    return transferred.extending_cost(gadget) if isinstance(gadget, Extension) else Cost()


def _options(gadgets: Gadgets) -> Options:
    return next(iter(gadgets.values())).options


def _integers(gadgets: Gadgets, weights: Weights) -> dict[str, Ints]:
    """Return the linear layers' weights as the encryption takes them, by the names of what they make."""
    f, layers = _options(gadgets).fraction_bits, layers_of(gadgets)
    return {layer.step.out: Laid.of(layer).weights(encode(weights[layer.layer.weight], f).numpy()) for layer in layers}


def answered(plan: Plan, backend: Backend) -> int:
    """Return the coefficients that one inference of a whole plan answers."""
    layers = [Laid.of(LinearLayer(plan, step, backend)).layer for step in plan.steps if isinstance(step, Product)]
    return plan.batch * sum(layer.outputs for layer in layers)


def assumed_sizes(gadgets: Gadgets, batch: int, coefficients: int = 0) -> LinearSizes:
    """Return the sizes of linear layers' messages for the class of weights in the options, the smallest if none is.

    `coefficients` is what the whole inference answers, where these are not all of its layers.
    """
    sizes = LinearSizes(described(gadgets), batch)
    sizes.settle(_options(gadgets).weight_bits or LIMITS[0], coefficients)
    return sizes
