"""From a card to a checkpoint on disk: finds data, teachers and starting weights, trains, writes what came out."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pibench.errors import DataError, UsageError
from pibench.networks.build import build
from pibench.networks.card import Card, load_card
from pibench.networks.spec import AnyNetwork
from pibench.training.checkpoint import file_sha256, read_metadata, save_checkpoint
from pibench.training.data import Dataset, load_dataset
from pibench.training.distill import Teacher
from pibench.training.foreign import fitted, read_state
from pibench.training.metadata import require_network
from pibench.training.plan import Plan, Round, TeacherChoice, find_weights
from pibench.training.progress import Report, silent
from pibench.training.recipe import Distillation, Recipe, recipe_for
from pibench.training.train import Trainer


@dataclass(frozen=True)
class Job:
    """One training run, resolved: what, with which recipe, from where, to where."""

    card: Card
    recipe: Recipe
    target: Path
    state: Path  # folder of resumable states and of the teachers' logits
    teachers: Sequence[TeacherChoice] = ()
    start: Path | None = None
    widen: bool = False


def job_of(item: Round, plan: Plan, state: Path) -> Job:
    """Resolve one round of a plan."""
    card = load_card(item.card)
    teachers = [_teacher_of(item, choice, plan, state) for choice in plan.teachers_of(item)]
    recipe = with_teacher(recipe_for(card.dataset, plan.recipe_of(item) or card.recipe), bool(teachers))
    start = _made(item, item.start, "starts from", plan, state) if item.start else None
    return Job(card, recipe, state / f"{item.result}.safetensors", state, teachers, start, item.widen)


def _teacher_of(item: Round, choice: TeacherChoice, plan: Plan, state: Path) -> TeacherChoice:
    name = choice.checkpoint or load_card(choice.card).name
    if not plan.makes(name):
        return choice
    return TeacherChoice(card=choice.card, checkpoint=str(_made(item, name, "is taught by", plan, state)))


def _made(item: Round, name: str, how: str, plan: Plan, state: Path) -> Path:
    """Return the weights that a round names: another round's are this plan's own, not what the zoo has of that name."""
    own = state / f"{name}.safetensors"
    path = (own if own.is_file() else None) if plan.makes(name) else find_weights(name, [state])
    if path is None:
        raise UsageError(f"{item.result} {how} '{name}', which was not trained yet", remedy="put it first")
    return path


def with_teacher(recipe: Recipe, taught: bool) -> Recipe:
    """Return the recipe with distillation exactly where there is a teacher, so that a checkpoint tells the truth."""
    if taught == (recipe.distillation is not None):
        return recipe
    return recipe.model_copy(update={"distillation": Distillation() if taught else None})


def read_teacher(choice: TeacherChoice, state: Path, pupil: Card) -> Teacher:
    """Read a teacher's weights; raises DataError where they are absent or of another network."""
    card = load_card(choice.card)
    if (card.network.classes, card.network.input) != (pupil.network.classes, pupil.network.input):
        raise UsageError(f"{card.name} cannot teach {pupil.name}: its input or its classes are others")
    path = find_weights(choice.checkpoint or card.name, [state])
    if path is None:
        named = choice.checkpoint or card.name
        raise DataError(f"there is no checkpoint '{named}' of teacher {card.name}", remedy="train it first")
    module = build(card.network)
    load_into(module, path, card.network)
    module = module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(card.name, module, file_sha256(path))


def load_into(
    module: nn.Module, path: Path, network: AnyNetwork | None = None, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Put a checkpoint's tensors into a module, whatever their precision; returns the metadata.

    `tell` is told what was done to the names. The file is safetensors, or torch's own.

    Raises DataError where tensors are others, or where the metadata tells another network than `network`, if given.
    """
    state, meta = read_state(path)
    if network is not None:
        require_network(path, meta, network)
    fitting, said = fitted(state, module, path)
    for line in said:
        tell(line)
    module.load_state_dict(fitting, strict=False)
    return meta


def check_data(card: Card, data: Dataset) -> None:
    """Raise UsageError where a network's input or classes are not those of the data."""
    shape = tuple(data.train_images.shape[1:])
    if card.network.input_shape != shape or card.network.classes != data.classes:
        raise UsageError(
            f"{card.name} takes {card.network.input_shape} and tells {card.network.classes} classes; "
            f"{data.name} has {shape} and {data.classes}",
            where=str(card.path),
        )


def run_job(
    job: Job, *, resume: bool = True, report: Report = silent, data: Dataset | None = None, device: str = "cpu"
) -> Path:
    """Train, and write the checkpoint of the last epoch; returns its path."""
    data = data or load_dataset(job.card.dataset)
    check_data(job.card, data)
    trainer = Trainer(
        job.card,
        data,
        job.recipe,
        job.state / f"{job.target.stem}.state.safetensors",
        teachers=[read_teacher(choice, job.state, job.card) for choice in job.teachers],
        teacher_folder=job.state / "teachers",
        start=job.start,
        widen=job.widen,
        report=report,
        device=device,
    )
    if resume:
        trainer.resume()
    accuracy = trainer.run()
    save_checkpoint(job.target, trainer.module.state_dict(), metadata(job, trainer, data, accuracy))
    trainer.state_path.unlink(missing_ok=True)
    return job.target


def metadata(job: Job, trainer: Trainer, data: Dataset, accuracy: float) -> dict[str, Any]:
    """Return what a checkpoint says about itself."""
    before = read_metadata(job.start) if job.start else {}
    start = {"name": job.start.stem, "sha256": file_sha256(job.start)} if job.start else None
    widened = {"widened": True} if job.widen else {}
    return {
        "card": job.card.name,
        "card_sha256": job.card.sha256,
        "network": job.card.network.model_dump(exclude_defaults=True),
        "recipe": job.recipe.model_dump(),
        "recipe_sha256": job.recipe.sha256,
        "dataset": data.name,
        "accuracy": accuracy,
        "n_test": len(data.test_labels),
        "worst_class": trainer.judgement.worst if trainer.judgement else None,
        "epochs": job.recipe.epochs,
        "start": start and start | widened,  # weights that training began with, where not fresh
        "epochs_before": int(before.get("epochs", 0)) + int(before.get("epochs_before", 0)),
        "seed": job.recipe.seed,
        "device": torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else "cpu",
        "machine": platform.machine(),
        "torch": torch.__version__,
        "wall_s": round(trainer.place.wall_s, 1),
        "teachers": [{"name": t.name, "sha256": t.sha256} for t in trainer.teachers],
        "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "history": trainer.place.history,
    }


def run_plan(
    read: Callable[[], Plan],
    state: Path,
    report: Report = silent,
    done: Callable[[Path], None] = lambda _: None,
    device: str = "cpu",
    only: Sequence[str] = (),
) -> list[Path]:
    """Train the rounds of a plan in order, or those whose results `only` names.

    The plan is read anew after each, so that it can grow meanwhile. Raises UsageError for a name that it lacks.
    """
    finished: list[Path] = []
    while True:
        plan = read()
        if unknown := sorted(set(only) - {item.result for item in plan.rounds}):
            names = ", ".join(item.result for item in plan.rounds)
            raise UsageError(f"the plan has no round {', '.join(unknown)}", remedy=f"it has {names}")
        wanted = [item for item in plan.rounds if not only or item.result in only]
        waiting = [item for item in wanted if not (state / f"{item.result}.safetensors").is_file()]
        if not waiting:
            return finished
        finished.append(run_job(job_of(waiting[0], plan, state), report=report, device=device))
        done(finished[-1])
