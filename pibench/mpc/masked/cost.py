"""Declared cost of the steps: rounds are links in the chain of messages, bytes are payload by sender.

With n elements, w bytes of the opening's ring, o bytes of the output's ring:
ReLU: 4 rounds; server n (w + 1) + n/8, client n (1 + o). Square: 2 rounds; server n w, client 2 n o.
Ring extension: 2 rounds; server n/8, client 2 n e with e bytes of an offer.
Linear layers, sums, pools and free truncations: nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pibench.lowering.program import Op, Program
from pibench.mpc.masked.material import correction_bytes, count
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Extend, Plan, Receive, ReluStep, Remask, Square, Step
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.server import offer_bytes
from pibench.mpc.protocol import Cost
from pibench.mpc.ring.randomness import SEED_BYTES


def operation_cost(program: Program, op: Op, batch: int, options: dict[str, Any]) -> Cost:
    """Return what one operation costs for a batch; the logits' way to the client counts with the last operation."""
    plan = _planned(program, tuple(sorted(options.items())))
    total = Cost()
    for group in plan.groups:
        costs = {step.out: step_cost(plan, step, batch) for step in group}
        rounds = max(cost.rounds for cost in costs.values())
        for step in group:
            if step.op is op:
                shared = rounds if step is group[-1] else 0  # a group's rounds are booked once
                total += _with_rounds(costs[step.out], shared)
    if op is program.output:
        total += Cost(rounds=1, server_bytes=plan.output.count * batch * plan.output.wire_bytes)
    if op is program.ops[0]:
        total += Cost(dealer_bytes=2 * SEED_BYTES)
    return total


def activation_cost(program: Program, op: Op, batch: int, options: dict[str, Any]) -> Cost:
    """Return what an activation costs without the truncation of the elements that its mask leaves linear.

    The meter books that under "truncation": fixed point wants it after any linear layer, whatever acts next.
    """
    plan = _planned(program, tuple(sorted(options.items())))
    mine = [step for step in plan.steps if step.op is op and isinstance(step, ReluStep | Square)]
    return sum((step_cost(plan, step, batch) for step in mine), Cost())


def step_cost(plan: Plan, step: Step, batch: int) -> Cost:
    """Return what one step costs by itself."""
    out, dealt = plan.values[step.out], correction_bytes(plan, step, batch)
    if isinstance(step, Receive):
        return Cost(rounds=step.rounds, client_bytes=out.count * batch * out.wire_bytes)
    if isinstance(step, Remask):
        return Cost(offline_client_bytes=out.count * batch * out.wire_bytes)
    if isinstance(step, ReluStep):
        source = plan.values[step.inputs[0]]
        n, width = count(plan, source.name, batch), plan.windows[source.name].wire_bytes
        shown, asked = (8 * n, 1) if plan.options.check_ranges else (0, 0)
        return Cost(
            rounds=step.rounds + asked, server_bytes=n * (width + 1) + -(-n // 8),
            client_bytes=n * (1 + out.wire_bytes) + shown, offline_client_bytes=n * width, dealer_bytes=dealt,
        )  # fmt: skip
    if isinstance(step, Square):
        source = plan.values[step.inputs[0]]
        n, width = count(plan, source.name, batch), plan.windows[source.name].wire_bytes
        return Cost(
            rounds=step.rounds, server_bytes=n * width, client_bytes=2 * n * out.wire_bytes,
            offline_client_bytes=n * width, dealer_bytes=dealt,
        )  # fmt: skip
    if isinstance(step, Extend):
        n = count(plan, step.out, batch)
        bits = plan.windows[step.inputs[0]].bits
        offers = 2 * n * offer_bytes(out.bits, bits, step.shift)
        return Cost(rounds=step.rounds, server_bytes=-(-n // 8), client_bytes=offers, dealer_bytes=dealt)
    return Cost(dealer_bytes=dealt)


def _with_rounds(cost: Cost, rounds: int) -> Cost:
    return Cost(
        rounds, cost.server_bytes, cost.client_bytes, cost.offline_server_bytes, cost.offline_client_bytes,
        cost.dealer_bytes,
    )  # fmt: skip


@lru_cache(maxsize=16)
def _cached(key: int, options: tuple[tuple[str, Any], ...], holder: _ById) -> Plan:
    return plan_program(holder.program, Options.parse(dict(options)))


class _ById:
    """A program as a cache key: the same object, not an equal one (a program holds tensors and has no hash)."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.program is self.program

    def __hash__(self) -> int:
        return id(self.program)


def _planned(program: Program, options: tuple[tuple[str, Any], ...]) -> Plan:
    return _cached(id(program), options, _ById(program))
