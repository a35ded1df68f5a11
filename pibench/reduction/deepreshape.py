"""DeepReShape (TMLR 2024): equalize the stages' ReLUs by their criticality, then cull, thin and reuse down to a budget.

1. The criticality order: measured as in DeepReDuce, or given.
2. Equalization (equalize.py): every set of multipliers that aligns the stages' counts with the order.
3. For a budget: of all HybReNets of these multipliers and any base width, with the coarse steps (cull the least
   critical stage, thin, ReLU-reuse), the ones that fit, preferring fewer coarse steps, then more ReLUs.

Rules and names are confirmed as equalize.py says; the order of the coarse steps is remembered (reconstructed), and
the wiring of ReLU-reuse is an interpretation (networks/activations.py).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from pibench.errors import UsageError
from pibench.networks.spec import ResNetSpec
from pibench.reduction.arithmetic import macs, relus
from pibench.reduction.deepreduce import ranking_of, stage_tasks
from pibench.reduction.equalize import solve
from pibench.reduction.families import hybrenet, name_of, residual
from pibench.reduction.steps import changed, cull, thin
from pibench.reduction.study import Results, Study, Wave
from pibench.reduction.tasks import Task

FILL = 0.75  # a network this close below its budget is not traded for one with more coarse steps
REUSE = (2, 4, 8, 16)


@dataclass(frozen=True)
class Choice:
    """A HybReNet that meets a budget."""

    network: ResNetSpec
    relu_count: int
    macs: int
    title: str


def coarse(spec: ResNetSpec, least_critical: int) -> Iterator[tuple[str, ResNetSpec]]:
    """Yield the network and what the coarse steps make of it, in their order."""
    yield "", spec
    culled = cull(spec, [least_critical])
    yield f", S{least_critical} culled", culled
    thinned = thin(culled)
    yield f", S{least_critical} culled, thinned", thinned
    for factor in REUSE:
        yield f", S{least_critical} culled, thinned, reuse {factor}", changed(thinned, reuse=factor)


def choose(
    spec: ResNetSpec, solutions: Sequence[Sequence[int]], order: Sequence[int], budget: int, widest: int | None = None
) -> Choice:
    """Return the HybReNet for a budget: fewest coarse steps that fill it well, then most ReLUs, then fewest MACs."""
    best: dict[int, Choice] = {}
    plain = changed(spec, activation="relu", quadratic_sites=[], linear_sites=[])  # sites of other stages fit no more
    for multipliers in solutions:
        for width in range(1, (widest or spec.widths[0]) + 1):
            shaped = hybrenet(plain, multipliers, width)
            for step, (text, network) in enumerate(coarse(shaped, order[-1])):
                relu_count = relus(network)
                if not 0 < relu_count <= budget or (step in best and relu_count < best[step].relu_count):
                    continue
                title = f"HybReNet {name_of(multipliers)} m={width}{text}"
                choice = Choice(network, relu_count, macs(network), title)
                if step not in best or _rank(choice) > _rank(best[step]):
                    best[step] = choice
    if not best:
        raise UsageError(f"no HybReNet has at most {budget:,} ReLUs", remedy="raise the budget, or use masks (snl)")
    filled = [step for step, choice in sorted(best.items()) if choice.relu_count >= FILL * budget]
    return best[filled[0]] if filled else max(best.values(), key=_rank)


def _rank(choice: Choice) -> tuple[int, int]:
    return choice.relu_count, -choice.macs


def method(study: Study) -> Generator[Wave, Results, list[Task]]:
    """Yield the waves of trainings; return one HybReNet for every budget."""
    spec, base = residual(study.card.network), study.base()
    stages = stage_tasks(study)
    if order := study.order():
        yield [base]
    else:
        results = yield [base, *stages.values()]
        order = ranking_of(study, stages, results)
    solutions = solve(order, spec.blocks, largest=int(study.number("largest", 8)))
    if not solutions:
        raise UsageError(f"no multipliers align the stages with the order {order}", remedy="give another with --order")
    students = [_student(study, choose(spec, solutions, order, budget), budget) for budget in study.budgets]
    yield students
    return [base, *students]


def _student(study: Study, choice: Choice, budget: int) -> Task:
    name = f"hrn-{study.percent(budget, study.card.relu_count)}"
    note = "Multipliers by ReLU equalization; the order of the coarse steps is reconstructed."
    if choice.network.reuse > 1:
        note += " The wiring of ReLU-reuse is an interpretation."
    return study.student(name, choice.title, choice.network, "deepreshape", provenance="reconstructed", note=note)
