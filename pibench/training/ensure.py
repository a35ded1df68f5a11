"""Checkpoints of cards: where they are, and training what takes seconds where there is none."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pibench.errors import DataError
from pibench.library import data_folders
from pibench.networks.card import Card, load_card
from pibench.training.metadata import read_metadata
from pibench.training.plan import TeacherChoice
from pibench.training.progress import Report, silent
from pibench.training.recipe import Recipe, recipe_for

CHECKPOINTS = Path(".pibench/checkpoints")
STATE = Path(".pibench/training")
QUICK = frozenset({"digits"})  # data sets on which training is a matter of seconds

Tell = Callable[[str], None]


def recipe_of(card: Card) -> Recipe:
    """Return the recipe that a card is trained with."""
    from pibench.training.runs import with_teacher

    return with_teacher(recipe_for(card.dataset, card.recipe), card.teacher is not None)


def target_of(card: Card, recipe: Recipe | None = None) -> Path:
    """Return where a card's own training puts its checkpoint: the name tells network, recipe and teacher."""
    what = [card.network.model_dump(exclude_defaults=True), (recipe or recipe_of(card)).sha256, card.teacher]
    if card.teacher:
        what.append(target_of(load_card(card.teacher)).name)
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    return CHECKPOINTS / f"{card.name}-{digest[:8]}.safetensors"


def find_checkpoint(card: Card) -> Path | None:
    """Return a card's checkpoint: trained here by its recipe, shipped, or trained here by another recipe."""
    own = target_of(card)
    shipped = [folder / (card.checkpoint or f"{card.name}.safetensors") for folder in data_folders("zoo")]
    for path in (own, *shipped):
        if path.is_file():
            return path
    others = [] if card.dataset in QUICK else sorted(CHECKPOINTS.glob(f"{card.name}-????????.safetensors"))
    network = card.network.model_dump(mode="json", exclude_defaults=True)
    fitting = [path for path in others if read_metadata(path).get("network") == network]
    return max(fitting, key=lambda path: path.stat().st_mtime, default=None)


def ensure_trained(card: Card, tell: Tell = lambda _: None, report: Report = silent) -> Path | None:
    """Return a card's checkpoint, trained now where that takes seconds (teacher first), or None."""
    if (found := find_checkpoint(card)) is not None or card.dataset not in QUICK:
        return found
    with _one_thread():
        return train_card(card, tell=tell, report=report)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread for a while: on images of 8x8 pixels a second one costs more than it brings."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_card(
    card: Card,
    *,
    recipe: Recipe | None = None,
    teacher: TeacherChoice | None = None,
    alone: bool = False,
    tell: Tell = lambda _: None,
    report: Report = silent,
    resume: bool = True,
    device: str = "cpu",
) -> Path:
    """Train a card, by its recipe and from its teacher or by given ones; a teacher that takes seconds comes first.

    With `alone`, nobody teaches. Whatever is given, the checkpoint's metadata tells it.
    """
    from pibench.training.runs import Job, run_job, with_teacher

    teachers = [] if alone else [teacher] if teacher else [_teacher(card, tell, report)] if card.teacher else []
    recipe = with_teacher(recipe or recipe_of(card), bool(teachers))
    tell(f"training {card.name}: {recipe.epochs} epochs on {card.dataset}")
    job = Job(card, recipe, target_of(card, recipe), STATE, teachers)
    return run_job(job, resume=resume, report=report, device=device)


def _teacher(card: Card, tell: Tell, report: Report) -> TeacherChoice:
    teacher = load_card(str(card.teacher))
    path = ensure_trained(teacher, tell, report)
    if path is None:
        raise DataError(
            f"{card.name} is taught by {teacher.name}, which has no checkpoint",
            where=str(card.path),
            remedy=f"`pibench train {teacher.name}` first, or --teacher CARD=FILE, or --no-teacher",
        )
    return TeacherChoice(card=str(teacher.path), checkpoint=str(path))
