"""A training recipe as data: strict, with defaults for each data set. No torch here."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pibench.documents import Strict

Schedule = Literal["cosine", "step", "onecycle"]
Precision = Literal["float32", "bfloat16"]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Distillation(Strict):
    """How much of the loss comes from the teacher; its views of the images are computed once and kept."""

    temperature: Rate = 4.0
    weight: Fraction = 0.9
    # augmented copies of the training set that teacher and student both see; 0: a new one every epoch
    views: Annotated[int, Field(ge=0, le=10000)] = 0


class Phase(Strict):
    """A part of the training at a smaller image size, which costs less: up to `until`, a fraction of all epochs."""

    until: Fraction
    pixels: Annotated[int, Field(ge=4, le=512)]


class Recipe(Strict):
    """Everything that decides about a training run but the network, the data and the teacher."""

    epochs: Annotated[int, Field(ge=1, le=10000)] = 100
    batch_size: Annotated[int, Field(ge=2, le=65536)] = 128
    lr: Rate = 0.1
    schedule: Schedule = "onecycle"
    warmup: Fraction = 0.15  # share of all steps in which a one-cycle schedule climbs
    floor: Fraction = 0.0  # share of the rate that a cosine ends at
    milestones: list[Fraction] = [0.5, 0.75]  # of a step schedule: tenfold smaller at each, as fractions of all steps
    momentum: Decay = 0.9
    nesterov: bool = True
    weight_decay: Decay = 5e-4
    label_smoothing: Decay = 0.0
    crop: Annotated[int, Field(ge=0, le=64)] = 4  # pixels of zero padding that random crops move in
    flip: bool = True
    phases: list[Phase] = []
    distillation: Distillation | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    averaged: Fraction = 0.0  # share of the epochs, the last ones, whose mean weights are the result
    precision: Precision = "float32"
    channels_last: bool = False
    frozen: list[str] = []  # modules that keep weights and statistics: what comes first costs no backward pass then

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        untils = [phase.until for phase in self.phases]
        if untils != sorted(set(untils)):
            raise ValueError("phases must come in the order of their `until`")
        return self

    @property
    def sha256(self) -> str:
        """Hash of the settings that differ from the defaults: the name of what was trained with them."""
        settings = self.model_dump(exclude_defaults=True)  # a setting that is added later leaves old names as they are
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of one step of `steps`."""
        done = step / max(steps, 1)
        if self.schedule == "step":
            return float(self.lr * 0.1 ** sum(done >= milestone for milestone in self.milestones))
        climb = self.warmup if self.schedule == "onecycle" else 0.0
        if done < climb:
            return self.lr * (0.05 + 0.95 * done / climb)
        fall = 0.5 * (1 + math.cos(math.pi * (done - climb) / max(1 - climb, 1e-9)))
        return self.lr * (self.floor + (1 - self.floor) * fall)

    def pixels_at(self, epoch: int) -> int | None:
        """Return the image size of an epoch where it is smaller than the data set's own."""
        for phase in self.phases:
            if epoch < self._epoch_at(phase.until):
                return phase.pixels
        return None

    def averages_at(self, epoch: int) -> bool:
        """Return whether an epoch's weights are part of the mean: those of the last one are, at least."""
        return self.averaged > 0 and epoch >= min(self._epoch_at(1 - self.averaged), self.epochs - 1)

    def _epoch_at(self, share: float) -> float:
        """Return the epoch at a share of all; 0.3 and 1 - 0.7 of ten are 3, which binary fractions miss by a hair."""
        return round(share * self.epochs, 6)


# What a card without a recipe is trained with; small images of digits need neither many epochs nor flips.
DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 20, "batch_size": 64, "lr": 0.1, "crop": 1, "flip": False, "channels_last": True},
    "cifar10": {"epochs": 100},
    "cifar100": {"epochs": 100},
    "tinyimagenet": {"epochs": 100},
}


def recipe_for(dataset: str, given: dict[str, Any] | None) -> Recipe:
    """Return the recipe of a card: its own settings over the defaults of its data set."""
    return Recipe.model_validate({**DEFAULTS.get(dataset, {}), **(given or {})})
