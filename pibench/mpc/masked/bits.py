"""How many ring bits every value of a plan needs, and where the ring is extended when they run out.

Backward through the steps: a free truncation (Drop) costs ring bits, and a value has `headroom_bits` at most. Where a
Drop would need more, either it becomes an Extend, which costs a conversation; or it stays free and narrow, and what the
products that read it make is extended instead, as far as it needs to be. The second is cheaper where such a product is
smaller or beside a ReLU, whose rounds the extension then shares: the shortcuts of culled and thinned networks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from pibench.errors import UsageError
from pibench.mpc.masked.gadgets.extend import Extend
from pibench.mpc.masked.gadgets.local import Drop, Sum
from pibench.mpc.masked.gadgets.product import Product
from pibench.mpc.masked.gadgets.remask import Remask
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Plan, Step, Value

Price = tuple[int, int]


def assign_bits(draft: Plan, output_bits: int | None = None) -> Plan:
    """Return the draft with the bits of every value and the cheapest extensions found.

    The output gets `output_bits`, or as many as its range needs. Raises UsageError where a value needs more than a
    conversation can make.
    """
    chosen: frozenset[str] = frozenset()
    best = _assign(draft, chosen, output_bits)
    while any(isinstance(step, Extend) for step in best.steps):
        products = [step.out for step in best.steps if isinstance(step, Product)]
        wide = [name for name in products if best.values[name].bits > best.windows[name].bits]
        trials = [(_assign(draft, chosen | {name}, output_bits), name) for name in wide]
        plan, name = min(trials, key=lambda trial: _price(trial[0]), default=(best, ""))
        if _price(plan) >= _price(best):
            break
        best, chosen = plan, chosen | {name}
    most = draft.options.headroom_bits
    if over := [v.name for v in best.values.values() if v.bits > most]:
        raise UsageError(
            f"values {over[:3]} need more than {most} ring bits", remedy="lower range_bits or fraction_bits"
        )
    return _joined(best)


def _price(plan: Plan) -> Price:
    """Return the rounds, then the bytes of what conversations make: rounds count first."""
    made = [plan.values[step.out] for step in plan.steps if step.talks]
    return plan.rounds, sum(value.count * value.wire_bytes for value in made)


def _assign(draft: Plan, extended: frozenset[str], output_bits: int | None) -> Plan:
    """Give every value its bits; the products in `extended` are extended where they are made, not before."""
    options, values = draft.options, dict(draft.values)
    output = draft.output
    need = dict.fromkeys(values, 0)
    need[output.name] = output_bits or output.window(options).bits
    planned: list[Step] = []
    for step in reversed(draft.steps):
        bits = need[step.out]
        if not bits:  # what nothing reads is not computed
            continue
        if isinstance(step, Drop) and bits + step.shift > options.headroom_bits:
            step = Extend(out=step.out, inputs=step.inputs, op=step.op, shift=step.shift)
        if step.out in extended:
            made = replace(values[step.out], name=f"{step.out}/narrow")
            planned.append(Extend(out=step.out, inputs=(made.name,), op=step.op, shift=0))
            values[made.name] = made
            step = replace(step, out=made.name)
            bits = need[made.name] = made.window(options).bits
        for position, name in enumerate(step.inputs):
            need[name] = max(need[name], _bits_in(step, position, bits, values[name], options))
        planned.append(step)
    final = {name: replace(value, bits=need[name]) for name, value in values.items()}
    return replace(draft, steps=tuple(reversed(planned)), values=final)


def _bits_in(step: Step, position: int, bits: int, value: Value, options: Options) -> int:
    """Ring bits that a step needs of an input so that its output has `bits` valid ones."""
    if step.opens:
        return value.window(options).bits
    if isinstance(step, Drop):
        return bits + step.shift
    if isinstance(step, Sum):
        return max(bits - step.shifts[position], 1)
    return bits


def _joined(plan: Plan) -> Plan:
    """Make one step of a free truncation and the fresh mask that alone reads it."""
    readers = Counter(name for step in plan.steps for name in step.inputs)
    drops = {step.out: step for step in plan.steps if isinstance(step, Drop) and readers[step.out] == 1}
    steps: list[Step] = []
    gone: set[str] = set()
    for step in plan.steps:
        if isinstance(step, Remask) and (drop := drops.get(step.inputs[0])):
            gone.add(drop.out)
            step = replace(step, inputs=drop.inputs, shift=drop.shift)
        steps.append(step)
    return replace(plan, steps=tuple(step for step in steps if step.out not in gone))
