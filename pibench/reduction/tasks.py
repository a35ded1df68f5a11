"""One training (or search, or pruning) as data, and what came out of it. No torch here.

A task's key is a hash of everything that decides about its outcome, its teacher's and starting point's keys included.
Whatever was made under a key is never made again, whichever method, output folder or machine asks for it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pibench.documents import Strict
from pibench.networks.card import Card
from pibench.networks.spec import Network

Action = Literal["given", "train", "snl", "senet", "coordinate", "taylor", "prune", "poly"]
Option = str | int | float | bool | None
VERSION = 1  # of what the actions do; raised when the same task would come out differently


class Task(Strict):
    """One unit of work: it makes one checkpoint from a description, a recipe, and the checkpoints of other tasks."""

    name: str
    title: str
    method: str
    dataset: str
    network: Network
    action: Action
    recipe: dict[str, Any]  # complete, defaults filled in
    options: dict[str, Option] = {}
    teacher: str | None = None  # key of a task
    start: str | None = None  # key of a task
    teacher_name: str | None = None
    provenance: Literal["confirmed", "reconstructed"] = "confirmed"
    note: str = ""

    @property
    def key(self) -> str:
        """Hash of what decides about the outcome; names and notes do not."""
        decides = self.model_dump(exclude={"name", "title", "note", "provenance", "method", "teacher_name"})
        decides["version"] = VERSION
        decides["options"].pop("path", None)  # a given file counts by its contents
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def needs(self) -> list[str]:
        """Keys of the tasks whose checkpoints this one reads."""
        return list(dict.fromkeys(key for key in (self.teacher, self.start) if key))

    @property
    def epochs(self) -> int:
        """Epochs that this task trains."""
        return int(self.recipe["epochs"]) if self.action in {"train", "snl", "senet", "coordinate", "taylor"} else 0

    def images_an_epoch(self, images: int) -> int:
        """Return how many of a data set's training images this task trains on: all but those held out, or `samples`."""
        one_in = int(self.options.get("held_out") or 0)
        left = images - (images // one_in if one_in else 0)
        return min(left, int(self.options.get("samples") or left))

    def card(self, result: Result | None = None) -> Card:
        """Return the card of the network that this task makes (of its description, before it is made)."""
        fields: dict[str, Any] = {
            "name": self.name, "title": self.title, "method": self.method, "dataset": self.dataset,
            "network": (result.network if result else self.network).model_dump(),
            "relu_count": result.relu_count if result else 0, "provenance": self.provenance,
            "note": self.note or None, "teacher": self.teacher_name, "recipe": self.recipe,
        }  # fmt: skip
        return Card.model_validate(fields)


class Result(Strict):
    """What a task made: the network as it came out, its counts, its accuracy and what it cost."""

    key: str
    network: Network
    relu_count: Annotated[int, Field(ge=0)]
    macs: int
    macs_merged: int
    relu_rounds: int
    parameters: int
    accuracy: float | None  # percent, on all test images; None in a plan
    n_test: int
    epochs: int  # in this task
    epochs_in_all: int  # and in those that it started from
    wall_s: float
    notes: dict[str, Any] = {}  # an action's own findings


class Cache:
    """A folder of checkpoints by key; each carries its result, so that a checkpoint without one cannot exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Return where the checkpoint of a key is or would be."""
        return self.folder / f"{key}.safetensors"

    def state_path(self, key: str) -> Path:
        """Return where the state of an unfinished task is kept."""
        return self.folder / "states" / f"{key}.safetensors"

    def result(self, key: str) -> Result | None:
        """Return the result of a finished task, None where there is none."""
        from pibench.training.checkpoint import read_metadata

        path = self.path(key)
        if not path.is_file():
            return None
        return Result.model_validate(read_metadata(path)["reduction"])
