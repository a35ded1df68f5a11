"""A training plan: several cards in order, each with its recipe, teachers and starting point. No torch here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from pibench.documents import Strict, parse, problems_of
from pibench.errors import UsageError
from pibench.training.recipe import Recipe
from pibench.training.zoo import shelves

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]


class TeacherChoice(Strict):
    """A teacher: a card, and where its weights are (a file, or by default what was trained under the card's name)."""

    card: str
    checkpoint: str | None = None


class Round(Strict):
    """One training run of a plan."""

    card: str
    name: Name | None = None  # of the result, where it is not the card's name: an earlier cycle, say
    teachers: list[TeacherChoice] | None = None  # instead of the plan's
    start: str | None = None  # a round's name or a file; tensors that fit by name and shape are copied
    widen: bool = False  # the start is a narrower network, whose channels are copied until they fill this one
    recipe: dict[str, Any] | None = None  # instead of the card's
    note: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Round:
        if self.widen and self.start is None:
            raise ValueError("widen needs a start")
        return self

    @property
    def result(self) -> str:
        """Name of what this round makes."""
        return self.name or Path(self.card).stem


class Plan(Strict):
    """Rounds in order; `recipe` holds what all of them share, `teachers` who teaches where a round is silent."""

    rounds: Annotated[list[Round], Field(min_length=1)]
    recipe: dict[str, Any] = {}
    teachers: list[TeacherChoice] = []

    def recipe_of(self, item: Round) -> dict[str, Any] | None:
        """Return the settings that the plan gives a round (None: the card's own)."""
        return {**self.recipe, **(item.recipe or {})} or None

    def makes(self, name: str) -> bool:
        """Return whether a round's result has this name."""
        return any(item.result == name for item in self.rounds)

    def teachers_of(self, item: Round) -> list[TeacherChoice]:
        """Return who teaches a round."""
        return self.teachers if item.teachers is None else item.teachers


def load_plan(path: Path) -> Plan:
    """Read and check a plan."""
    plan = parse(Plan, path)
    for item in plan.rounds:
        if problems := problems_of(plan.recipe_of(item) or {}, Recipe, {}):
            what = "; ".join(text for _, text in problems)
            raise UsageError(f"the recipe of {item.result}: {what}", where=str(path))
    return plan


def find_weights(name_or_path: str, folders: list[Path]) -> Path | None:
    """Return the checkpoint that a name or path means: a file, in `folders`, or shipped in zoo/."""
    path = Path(os.path.expandvars(name_or_path)).expanduser()
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        return path if path.is_file() else None
    candidates = [folder / f"{name_or_path}.safetensors" for folder in [*folders, *shelves()]]
    return next((candidate for candidate in candidates if candidate.is_file()), None)
