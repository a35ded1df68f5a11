"""Declared cost of the operations: of their steps' gadgets, and of the source that makes what those use up.

Rounds are links in the chain of messages, bytes are payload by sender. What each step costs stands in its gadget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pibench.lowering.program import Op, Program, Weights
from pibench.mpc.masked.gadgets import gadgets_of
from pibench.mpc.masked.gadgets.gadget import Gadgets
from pibench.mpc.masked.gadgets.product import layer_weights
from pibench.mpc.masked.gadgets.relu_two_messages import Offers
from pibench.mpc.masked.gadgets.wide import WideLayer
from pibench.mpc.masked.options import WITHOUT_PADS, WITHOUT_WIDE, Options
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.sources import source_class
from pibench.mpc.protocol import Cost

WIDE_S = 0.17e-9  # a multiply-accumulate of one more word: ci/offers.py
OFFER_S = 70e-9  # both parties' work for a ReLU of two messages, less that of four: ci/offers.py
Planned = tuple[Plan, Gadgets]
Parse = Callable[[dict[str, Any]], Options]


def operation_cost(
    program: Program, op: Op, batch: int, options: Mapping[str, Any], kind: type[Options] = Options
) -> Cost:
    """Return what one operation costs for a batch; the logits' way to the client counts with the last operation."""
    plan, gadgets = planned(program, batch, options, kind)
    source, total = source_class(plan.options.provider, server=True), Cost()
    for group in plan.groups:
        rounds = max(gadgets[step.out].cost.rounds for step in group)
        for step in group:
            if step.op is op:
                shared = rounds if step is group[-1] else 0  # a group's rounds are booked once
                gadget = gadgets[step.out]
                total += replace(gadget.cost, rounds=shared) + source.step_cost(gadget)
    if op is program.output:
        total += Cost(rounds=1, server_bytes=plan.count(plan.output.name) * plan.answer_bytes)
    if op is program.ops[0]:
        total += source.inference_cost(gadgets) + source.setup_cost(gadgets)
    return total


def settled_options(
    program: Program, weights: Weights, batch: int, options: Mapping[str, Any], kind: type[Options] = Options
) -> dict[str, Any]:
    """Return the options with what these weights settle of them: sizes are declared for a class of weights."""
    plan, gadgets = planned(program, batch, options, kind)
    source = source_class(plan.options.provider, server=True)
    return {**options, **source.settled(gadgets, layer_weights(plan, weights))}


def options_by_link(
    program: Program, batch: int, options: Mapping[str, Any], wire_s: Callable[[Mapping[str, Any]], float]
) -> Mapping[str, Any]:
    """Return the options with the plan that is cheapest on a link, which takes `wire_s` of a choice.

    Messages of a ReLU, and whether the image's ring is wide: what a suite has chosen stays, and what no source makes is
    left out. What a choice computes more is counted.
    """
    provider, choices = Options.parse(dict(options)).provider, [options]
    if "relu_messages" not in options and provider not in WITHOUT_PADS:
        choices += [{**choice, "relu_messages": 2} for choice in choices]
    if "wide_image" not in options and provider not in WITHOUT_WIDE:
        choices += [{**choice, "wide_image": True} for choice in choices]

    def price_s(choice: Mapping[str, Any]) -> float:
        _, gadgets = planned(program, batch, choice)
        padded = sum(gadget.size for gadget in gadgets.values() if isinstance(gadget, Offers))
        widened = sum(gadget.more_macs for gadget in gadgets.values() if isinstance(gadget, WideLayer))
        return wire_s(choice) + OFFER_S * padded + WIDE_S * widened

    return min(choices, key=price_s)


def planned(program: Program, batch: int, options: Mapping[str, Any], kind: type[Options] = Options) -> Planned:
    """Return the plan of a program and its gadgets."""
    return _cached(id(program), batch, tuple(sorted(options.items())), _ById(program), kind.parse)


@lru_cache(maxsize=16)
def _cached(key: int, batch: int, options: tuple[tuple[str, Any], ...], holder: _ById, parse: Parse) -> Planned:
    plan = plan_program(holder.program, parse(dict(options)), batch)
    return plan, gadgets_of(plan)


class _ById:
    """A program as a cache key: the same object, not an equal one (a program holds tensors and has no hash)."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.program is self.program

    def __hash__(self) -> int:
        return id(self.program)
