"""Doing a task: load what it starts from, train, search or cut, and write the checkpoint with its result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from pibench.errors import DataError
from pibench.lowering.lower import lower
from pibench.networks.build import build, masks_of, site_shapes, sites, stage_of
from pibench.networks.census import census
from pibench.networks.spec import AnyNetwork, Network
from pibench.reduction import polynomial, pruning
from pibench.reduction.coordinate import CoordinateSearch, Within
from pibench.reduction.gates import Granularity
from pibench.reduction.matching import MatchedTrainer
from pibench.reduction.search import Search, Setting
from pibench.reduction.senet import SenetSearch, relu_sensitivity
from pibench.reduction.snl import SnlSearch
from pibench.reduction.steps import changed_any
from pibench.reduction.tasks import Cache, Option, Result, Task
from pibench.reduction.taylor import TaylorSearch
from pibench.training.augment import generator
from pibench.training.checkpoint import load_checkpoint, read_metadata, save_checkpoint
from pibench.training.data import Dataset, load_dataset
from pibench.training.distill import Teacher
from pibench.training.judging import evaluate
from pibench.training.progress import Progress
from pibench.training.recipe import Recipe
from pibench.training.runs import load_into
from pibench.training.train import Trainer

Say = Callable[[str], None]
GLANCE = 1000  # test images that an unfinished network is judged on
_NETWORK: TypeAdapter[Network] = TypeAdapter(Network)


@dataclass
class Workplace:
    """What doing a task needs beside the task."""

    cache: Cache
    data: Dataset
    say: Say


@dataclass(frozen=True)
class Outcome:
    """What an action made."""

    network: AnyNetwork
    module: nn.Module
    wall_s: float
    notes: dict[str, Any]
    accuracy: float | None = None  # percent of all test images, where the action measured it
    epochs: int | None = None  # that were trained, where not all of the task's: a search may meet its budget early


def perform(task: Task, cache: Cache, say: Say, data: Dataset | None = None) -> Result:
    """Do a task unless its result is there; its checkpoint lies in the cache afterwards."""
    if done := cache.result(task.key):
        return done
    whole = data or load_dataset(task.dataset)
    one_in, samples, test = (int(task.options.get(name) or 0) for name in ("held_out", "samples", "test"))
    place = Workplace(cache, part_of(held_out(whole, one_in), samples, test), say)
    outcome = ACTIONS[task.action](task, place)
    result = _result(task, outcome, place)
    meta = {
        "card": task.name, "network": outcome.network.model_dump(), "recipe": task.recipe, "dataset": task.dataset,
        "accuracy": result.accuracy, "n_test": result.n_test, "epochs": result.epochs,
        "epochs_in_all": result.epochs_in_all, "seed": task.recipe["seed"], "device": "cpu",
        "wall_s": round(result.wall_s, 1), "method": task.method, "action": task.action, "options": task.options,
        "teacher": task.teacher_name, "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "torch": torch.__version__, "reduction": result.model_dump(),
    }  # fmt: skip
    save_checkpoint(cache.path(task.key), outcome.module.state_dict(), meta)
    cache.state_path(task.key).unlink(missing_ok=True)
    return result


def held_out(data: Dataset, one_in: int) -> Dataset:
    """Return the data set with one training image in `one_in` as its test images, the same ones every time; 0: as is.

    What chooses among networks is judged on these, so that the real test images stay unseen.
    """
    if not one_in:
        return data
    count = len(data.train_labels)
    order = torch.randperm(count, generator=generator("held out", one_in))
    judges, learned = order[: count // one_in].sort().values, order[count // one_in :].sort().values
    return replace(
        data, train_images=data.train_images[learned], train_labels=data.train_labels[learned],
        test_images=data.train_images[judges], test_labels=data.train_labels[judges],
    )  # fmt: skip


def part_of(data: Dataset, samples: int, test: int) -> Dataset:
    """Return the data set with some of its training images, the same ones every time, and test images; 0: all."""
    if 0 < test < len(data.test_labels):
        data = replace(data, test_images=data.test_images[:test], test_labels=data.test_labels[:test])
    if not 0 < samples < len(data.train_labels):
        return data
    chosen = torch.randperm(len(data.train_labels), generator=generator("samples", samples))[:samples]
    return replace(data, train_images=data.train_images[chosen], train_labels=data.train_labels[chosen])


def _result(task: Task, outcome: Outcome, place: Workplace) -> Result:
    data = place.data
    found = census(lower(outcome.module, outcome.network.input_shape, stage_of)[0])
    before, accuracy, n_test = 0, outcome.accuracy, len(data.test_labels)
    epochs = task.epochs if outcome.epochs is None else outcome.epochs
    if accuracy is None:
        n_test = n_test if task.action == "given" else min(GLANCE, n_test)  # a glance at what goes on to be trained
        accuracy = evaluate(outcome.module, data.test_images[:n_test], data.test_labels[:n_test], data)
    if task.start and (start := place.cache.result(task.start)):
        before = start.epochs_in_all
    return Result(
        key=task.key, network=outcome.network, relu_count=found.relu_count, macs=found.macs,
        macs_merged=found.macs_merged, relu_rounds=found.relu_rounds, parameters=found.parameters,
        accuracy=accuracy, n_test=n_test,
        epochs=epochs, epochs_in_all=epochs + before, wall_s=outcome.wall_s, notes=outcome.notes,
    )  # fmt: skip


def network_at(path: Path) -> tuple[AnyNetwork, nn.Module]:
    """Return the network that a checkpoint of the cache holds."""
    spec = _NETWORK.validate_python(read_metadata(path)["network"])
    module = build(spec)
    load_into(module, path)
    return spec, module.eval()


def _need(task: Task, key: str | None, place: Workplace) -> Path:
    if key is None or not (path := place.cache.path(key)).is_file():
        raise DataError(f"{task.name} needs the result {key}, which is not there", where=str(place.cache.folder))
    return path


def _teachers(task: Task, place: Workplace) -> list[Teacher]:
    if task.teacher is None:
        return []
    path = _need(task, task.teacher, place)
    return [Teacher(task.teacher_name or task.teacher, network_at(path)[1], task.teacher)]


def _given(task: Task, _place: Workplace) -> Outcome:
    """Take over a checkpoint that somebody trained."""
    module = build(task.network)
    load_into(module, Path(str(task.options["path"])))
    return Outcome(task.network, module.eval(), 0.0, {"sha256": task.options["sha256"]})


def _train(task: Task, place: Workplace) -> Outcome:
    """Train from fresh weights, or from those of another task where they fit; with matching if asked."""
    recipe = Recipe.model_validate(task.recipe)
    match = float(task.options.get("match") or 0.0)
    kind = MatchedTrainer if match else Trainer
    trainer = kind(
        task.card(), place.data, recipe, place.cache.state_path(task.key), teachers=_teachers(task, place),
        teacher_folder=place.cache.folder / "teachers",
        start=_need(task, task.start, place) if task.start else None, report=_epoch_lines(task, place.say),
    )  # fmt: skip
    if isinstance(trainer, MatchedTrainer):
        trainer.match(match)
    trainer.resume()
    accuracy = trainer.run()
    notes = {"images_an_epoch": len(place.data.train_labels)}
    return Outcome(task.network, trainer.module.eval(), trainer.place.wall_s, notes, accuracy)


def _epoch_lines(task: Task, say: Say) -> Callable[[Progress], None]:
    def report(p: Progress) -> None:
        if p.note:
            say(f"{task.name}: {p.note}")
        elif p.step == 0:
            say(f"{task.name}: epoch {p.epoch}/{p.epochs} train {p.train_accuracy:.1f} %, {p.remaining_s:.0f} s left")

    return report


def _search(task: Task, place: Workplace) -> Outcome:
    """Search masks by the rules of a method."""
    module = build(task.network)
    state, _ = load_checkpoint(_need(task, task.start, place))
    module.load_state_dict({**module.state_dict(), **{k: v for k, v in state.items() if not k.endswith(".mask")}})
    granularity: Granularity = "channel" if task.options.get("granularity") == "channel" else "pixel"
    setting = Setting(
        module,
        place.data,
        Recipe.model_validate(task.recipe),
        _teachers(task, place),
        int(task.options["budget"] or 0),
        granularity,
        place.cache.state_path(task.key),
        task.key,
        lambda text: place.say(f"{task.name}: {text}"),
    )
    search = SEARCHES[task.action](setting, task.options)
    search.run()
    kept = {name: int(mask.sum()) for name, mask in masks_of(module).items()}
    notes = {"open_at_the_end": search.relus(), "kept": kept}
    return Outcome(task.network, module.eval(), search.wall_s, notes, epochs=search.epoch)


def _snl(setting: Setting, options: Mapping[str, Option]) -> Search:
    threshold, strength, growth = (float(options[name] or 0.0) for name in ("threshold", "strength", "growth"))
    return SnlSearch(setting, threshold=threshold, strength=strength, growth=growth)


def _senet(setting: Setting, options: Mapping[str, Option]) -> Search:
    shares = [float(word) for word in str(options.get("shares") or "").split(",") if word]
    return SenetSearch(setting, density=float(options.get("density") or 0.1), shares=shares)


def _coordinate(setting: Setting, options: Mapping[str, Option]) -> Search:
    block, tries, judged = (int(options[name] or 1) for name in ("block", "tries", "judged"))
    within: Within = "site" if options["within"] == "site" else "network"
    tolerance = float(options["tolerance"] or 0.0)
    return CoordinateSearch(setting, block=block, tries=tries, judged=judged, tolerance=tolerance, within=within)


def _taylor(setting: Setting, options: Mapping[str, Option]) -> Search:
    return TaylorSearch(setting, judged=int(options["judged"] or 1))


SEARCHES: dict[str, Callable[[Setting, Mapping[str, Option]], Search]] = {
    "snl": _snl, "senet": _senet, "coordinate": _coordinate, "taylor": _taylor,
}  # fmt: skip


def _prune(task: Task, place: Workplace) -> Outcome:
    """Cut channels to the budget."""
    began = time.monotonic()
    spec, module = network_at(_need(task, task.start, place))
    macs = task.options.get("macs")
    budget = pruning.Budget(None if macs else int(task.options["budget"] or 0), int(macs) if macs else None)
    narrow, cut = pruning.prune(spec, module.state_dict(), budget)
    pruned = build(narrow)
    pruning.load_cut(pruned, cut)
    return Outcome(narrow, pruned.eval(), time.monotonic() - began, {})


def _poly(task: Task, place: Workplace) -> Outcome:
    """Put polynomials at the least sensitive sites."""
    began = time.monotonic()
    spec, source = network_at(_need(task, task.start, place))
    sizes = {name: int(torch.Size(shape).numel()) for name, shape in site_shapes(source, spec.input_shape).items()}
    recipe = Recipe.model_validate(task.recipe)
    sensitivity = relu_sensitivity(source, list(sites(source)), place.data, recipe, 0.1)
    chosen = polynomial.choose_sites(sizes, sensitivity, int(task.options["budget"] or 0))
    mixed = changed_any(spec, quadratic_sites=sorted({*spec.quadratic_sites, *chosen}))
    module = build(mixed)
    module.load_state_dict({**module.state_dict(), **source.state_dict()})
    polynomial.start_coefficients(source, module, place.data)
    return Outcome(mixed, module.eval(), time.monotonic() - began, {"sensitivity": sensitivity})


ACTIONS: dict[str, Callable[[Task, Workplace], Outcome]] = {
    "given": _given, "train": _train, "prune": _prune, "poly": _poly, **dict.fromkeys(SEARCHES, _search),
}  # fmt: skip


def threads_from_environment() -> int:
    """Return how many threads a worker gives to torch: PIBENCH_THREADS, else 1 (the same result everywhere)."""
    return max(1, int(os.environ.get("PIBENCH_THREADS", "1")))
