"""What is asked: a base network, budgets and recipes; and the tasks that every method makes from it. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pibench.errors import DataError, UsageError
from pibench.networks.card import Card
from pibench.networks.spec import AnyNetwork
from pibench.reduction.tasks import Action, Option, Result, Task
from pibench.training.metadata import file_sha256, read_metadata, require_network
from pibench.training.recipe import recipe_for

Wave = list[Task]  # tasks that do not wait for one another
Results = Mapping[str, Result]  # by key
Method = Callable[["Study"], Generator[Wave, Results, list[Task]]]
HELD_OUT = 10  # one training image in so many judges criticality, in place of the test images
SEARCH_SHARE, TUNE_SHARE = 0.5, 0.75  # epochs of a mask search and of fine-tuning, of the base network's


@dataclass(frozen=True)
class Study:
    """A base card, the budgets to meet and how to train."""

    card: Card
    budgets: tuple[int, ...] = ()  # ReLUs
    checkpoint: Path | None = None  # weights of the base card; trained where there are none
    epochs: int | None = None  # of every student, instead of the recipe's
    distillation: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 4.0, "weight": 0.9})
    warm: bool = False  # students start from the base network's weights where those fit
    settings: Mapping[str, Option] = field(default_factory=dict)  # of the methods, by name
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of every recipe; methods' schedules derive from them

    def __post_init__(self) -> None:
        """Raise UsageError for a base network that no method handles, and for recipes that none can follow."""
        if self.overrides.get("frozen"):
            raise UsageError("a reduction changes every part of a network", remedy="leave recipe.frozen out")
        if self.card.network.activation == "masked":
            raise UsageError(
                f"{self.card.name} is masked already, and its masks would be lost",
                where=str(self.card.path), remedy="start from the network that it was made from",
            )  # fmt: skip

    def base(self) -> Task:
        """Return the task that yields the base network: teacher of all, starting point of many, itself not taught.

        Raises DataError for a checkpoint that cannot be read or is of another network.
        """
        card = self.card
        options = self._part()
        action: Action = "train"
        if self.checkpoint is not None:
            action = "given"
            options |= {"sha256": _sha256(self.checkpoint), "path": str(self.checkpoint.resolve())}
            require_network(self.checkpoint, read_metadata(self.checkpoint), card.network)
            options.pop("samples", None)
        return Task(
            name=card.name, title=card.title, method=card.method, dataset=card.dataset, network=card.network,
            action=action, recipe=self._complete({}, {}), options=options,
            provenance=card.provenance, note=card.note or "",
        )  # fmt: skip

    def alone(self, name: str, title: str, network: AnyNetwork) -> Task:
        """Return a training from nothing and without a teacher, judged on training images held out (criticality)."""
        return Task(
            name=f"{self.card.name}-{name}", title=title, method="deepreduce", dataset=self.card.dataset,
            network=network, action="train", recipe=self._recipe({}),
            options={**self._part(), "held_out": HELD_OUT}, provenance="reconstructed",
        )  # fmt: skip

    def student(self, name: str, title: str, network: AnyNetwork, method: str, **fields: Any) -> Task:
        """Return a training with the base network as teacher."""
        base = self.base()
        start = fields.pop("start", base.key if self.warm else None)
        fields["options"] = {**self._part(), **fields.get("options", {})}
        recipe = self._recipe({"distillation": dict(self.distillation), **fields.pop("recipe", {})})
        return Task(
            name=f"{self.card.name}-{name}", title=f"{self.card.title}: {title}", method=method,
            dataset=self.card.dataset, network=network, action="train", recipe=recipe, teacher=base.key,
            teacher_name=self.card.name, start=start, **fields,
        )  # fmt: skip

    def tuned(self, name: str, title: str, result: Result, method: str, *, retrain: bool, **fields: Any) -> Task:
        """Return the fine-tuning of what another task made, under the teacher; shorter and slower unless `retrain`."""
        recipe: dict[str, Any] = {}
        if not retrain:
            rate = self._recipe({})["lr"] / self.number("tune_divisor", 5.0)
            recipe = {"epochs": self._epochs(TUNE_SHARE), "lr": rate, "schedule": "cosine"}
        return self.student(name, title, result.network, method, start=result.key, recipe=recipe, **fields)

    def search(self, name: str, action: Action, network: AnyNetwork, options: Mapping[str, Option]) -> Task:
        """Return a search that starts from the base network's weights."""
        base = self.base()
        recipe = {"epochs": self._epochs(SEARCH_SHARE), "distillation": dict(self.distillation)}
        return Task(
            name=f"{self.card.name}-{name}", title=f"{self.card.title}: {action} search", method=action,
            dataset=self.card.dataset, network=network, action=action, recipe=self._recipe(recipe),
            options={**self._part(), **options}, teacher=base.key, teacher_name=self.card.name, start=base.key,
        )  # fmt: skip

    def wanted(self, tasks: list[Task]) -> list[Task]:
        """Return the students that the setting `only` names, without the card's name (all where there is none)."""
        only = self.word("only", "").split(",")
        return [task for task in tasks if only == [""] or task.name.removeprefix(f"{self.card.name}-") in only]

    def order(self) -> list[int]:
        """Return the criticality order that was given, most critical first; empty where none was."""
        words = self.word("order", "").replace(">", " ").replace(",", " ").replace("S", "").split()
        return [int(word) for word in words if word.isdigit()]

    def number(self, name: str, default: float) -> float:
        """Return a numeric setting."""
        value = self.settings.get(name, default)
        return float(value) if value is not None else default

    def word(self, name: str, default: str) -> str:
        """Return a setting that is a word."""
        return str(self.settings.get(name) or default)

    def percent(self, budget: int, full: int) -> str:
        """Return a budget as it stands in names: percent of the base network's ReLUs."""
        return f"{100 * budget / max(full, 1):.1f}".removesuffix(".0").replace(".", "p")

    def _part(self) -> dict[str, Option]:
        """Return the options that limit a task to some of the training and test images."""
        return {name: int(self.number(name, 0)) for name in ("samples", "test") if self.number(name, 0)}

    def _epochs(self, share: float) -> int:
        return max(1, round(int(self._recipe({})["epochs"]) * share))

    def _own_recipe(self) -> dict[str, Any]:
        others = {"distillation", "frozen"}  # what a card's own training had beside the network: a teacher, a start
        return {name: value for name, value in (self.card.recipe or {}).items() if name not in others}

    def _recipe(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return a complete recipe; what a method gives is last, for it derived that from what was overridden."""
        whole = {"epochs": self.epochs} if self.epochs else {}
        return self._complete(whole, given)

    def _complete(self, whole: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        recipe = recipe_for(self.card.dataset, {**self._own_recipe(), **whole, **self.overrides, **given})
        return recipe.model_dump(exclude={"frozen"})  # no reduction has any; tasks' keys stay as they were


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
