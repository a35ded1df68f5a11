"""From a card to a checkpoint on disk: finds data, teachers and starting weights, trains, writes what came out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pibench.errors import DataError, UsageError
from pibench.networks.build import build
from pibench.networks.card import Card, load_card
from pibench.training.checkpoint import file_sha256, load_checkpoint, read_metadata, save_checkpoint
from pibench.training.data import Dataset, load_dataset
from pibench.training.distill import Teacher
from pibench.training.plan import Plan, Round, TeacherChoice, find_weights
from pibench.training.recipe import Recipe, recipe_for
from pibench.training.train import Report, Trainer, silent

STATE = Path(".pibench/training")


@dataclass
class Job:
    """One training run, resolved: what, with which recipe, from where, to where."""

    card: Card
    recipe: Recipe
    target: Path
    state: Path  # folder of resumable states and of the teachers' logits
    teachers: list[TeacherChoice] = field(default_factory=list)
    start: Path | None = None


def job_of(item: Round, plan: Plan, state: Path) -> Job:
    """Resolve one round of a plan."""
    card = load_card(item.card)
    recipe = recipe_for(card.dataset, plan.recipe_of(item) or card.recipe)
    start = find_weights(item.start, [state]) if item.start else None
    if item.start and start is None:
        raise UsageError(f"{item.result} starts from '{item.start}', which was not trained yet", remedy="put it first")
    return Job(card, recipe, state / f"{item.result}.safetensors", state, item.teachers, start)


def read_teacher(choice: TeacherChoice, state: Path) -> Teacher:
    """Read a teacher's weights; raises DataError where they are absent or of another shape."""
    card = load_card(choice.card)
    path = find_weights(choice.checkpoint or card.name, [state])
    if path is None:
        raise DataError(f"teacher '{card.name}' has no checkpoint", remedy=f"run `pibench train {card.name}` first")
    module = build(card.network)
    load_into(module, path)
    return Teacher(card.name, module.eval().to(memory_format=torch.channels_last), file_sha256(path))  # type: ignore[call-overload]


def load_into(module: Any, path: Path) -> dict[str, Any]:
    """Put a checkpoint's tensors into a module; returns the metadata."""
    state, meta = load_checkpoint(path)
    own = module.state_dict()
    wrong = [k for k, v in own.items() if k not in state and not k.endswith("num_batches_tracked")]
    wrong += [k for k in state if k not in own]
    wrong += [f"{k} {tuple(v.shape)} instead of {tuple(own[k].shape)}" for k, v in state.items()
              if k in own and v.shape != own[k].shape]
    if wrong:
        raise DataError(f"the checkpoint is of another network: {', '.join(wrong[:5])}", where=str(path))
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()}, strict=False)
    return meta


def run_job(job: Job, *, resume: bool = True, report: Report = silent, data: Dataset | None = None) -> Path:
    """Train, and write the checkpoint of the last epoch; returns its path."""
    data = data or load_dataset(job.card.dataset)
    trainer = Trainer(
        job.card,
        data,
        job.recipe,
        job.state / f"{job.target.stem}.state.safetensors",
        teachers=[read_teacher(choice, job.state) for choice in job.teachers],
        teacher_folder=job.state / "teachers",
        start=job.start,
        report=report,
    )
    if resume:
        trainer.resume()
    accuracy = trainer.run()
    save_checkpoint(job.target, trainer.module.state_dict(), metadata(job, trainer, data, accuracy))
    return job.target


def metadata(job: Job, trainer: Trainer, data: Dataset, accuracy: float) -> dict[str, Any]:
    """Return what a checkpoint says about itself."""
    start = {"start": {"name": job.start.stem, "sha256": file_sha256(job.start),
                       "epochs_in_all": read_metadata(job.start).get("epochs_in_all")}} if job.start else {}
    before = start["start"]["epochs_in_all"] or 0 if job.start else 0
    return {
        "card": job.card.name,
        "card_sha256": job.card.sha256,
        "network": job.card.network.model_dump(),
        "recipe": job.recipe.model_dump(),
        "recipe_sha256": job.recipe.sha256,
        "dataset": data.name,
        "accuracy": accuracy,
        "n_test": len(data.test_labels),
        "epochs": job.recipe.epochs,
        "epochs_in_all": job.recipe.epochs + before,
        "seed": job.recipe.seed,
        "device": "cpu",
        "wall_s": round(trainer.place.wall_s, 1),
        "teachers": [{"name": t.name, "sha256": t.sha256} for t in trainer.teachers],
        "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "history": trainer.place.history,
        **start,
    }


def run_plan(read: Callable[[], Plan], state: Path, report: Report = silent, done: Callable[[Path], None] = lambda _: None) -> list[Path]:
    """Train the rounds of a plan in order; the plan is read anew after each, so that it can grow meanwhile."""
    finished: list[Path] = []
    while True:
        plan = read()
        open_rounds = [r for r in plan.rounds if not (state / f"{r.result}.safetensors").is_file()]
        if not open_rounds:
            return finished
        finished.append(run_job(job_of(open_rounds[0], plan, state), report=report))
        done(finished[-1])
