"""DeepReDuce (ICML 2021): estimate criticality, cull, thin, reshape, distil; the networks worth keeping come out.

1. Train the network with the ReLUs of one stage alone, for every stage: its criticality C_k (criticality.py), from
   its accuracy on a tenth of the training images that was held out.
2. Cull whole stages, the least critical first.
3. Thin what survives: drop the bottom (or top) ReLU of every block.
4. Reshape the thinned networks: half the channels (alpha), half the resolution (rho), both.
5. Train every candidate under the full network as teacher.

The order of the steps and the candidates' shapes are those of the released networks (confirmed by their code); the
exact form of C_k is reconstructed, and so is which stages the paper's tables culled where no network was released.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from pibench.networks.spec import Thinning
from pibench.reduction.counting import stage_relus
from pibench.reduction.criticality import EXPONENT, criticality, order
from pibench.reduction.steps import Reducible, cull, only, reducible, reshape, thin
from pibench.reduction.study import Results, Study, Wave
from pibench.reduction.tasks import Task

SHAPES = ((1.0, 1.0), (0.5, 1.0), (1.0, 0.5), (0.5, 0.5), (0.25, 0.5))  # (alpha, rho); the last is one rung more


@dataclass(frozen=True)
class Candidate:
    """One network of the ladder and how it came about."""

    name: str
    title: str
    network: Reducible


def candidates(
    spec: Reducible, ranking: Sequence[int], *, top: bool = False, rungs: int | None = None
) -> list[Candidate]:
    """Return the ladder of candidates: cull in order of criticality (least first), thin, reshape.

    At least one stage keeps its ReLUs; `rungs` limits how many are culled at most. Nothing is returned twice.
    """
    deepest = len(ranking) - 1 if rungs is None else min(rungs, len(ranking) - 1)
    found: dict[str, Candidate] = {}
    for depth in range(deepest + 1):
        culled = sorted(ranking[len(ranking) - depth :])
        for candidate in _of_culling(spec, culled, top):
            found.setdefault(candidate.network.model_dump_json(), candidate)
    return list(found.values())


def _of_culling(spec: Reducible, culled: Sequence[int], top: bool) -> Iterator[Candidate]:
    survivors = cull(spec, culled) if culled else spec
    name = "drd" + (f"-c{''.join(map(str, culled))}" if culled else "")
    title = f"S{', S'.join(map(str, culled))} culled" if culled else "nothing culled"
    if culled:
        yield Candidate(name, title, survivors)
    layers: tuple[Thinning, ...] = ("bottom", "top") if top else ("bottom",)
    for which in layers:
        thinned = thin(survivors, which)
        for alpha, rho in SHAPES if culled else SHAPES[:1]:
            suffix = (f"-a{round(1 / alpha)}" if alpha < 1 else "") + ("-r2" if rho < 1 else "")
            shape = (f", alpha {alpha:g}" if alpha < 1 else "") + (f", rho {rho:g}" if rho < 1 else "")
            yield Candidate(
                f"{name}-{which[0]}{suffix}", f"{title}, {which} thinned{shape}", reshape(thinned, alpha, rho)
            )


def stage_tasks(study: Study) -> dict[int, Task]:
    """Return the trainings that estimate criticality: one for each stage, its ReLUs alone."""
    spec = reducible(study.card.network)
    return {
        stage: study.alone(f"only-s{stage}", f"{study.card.title}: ReLUs of S{stage} alone", only(spec, stage))
        for stage in range(1, spec.stage_count + 1)
    }


def ranking_of(study: Study, tasks: dict[int, Task], results: Results) -> list[int]:
    """Return the stages, most critical first; in a plan, where no accuracy is known, by falling number."""
    spec = reducible(study.card.network)
    relus = stage_relus(spec, spec.stage_count)
    accuracy = {stage: results[task.key].accuracy for stage, task in tasks.items()}
    known = {stage: value for stage, value in accuracy.items() if value is not None}
    if len(known) < len(tasks):
        return sorted(tasks, reverse=True)
    return order(criticality(known, relus, study.number("exponent", EXPONENT)), relus)


def method(study: Study) -> Generator[Wave, Results, list[Task]]:
    """Yield the waves of trainings; return the networks that compete for the frontier."""
    base, stages = study.base(), stage_tasks(study)
    if ranking := study.order():
        how = "given"
        yield [base]
    else:
        how = "measured here"
        results = yield [base, *stages.values()]
        ranking = ranking_of(study, stages, results)
    note = f"Criticality, {how}: {' > '.join(f'S{stage}' for stage in ranking)}."
    students = [
        study.student(c.name, c.title, c.network, "deepreduce", note=note)
        for c in candidates(reducible(study.card.network), ranking, top=study.word("thinning", "bottom") == "both")
    ]
    yield study.wanted(students)
    return [base, *study.wanted(students)]
