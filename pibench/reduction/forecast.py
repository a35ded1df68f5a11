"""The plan of a reduction before it runs: how many trainings, of which how many are done, and for about how long."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pibench.networks.spec import AnyNetwork, ReducedSpec
from pibench.reduction.counting import count
from pibench.reduction.drive import Outcome, drive
from pibench.reduction.study import Study
from pibench.reduction.tasks import Cache, Result, Task

MEASURED_STEPS, MEASURED_MACS = 2, 1.5e9  # no step is measured on more MACs than this, forward


@dataclass(frozen=True)
class Forecast:
    """A plan: its tasks in order, what is in the cache already, and seconds for each task that is not."""

    outcome: Outcome
    done: frozenset[str]
    seconds: dict[str, float]
    step_s: float  # of the base network, as measured

    @property
    def left(self) -> list[Task]:
        """Tasks still to be done."""
        return [task for key, task in self.outcome.tasks.items() if key not in self.done]


def forecast(study: Study, methods: Sequence[str], cache: Cache) -> Forecast:
    """Go through the methods without training; results that are missing are made up, except for their accuracy."""
    found: set[str] = set()

    def pretend(tasks: Sequence[Task]) -> Mapping[str, Result]:
        results = {task.key: cache.result(task.key) for task in tasks}
        found.update(key for key, result in results.items() if result)
        return {task.key: results[task.key] or _imagined(task) for task in tasks}

    outcome = drive(study, methods, pretend)
    left = [task for key, task in outcome.tasks.items() if key not in found]
    fixed_s, mac_s, step_s = _speed(study) if any(task.epochs for task in left) else (0.0, 0.0, 0.0)
    samples = _samples(study.card.dataset) if left else 0
    teacher = count(study.card.network).macs / 3  # forward only

    def expected(task: Task) -> float:
        batch = int(task.recipe["batch_size"])
        macs = count(task.network).macs + (teacher if task.teacher else 0)
        return task.epochs * max(1, task.images_an_epoch(samples) // batch) * (fixed_s + mac_s * batch * macs)

    return Forecast(outcome, frozenset(found), {task.key: expected(task) for task in left}, step_s)


def _imagined(task: Task) -> Result:
    found = count(task.network)
    return Result(
        key=task.key, network=task.network, relu_count=found.relu_count, macs=found.macs, macs_merged=found.macs_merged,
        relu_rounds=found.relu_rounds, parameters=found.parameters, accuracy=None, n_test=0, epochs=task.epochs,
        epochs_in_all=task.epochs, wall_s=0.0,
    )  # fmt: skip


def _samples(dataset: str) -> int:
    from pibench.training.data import load_dataset

    return len(load_dataset(dataset).train_labels)


def _speed(study: Study) -> tuple[float, float, float]:
    """Return seconds a step, seconds a MAC and image, and a step of the base network: a line through two networks."""
    spec = study.card.network
    batch = int(study.base().recipe["batch_size"])
    whole = _step_s(spec, batch)
    macs = count(spec).macs
    if isinstance(spec, ReducedSpec) and spec.scaled(spec.base) >= 4:
        from pibench.reduction.steps import reshape

        small = reshape(spec, 0.5)
        half, fewer = _step_s(small, batch), count(small).macs
        slope = max(0.0, (whole - half) / (macs - fewer)) / batch
        return max(0.0, whole - slope * batch * macs), slope, whole
    return 0.0, whole / (macs * batch), whole


def _step_s(spec: AnyNetwork, batch: int) -> float:
    """Return the fastest of a few training steps on random images; of part of a large batch, scaled up."""
    import torch

    from pibench.networks.build import build
    from pibench.training.convolutions import trained_convolutions

    torch.set_num_threads(1)
    part = max(2, min(batch, int(MEASURED_MACS / count(spec).macs)))
    module = build(spec).train()
    optimizer = torch.optim.SGD(module.parameters(), 1e-3, 0.9)
    images, labels = torch.randn(part, *spec.input_shape), torch.randint(0, spec.classes, (part,))
    times = []
    for _ in range(MEASURED_STEPS):
        began = time.perf_counter()
        optimizer.zero_grad()
        with trained_convolutions(module):
            logits = module(images)
        torch.nn.functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        times.append(time.perf_counter() - began)
    return min(times) * batch / part
