"""Checkpoints of cards: where they are, and training what takes seconds where there is none."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pibench.errors import DataError
from pibench.networks.card import Card, load_card
from pibench.training.metadata import differences, file_sha256, read_metadata
from pibench.training.plan import TeacherChoice, find_weights
from pibench.training.progress import Report, silent
from pibench.training.recipe import Recipe, recipe_for
from pibench.training.zoo import shelves

if TYPE_CHECKING:
    from torch import nn

CHECKPOINTS = Path(".pibench/checkpoints")
STATE = Path(".pibench/training")
QUICK = frozenset({"digits"})  # data sets on which training is a matter of seconds

Tell = Callable[[str], None]


def recipe_of(card: Card) -> Recipe:
    """Return the recipe that a card is trained with."""
    from pibench.training.runs import with_teacher

    return with_teacher(recipe_for(card.dataset, card.recipe), card.teacher is not None)


def target_of(card: Card, recipe: Recipe | None = None, teachers: Sequence[TeacherChoice] | None = None) -> Path:
    """Return where a training of a card puts its checkpoint: the name tells network, recipe and teacher.

    `teachers`, each with its weights' file, stand in for the card's own; an empty list: nobody teaches.
    """
    what: list[Any] = [card.network.model_dump(exclude_defaults=True), (recipe or recipe_of(card)).sha256]
    if teachers:
        what += [[load_card(each.card).name, file_sha256(Path(str(each.checkpoint)))] for each in teachers]
    elif teachers is None and card.teacher:
        what += [card.teacher, target_of(load_card(card.teacher)).name]
    else:
        what.append(None)
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    return CHECKPOINTS / f"{card.name}-{digest[:8]}.safetensors"


def find_checkpoint(card: Card) -> Path | None:
    """Return a card's checkpoint: trained here by its recipe, shipped, or trained here by another recipe.

    One whose metadata tells another network, of an earlier version of the card perhaps, is passed over.
    """
    own = target_of(card)
    shipped = [folder / (card.checkpoint or f"{card.name}.safetensors") for folder in shelves()]
    others = [] if card.dataset in QUICK else list(CHECKPOINTS.glob(f"{card.name}-????????.safetensors"))
    newest_first = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    known = (path for path in (own, *shipped, *newest_first) if path.is_file())
    return next((path for path in known if not differences(read_metadata(path), card.network)), None)


def with_masks(card: Card, checkpoint: Path | None) -> nn.Module:
    """Return the network without weights, but with the masks of its checkpoint: they decide what is counted."""
    from pibench.networks.build import masks_of, skeleton

    module = skeleton(card.network)
    masks = masks_of(module)
    if masks and checkpoint is not None:
        from pibench.training.checkpoint import load_checkpoint

        state, _ = load_checkpoint(checkpoint)
        for site, mask in masks.items():
            saved = state.get(f"{site}.mask", state.get(f"mask.{site}"))
            if saved is not None and saved.shape == mask.shape:
                mask.copy_(saved)
    return module


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

    own = TeacherChoice(card=card.teacher) if card.teacher else None
    wanted = None if alone else teacher or own
    teachers = [_resolved(wanted, card, tell, report)] if wanted else []
    recipe = with_teacher(recipe or recipe_of(card), bool(teachers))
    tell(f"training {card.name}: {recipe.epochs} epochs on {card.dataset}")
    target = target_of(card, recipe, None if wanted == own else teachers)
    return run_job(Job(card, recipe, target, STATE, teachers), resume=resume, report=report, device=device)


def _resolved(choice: TeacherChoice, pupil: Card, tell: Tell, report: Report) -> TeacherChoice:
    """Return a teacher with its weights' file, trained now where none was named and that takes seconds."""
    card = load_card(choice.card)
    path = None if choice.checkpoint else ensure_trained(card, tell, report)
    path = path or find_weights(choice.checkpoint or card.name, [STATE])
    if path is None:
        raise DataError(
            f"{pupil.name} is taught by {card.name}, which has no checkpoint",
            where=str(pupil.path),
            remedy=f"`pibench train {card.name}` first, or --teacher CARD=FILE, or --no-teacher",
        )
    return TeacherChoice(card=str(card.path), checkpoint=str(path))
