"""Methods in lockstep: their waves of tasks run together, each task once, whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

from pibench.reduction import byweight, deepreduce, deepreshape
from pibench.reduction.study import Method, Results, Study, Wave
from pibench.reduction.tasks import Result, Task

METHODS: dict[str, Method] = {
    "deepreduce": deepreduce.method,
    "deepreshape": deepreshape.method,
    "snl": byweight.snl,
    "senet": byweight.senet,
    "coordinate": byweight.coordinate,
    "taylor": byweight.taylor,
    "prune": byweight.prune,
    "poly": byweight.poly,
}
BY_BUDGET = [name for name in METHODS if name != "deepreduce"]  # methods that make one network for each budget
Run = Callable[[Sequence[Task]], Mapping[str, Result]]


@dataclass
class Outcome:
    """What the methods made: their networks by method, and the result of every task by key."""

    networks: dict[str, list[Task]] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)  # all that ran or were found, by key


def drive(study: Study, methods: Sequence[str], run: Run) -> Outcome:
    """Run methods to their end; `run` does the tasks of a wave and returns their results."""
    outcome = Outcome()
    running: dict[str, Generator[Wave, Results, list[Task]]] = {name: METHODS[name](study) for name in methods}
    waves = {name: wave for name in methods if (wave := _advance(name, running, None, outcome)) is not None}
    while waves:
        wanted = {task.key: task for wave in waves.values() for task in wave}
        outcome.tasks |= {key: task for key, task in wanted.items() if key not in outcome.tasks}
        new = [task for key, task in wanted.items() if key not in outcome.results]
        outcome.results |= run(new)
        waves = {
            name: wave
            for name in list(waves)
            if (wave := _advance(name, running, outcome.results, outcome)) is not None
        }
    return outcome


def _advance(
    name: str, running: dict[str, Generator[Wave, Results, list[Task]]], results: Results | None, outcome: Outcome
) -> Wave | None:
    """Return a method's next wave, or None after its end, when its networks are noted."""
    try:
        return next(running[name]) if results is None else running[name].send(results)
    except StopIteration as end:
        outcome.networks[name] = end.value
        return None
