"""How many images a network tells right, in all and by class: a mean hides what a budget of few ReLUs costs a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pibench.training.data import Dataset, normalise


@dataclass(frozen=True)
class Judgement:
    """Images told right and images shown, by class."""

    right: tuple[int, ...]
    shown: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """Percent of all images."""
        return 100 * sum(self.right) / max(sum(self.shown), 1)

    @property
    def worst(self) -> dict[str, Any]:
        """The class that is told right least often (the first of several), its percentage and its images."""
        shown = [label for label, count in enumerate(self.shown) if count]
        label = min(shown, key=lambda each: self.right[each] / self.shown[each])
        return {"class": label, "accuracy": 100 * self.right[label] / self.shown[label], "n_test": self.shown[label]}


@torch.no_grad()
def judge(module: nn.Module, images: Tensor, labels: Tensor, data: Dataset, batch: int = 250) -> Judgement:
    """Show images (N, C, H, W, uint8) with labels (N) to a network in inference mode."""
    module.eval()
    right = torch.zeros(data.classes, dtype=torch.int64)
    for start in range(0, len(labels), batch):
        x, y = images[start : start + batch], labels[start : start + batch]
        hits = y[module(normalise(x, data.mean, data.std)).argmax(1) == y]
        right += hits.bincount(minlength=data.classes).cpu()
    shown = labels.bincount(minlength=data.classes).tolist()
    return Judgement(tuple(right.tolist()), tuple(shown))


def evaluate(module: nn.Module, images: Tensor, labels: Tensor, data: Dataset, batch: int = 250) -> float:
    """Return the accuracy in percent."""
    return judge(module, images, labels, data, batch).accuracy
