"""How many ring bits every value of a plan needs, and where the ring is extended when they run out.

Backward through the steps: a free truncation (Drop) costs ring bits, and a value has `headroom_bits` at most. Where a
Drop would need more, either it becomes an Extend, which costs a conversation; or it stays free and narrow, and what the
products that read it make is extended instead, as far as it needs to be. The second is cheaper where such a product is
smaller or beside a ReLU, whose rounds the extension then shares: the shortcuts of culled and thinned networks.

With `wide_image` that holds behind the first ReLUs only: what is linear in the image may be as wide as its truncations
need, since the client shares its image in any ring.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from pibench.errors import UsageError
from pibench.lowering import program as ir
from pibench.mpc.masked.gadgets.extend import Extend
from pibench.mpc.masked.gadgets.image import Receive
from pibench.mpc.masked.gadgets.local import Drop, Gather, PoolSum, Sum
from pibench.mpc.masked.gadgets.product import Product
from pibench.mpc.masked.gadgets.remask import Remask
from pibench.mpc.masked.gadgets.wide import Narrow
from pibench.mpc.masked.options import RING_BITS, WIDEST_BITS, Options
from pibench.mpc.masked.plan import Plan, Step, Value

Price = tuple[int, int]


def assign_bits(draft: Plan, output_bits: int | None = None) -> Plan:
    """Return the draft with the bits of every value and the cheapest extensions found.

    The output gets `output_bits`, or as many as its range needs. Raises UsageError where a value needs more than a
    conversation can make.
    """
    early = _early(draft) if draft.options.wide_image else frozenset[str]()
    chosen: frozenset[str] = frozenset()
    best = _assign(draft, chosen, output_bits, early)
    if any(best.values[name].bits > WIDEST_BITS for name in early):
        early = frozenset()
        best = _assign(draft, chosen, output_bits, early)
    while any(isinstance(step, Extend) for step in best.steps):
        products = [step.out for step in best.steps if isinstance(step, Product)]
        more = [name for name in products if best.values[name].bits > best.windows[name].bits and name not in early]
        trials = [(_assign(draft, chosen | {name}, output_bits, early), name) for name in more]
        plan, name = min(trials, key=lambda trial: _price(trial[0]), default=(best, ""))
        if _price(plan) >= _price(best):
            break
        best, chosen = plan, chosen | {name}
    most = draft.options.headroom_bits
    words = _read_as_words(best, early)
    over = [v.name for v in best.values.values() if v.bits > most and v.name not in early]
    if over := over + [name for name, bits in words.items() if bits > RING_BITS]:
        raise UsageError(
            f"values {over[:3]} need more than {most} ring bits", remedy="lower range_bits or fraction_bits"
        )
    return _joined(_narrowed(best, early, words))


def _early(draft: Plan) -> frozenset[str]:
    """Return the values that are linear in the image, but for truncations."""
    early = set[str]()
    for step in draft.steps:
        alone = isinstance(step, Sum | PoolSum | Gather | Drop | Remask) or _is_layer(step)
        if isinstance(step, Receive) or (alone and early.issuperset(step.inputs)):
            early.add(step.out)
    return frozenset(early)


def _read_as_words(plan: Plan, early: frozenset[str]) -> dict[str, int]:
    """Return the bits that steps of one word want of early values, and whoever gets the logits."""
    wanted = {name: plan.values[name].bits for name in early & {plan.output.name}}
    for step in plan.steps:
        if step.out not in early:
            for position, name in enumerate(step.inputs):
                if name in early:
                    bits = _bits_in(step, position, plan.values[step.out].bits, plan.values[name], plan.options)
                    wanted[name] = max(wanted.get(name, 0), bits)
    return wanted


def _is_layer(step: Step) -> bool:
    return isinstance(step, Product) and isinstance(step.op, ir.Conv | ir.Linear)


def _narrowed(plan: Plan, early: frozenset[str], words: dict[str, int]) -> Plan:
    """Give every step that works on one word the lowest word of a wide value that it reads."""
    values, steps = dict(plan.values), list[Step]()
    low: dict[str, str] = {}
    for step in plan.steps:
        if step.out not in early:
            for name in step.inputs:
                if values[name].words > 1 and name not in low:
                    low[name] = f"{name}/low"
                    values[low[name]] = replace(values[name], name=low[name], bits=words[name])
                    steps.append(Narrow(out=low[name], inputs=(name,), op=step.op))
            step = replace(step, inputs=tuple(low.get(name, name) for name in step.inputs))
        steps.append(step)
    return replace(plan, steps=tuple(steps), values=values)


def _price(plan: Plan) -> Price:
    """Return the rounds, then the bytes of what conversations make: rounds count first."""
    made = [plan.values[step.out] for step in plan.steps if step.talks]
    return plan.rounds, sum(value.count * value.wire_bytes for value in made)


def _assign(draft: Plan, extended: frozenset[str], output_bits: int | None, early: frozenset[str]) -> Plan:
    """Give every value its bits; the products in `extended` are extended where they are made, those in `early` never.

    What is early has as many bits as it needs.
    """
    options, values = draft.options, dict(draft.values)
    output = draft.output
    need = dict.fromkeys(values, 0)
    need[output.name] = output_bits or output.window(options).bits
    planned: list[Step] = []
    for step in reversed(draft.steps):
        bits = need[step.out]
        if not bits:  # what nothing reads is not computed
            continue
        if isinstance(step, Drop) and step.out not in early and bits + step.shift > options.headroom_bits:
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
