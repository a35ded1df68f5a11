"""Searches that close ReLUs for good between epochs: their masks are boolean from the first step."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pibench.reduction.gates import open_gates
from pibench.reduction.search import Search, weight_parameters


@dataclass
class ClosingSearch(Search):
    """A search whose gates are 0 or 1 and never learn; a subclass says which close before an epoch.

    The numbers left open fall by the same factor before every epoch; in the last one nothing is left to close.
    """

    full: int = -1  # ReLUs at the start

    def __post_init__(self) -> None:
        super().__post_init__()
        for gate in self.gates.values():
            gate.gate.requires_grad_(False)
        self.full = self.relus()

    @abstractmethod
    def close(self, due: int) -> None:
        """Close gates until at most `due` ReLUs are open."""

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return SGD on the weights at a tenth of the recipe's rate, for they are trained already."""
        recipe = self.setting.recipe
        weights = weight_parameters(self.setting.module)
        return torch.optim.SGD(weights, recipe.lr * 0.1, recipe.momentum, weight_decay=recipe.weight_decay)

    def before_epoch(self) -> None:
        """Close down to what is left open in this epoch."""
        self.close(self._due())

    def after_step(self) -> None:
        """Leave the gates alone."""

    def after_epoch(self) -> None:
        """Stop where nothing is left to close."""
        self.done = self.epoch >= self.setting.recipe.epochs

    def masks(self) -> dict[str, Tensor]:
        """Return the gates as they stand."""
        return {n: (g.gate.detach() > 0.5).expand(g.shape).clone() for n, g in self.gates.items()}

    def relus(self) -> int:
        """Return the ReLUs behind gates at 1."""
        return open_gates(self.gates, 0.5)

    def numbers(self) -> dict[str, Any]:
        """Return the start."""
        return {"full": self.full}

    def _due(self) -> int:
        """Return how many ReLUs may be open in this epoch."""
        budget, epochs = self.setting.budget, self.setting.recipe.epochs
        if self.epoch + 1 >= epochs:
            return budget
        share = math.log(max(budget, 1) / max(self.full, 1)) * (self.epoch + 1) / epochs
        return max(budget, round(self.full * math.exp(share)))
