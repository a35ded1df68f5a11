"""What a protocol is to the harness: three phases over one program, from one party's side.

A protocol owns its setup, its offline material and its kernels; nothing outside it assumes that weights are shared
or that there is a dealer. Learn one protocol folder, know all: `spec.py` (what the harness knows of it), `protocol.py`
(phases), `kernels.py` (operations), `cost.py` (declared cost of each operation; under `masked` each gadget's own, added
up in `total_cost.py`), `options.py` where a suite may choose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from pibench.errors import UsageError
from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.lowering.program import Op, Program, Weights
from pibench.mpc.gpu_inventory import require, synchroniser
from pibench.mpc.spec import load, spec_of, wire_times

SERVER = 0  # owns the weights
CLIENT = 1  # owns the image; alone learns the logits


@dataclass
class Party:
    """One side of a session: who it is and what it talks through."""

    rank: int
    peer: Channel
    meter: Meter
    dealer: Channel | None = None  # where the protocol wants one
    device: str = "cpu"
    batch: int = 1
    options: dict[str, Any] = field(default_factory=dict)  # the protocol's own, from the suite
    beside: Party | None = None  # as offline work sees it that runs beside the online phase: other channels and meter

    @property
    def is_server(self) -> bool:
        """Whether this side owns the weights."""
        return self.rank == SERVER


@dataclass(frozen=True)
class Cost:
    """Declared cost of one operation for a batch: rounds, and payload bytes by sender; offline likewise."""

    rounds: int = 0
    server_bytes: int = 0
    client_bytes: int = 0
    offline_server_bytes: int = 0
    offline_client_bytes: int = 0
    dealer_bytes: int = 0  # sent by the dealer to both parties together
    offline_rounds: int = 0  # links in the chain of offline messages
    setup_server_bytes: int = 0  # once a model and connection; a program's is that of its first operation
    setup_client_bytes: int = 0
    setup_rounds: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))


class Protocol(ABC):
    """One party's side of one program under one protocol. Phases are called in order, by both parties alike."""

    name: ClassVar[str]

    def __init__(self, program: Program, party: Party) -> None:
        self.program, self.party = program, party
        party.meter.synchronise = synchroniser(require(party.device))

    @abstractmethod
    def setup(self, weights: Weights | None) -> None:
        """Do what is done once a model; `weights` (float32, as the program names them) on the server only."""

    @abstractmethod
    def offline(self, inferences: int) -> None:
        """Make and deliver all that needs no input, for this many inferences (batches)."""

    @abstractmethod
    def online(self, images: Tensor | None) -> Tensor | None:
        """From the client's images (batch, *input_shape) float32 to its logits (batch, classes) float32.

        The server passes None and gets None.
        """

    def held_bytes(self) -> int | None:
        """Return what this party holds for one batch that waits to be served, where it knows; `offline` came before."""
        return None

    def settle(self) -> None:  # noqa: B027 - most protocols have nothing to clear away
        """Clear away what the last inference used up: called when its time is taken, since the answer is out."""

    def close(self) -> None:  # noqa: B027 - most protocols hold nothing
        """Release what the protocol holds (sockets, files, process groups)."""

    def device(self) -> str | None:
        """Return where this party's tensors were, None if it computes nothing; what runs on processors is silent."""
        return "cpu"

    def backend_name(self) -> str | None:
        """Return what held its secret words (`pibench.mpc.backends`); None where that is the protocol's own matter."""
        return None


CostFunction = Callable[[Program, Op, int, Mapping[str, Any]], Cost]  # program, operation, batch, options


def held_bytes(whole: Cost, largest: Cost, batches: int, options: Mapping[str, Any]) -> int:
    """Estimate what both parties hold at once for so many batches, weights apart: material, working memory.

    Here: material as it was delivered, expanded from a seed by whoever was sent less of it. A protocol with another
    rule names it in its declaration (`ProtocolSpec.holds`).
    """
    return 2 * batches * max(whole.dealer_bytes, whole.offline_server_bytes + whole.offline_client_bytes)


def protocol_class(name: str) -> type[Protocol]:
    """Return the implementation of a protocol; raises UsageError with the list of names."""
    if not (spec := spec_of(name)).module:
        raise UsageError(
            f"{name} runs in a program of its own: {' '.join(spec.engine.command) if spec.engine else '?'}"
        )
    return implementation(spec.module)


def implementation(module: str) -> type[Protocol]:
    """Return the protocol that a module holds."""
    found: type[Protocol] = load(f"{module}:PROTOCOL")
    return found


def cost_function(name: str) -> CostFunction | None:
    """Return what declares a protocol's cost, operation by operation; None where it declares none."""
    where = spec_of(name).cost
    return None if where is None else load(where)


def settled_options(
    program: Program, weights: Weights, name: str, batch: int, options: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the options for which a protocol declares its cost: sizes may tell a class of weights, which is public."""
    where = spec_of(name).settles
    made: Mapping[str, Any] = options if where is None else load(where)(program, weights, batch, options)
    return made


def options_on(
    program: Program, name: str, batch: int, options: Mapping[str, Any], rtt_ms: float | None, mbit_s: float | None
) -> Mapping[str, Any]:
    """Return the options with what the link decides where they say nothing; None: whatever there is."""
    spec = spec_of(name)
    if spec.by_link is None:
        return options
    arrangement = spec.arrangement(options)

    def wire_s(choice: Mapping[str, Any]) -> float:
        cost = total_cost(program, name, batch, choice) or Cost()
        ways = [(n_bytes, mbit_s) for n_bytes in (cost.server_bytes, cost.client_bytes)]
        return sum(wire_times(arrangement, cost.rounds, ways, rtt_ms))

    made: Mapping[str, Any] = load(spec.by_link)(program, batch, options, wire_s)
    return made


def total_cost(program: Program, name: str, batch: int, options: Mapping[str, Any]) -> Cost | None:
    """Return the declared cost of a whole program; None where the protocol declares none."""
    cost = cost_function(name)
    return None if cost is None else sum((cost(program, op, batch, options) for op in program), Cost())
