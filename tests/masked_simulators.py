"""Simulators of what each party of the masked protocol sees, given its own input and output (docs/protocol.md).

They hold the real code of one party against messages that know nothing of the other one: if the views and the outputs
that come of it are distributed like real ones, the real messages said no more than the output does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pibench.links.meter import Meter
from pibench.lowering.program import Program, Weights
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.masked.client import Client
from pibench.mpc.masked.gadgets import gadgets_of, layers_of
from pibench.mpc.masked.gadgets.extend import Extension
from pibench.mpc.masked.gadgets.gadget import AnyGadget, Gadgets
from pibench.mpc.masked.gadgets.image import Image
from pibench.mpc.masked.gadgets.product import layer_weights, masked_layers
from pibench.mpc.masked.gadgets.relu_truth_tables import Tables
from pibench.mpc.masked.gadgets.relu_two_messages import Offers
from pibench.mpc.masked.gadgets.square import Squares
from pibench.mpc.masked.gadgets.wide import WideImage
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.sources.dealer import DealtClient
from pibench.mpc.masked.sources.source import Material
from pibench.mpc.masked.talk import Await
from pibench.mpc.protocol import CLIENT, Party
from pibench.mpc.ring.packing import pack
from pibench.mpc.ring.randomness import SEED_BYTES, Stream, fresh_seed

View = dict[str, list[np.ndarray[Any, Any]]]  # messages by the step that they belong to, in order
Draw = Callable[[int], np.ndarray[Any, Any]]
Make = Callable[[Plan, Gadgets], Material]  # what a party has when its offline phase is over


def to_client(gadget: AnyGadget, stream: Stream) -> list[Draw]:
    """Return how to draw each message that a step's client gets: all of them uniform."""

    def bits(size: int) -> np.ndarray[Any, Any]:
        return np.packbits(stream.small(gadget.size, 1))

    match gadget:
        case Offers():  # opening, the server's six bits and its share of lt3
            return [stream.bytes, lambda size: stream.small(size, 127)]
        case Tables():  # opening, the server's six bits, masked sign
            return [stream.bytes, lambda size: stream.small(size, 63), bits]
        case Squares():  # opening
            return [stream.bytes]
        case Extension():  # masked top bits
            return [bits]
    return []


def to_server(gadget: AnyGadget, stream: Stream) -> list[Draw]:
    """Return how to draw each message that a step's server gets: all of them uniform."""
    match gadget:
        case Offers():  # the client's six bits with its share of the sign; two offers
            return [lambda size: stream.small(size, 127), stream.bytes, stream.bytes]
        case Tables():  # the client's six bits with its share of the sign; masked output
            return [lambda size: stream.small(size, 127), stream.bytes]
        case Squares() | Image() | WideImage() | Extension():  # masked outputs; masked image; two offers
            return [stream.bytes]
    return []


def talk(conversation: Any, draws: list[Draw]) -> list[np.ndarray[Any, Any]]:
    """Run one side of a conversation against drawn messages; returns them."""
    heard: list[np.ndarray[Any, Any]] = []
    act = next(conversation, None)
    while act is not None:
        if isinstance(act, Await):
            heard.append(draws[len(heard)](act.count))
        try:
            act = conversation.send(heard[-1] if isinstance(act, Await) else np.empty(0, np.uint8))
        except StopIteration:
            act = None
    return heard


def dealt_client(plan: Plan, gadgets: Gadgets) -> Material:
    """Return what a client is given offline by a dealer: weights under a mask, and a seed."""
    stream = Stream(fresh_seed())
    source = DealtClient(plan, gadgets, Party(CLIENT, None, Meter(), batch=plan.batch))  # type: ignore[arg-type]
    layers = masked_layers(layers_of(gadgets))
    source._hidden = {name: layer.hidden(stream.bytes(layer.hidden_bytes)) for name, layer in layers.items()}
    return source._expand(stream.bytes(SEED_BYTES).tobytes(), None)


def dealt_server(plan: Plan, gadgets: Gadgets) -> Material:
    """Return what a server is given offline: a seed, corrections, what the client tells."""
    stream, material = Stream(fresh_seed()), Material()
    for name, gadget in gadgets.items():
        half = material.halves[name] = gadget.draw_server(stream)
        if gadget.dealt_bytes:
            gadget.receive(half, stream.bytes(gadget.dealt_bytes))
        gadget.hear(half, stream.words(gadget.told_count) if gadget.told_count else None)
    return material


def simulate_client(
    program: Program, image: torch.Tensor, logits: np.ndarray[Any, Any], make: Make = dealt_client, **options: Any
) -> tuple[View, Material]:
    """Return a view of the client, and its randomness, from its images and its logits at fraction bits alone.

    The client's own code, run on it, must give those logits.
    """
    plan = plan_program(program, Options.parse(options), len(image))
    gadgets, stream = gadgets_of(plan), Stream(fresh_seed())
    material = make(plan, gadgets)
    material.halves[plan.steps[0].out].image = (image.double() * 2**16).round().long().numpy()
    view = {
        step.out: talk(gadgets[step.out].client(material.halves[step.out]), to_client(gadgets[step.out], stream))
        for group in plan.groups
        for step in group
        if step.talks
    }
    part, shift = material.parts[plan.output.name].reshape(-1), plan.output_shift
    # the one sum with the part's own low bits that rounds to these logits
    total = (logits.reshape(-1) << shift) - (-part & ((1 << shift) - 1))
    left = ((total - part) >> shift) & ((1 << (plan.output.bits - shift)) - 1)
    view["logits"] = [pack(left, plan.answer_bytes)]
    client = Client(plan, gadgets, backend_for("cpu"), None, Meter())  # type: ignore[arg-type]
    assert (client._add(view["logits"][0], part) == logits.reshape(-1)).all()
    return view, material


def simulate_server(
    program: Program, weights: Weights, batch: int, make: Make = dealt_server, **options: Any
) -> tuple[View, Material]:
    """Return a view of the server, and its randomness, from its weights alone."""
    plan = plan_program(program, Options.parse(options), batch)
    gadgets, stream, view = gadgets_of(plan), Stream(fresh_seed()), View()
    for gadget in gadgets.values():
        gadget.prepare(layer_weights(plan, weights))
    material = make(plan, gadgets)
    parts = material.parts
    for group in plan.groups:
        for step in group:
            gadget, half = gadgets[step.out], material.halves[step.out]
            if step.talks:
                view[step.out] = talk(gadget.server(parts, half), to_server(gadget, stream))
            else:
                parts[step.out] = gadget.alone([parts[name] for name in step.inputs], half)
    return view, material
