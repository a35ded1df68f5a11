"""What every source of correlated randomness has: one party's half of it; the peer (and a dealer) has the others.

A source fills the halves of gadgets (`gadgets/gadget.py`), whose docstrings say what both must have in common. It may
talk: to a dealer, or to its other half over `party.peer`, both being called at the same time with the same number.
Whoever makes material for a step alone or with the peer, the rest is alike and stands here: the client works out its
parts in the order of the plan and tells the server what that needs of them (`walk`, `hear`).

A new source is one file and a line in `sources/__init__.py`: `SERVER` and `CLIENT`, its two halves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pibench.errors import MaterialError
from pibench.links.transport import Channel
from pibench.lowering.program import Weights
from pibench.mpc.backends.backend import Host, Ints
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.masked.gadgets.gadget import AnyGadget, Arrays, Gadgets, Parts, half_arrays, half_from
from pibench.mpc.masked.plan import Plan
from pibench.mpc.protocol import Cost, Party


@dataclass
class Material:
    """What one inference of one party uses up, by the name of the step's output; used once."""

    halves: dict[str, Any] = field(default_factory=dict)
    parts: Parts = field(default_factory=dict)  # the party's parts; on the client, of the output alone
    seed: bytes = b""  # where all of it follows from one


class Source(ABC):
    """One party's half of a source, for one plan."""

    def __init__(self, plan: Plan, gadgets: Gadgets, party: Party) -> None:
        self.plan, self.gadgets, self.party = plan, gadgets, party
        self.backend = next(iter(gadgets.values())).backend

    @abstractmethod
    def setup(self, weights: Weights | None, kept: Arrays | None) -> Arrays:
        """Do what is done once a model; returns what is worth keeping of it for material that outlives this run.

        `weights` float32 on the server alone. `kept` is what an earlier setup for the same weights returned, where both
        parties have kept theirs; both are then given it.
        """

    @abstractmethod
    def make(self, inferences: int) -> Iterator[Material]:
        """Make material for so many inferences, told and heard, one after another."""

    def close(self) -> None:  # noqa: B027 - most sources hold nothing
        """Say that no more is wanted."""

    def to_arrays(self, material: Material) -> Arrays:
        """Return unused material as named arrays in host memory."""
        made, host = Arrays(), self.backend.host
        for name, half in material.halves.items():
            made |= {f"{name}:{label}": host(array) for label, array in half_arrays(half).items()}
        made |= {f"{name}:": host(part) for name, part in material.parts.items()}
        return made

    def from_arrays(self, arrays: Arrays) -> Material:
        """Rebuild what `to_arrays` returned; raises MaterialError where it does not fit the plan."""
        material, found = Material(), dict[str, Arrays]()
        for label, array in arrays.items():
            name, _, part = label.rpartition(":")
            found.setdefault(name, {})[part] = self.backend.lift(array)
        try:
            for name, held in found.items():
                gadget = self.gadgets[name]
                if "" in held:
                    material.parts[name] = held.pop("").reshape(gadget.shape)
                if held and (kind := gadget.server_half if self.party.is_server else gadget.client_half):
                    material.halves[name] = half_from(gadget, kind, held)
        except (KeyError, ValueError) as error:
            raise MaterialError("kept material does not fit the program", remedy="delete the keep_dir") from error
        return material

    @classmethod
    def step_cost(cls, gadget: AnyGadget) -> Cost:
        """Declare what this source sends to make one step's halves."""
        return Cost()

    @classmethod
    def inference_cost(cls, gadgets: Gadgets) -> Cost:
        """Declare what comes once an inference, with the messages of its whole offline phase."""
        return Cost()

    @classmethod
    def settled(cls, gadgets: Gadgets, weights: Weights) -> dict[str, Any]:
        """Return the options that these weights settle, of those that messages' sizes depend on: all that sizes say."""
        return {}

    @classmethod
    def setup_cost(cls, gadgets: Gadgets) -> Cost:
        """Declare what the parties send each other in setup, where nothing of it was kept."""
        return Cost()


def walk(
    plan: Plan, gadgets: Gadgets, half_of: Callable[[AnyGadget, list[Ints]], Any], tell: Channel | None
) -> Material:
    """Client: go through the plan with the halves that come, and tell the server what it must know.

    `half_of` gets the client's parts of a step's inputs. Without `tell` nothing is said: kept material was told once.
    """
    parts, halves = Parts(), dict[str, Any]()
    for name, gadget in gadgets.items():
        inputs = [parts[source] for source in gadget.step.inputs]
        half = half_of(gadget, inputs)
        parts[name] = gadget.client_part(list(inputs), half).reshape(gadget.shape)
        if gadget.told_count and tell is not None:
            backend = gadget.backend
            tell.send(backend.pack(backend.flat(gadget.tell(inputs, half)), gadget.told_width))
        if gadget.step.talks:
            halves[name] = half
    output = plan.output.name
    return Material(halves, {output: parts[output]})


def hear(gadget: AnyGadget, half: Any, channel: Channel) -> None:
    """Server: take what the client tells of one step, and complete the half with it."""
    told = None
    if gadget.told_count:
        heard = gadget.backend.buffer(gadget.told_count * gadget.told_width)
        channel.recv_into(heard)
        told = gadget.backend.unpack(heard, gadget.told_width)
    gadget.hear(half, told)


def lifted(gadget: AnyGadget, half: Any) -> Any:
    """Return a half that was made in host memory as the gadget's backend holds it."""
    if half is None or gadget.backend is backend_for("cpu"):
        return half
    arrays = {
        name: gadget.backend.lift(value) if isinstance(value, np.ndarray) else value
        for name, value in half_arrays(half).items()
    }
    return half_from(gadget, type(half), arrays)


def as_array(data: bytes) -> Host:
    """Return bytes as an array, to be kept."""
    return np.frombuffer(data, np.uint8)
