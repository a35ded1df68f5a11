"""Training with activation matching: the student's activations after its ReLU sites are drawn to the teacher's.

The mismatch of a site is the mean squared difference of the two activations, each scaled to length 1 an image; the
loss gets beta / 2 times the sum over sites. SENet's term as later papers describe it (reconstructed; beta = 1000 is
quoted by one of them).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pibench.networks.build import sites
from pibench.training.distill import precision_of
from pibench.training.train import Trainer


class Tap:
    """Collects what some sites of a network put out in its last forward pass."""

    def __init__(self, module: nn.Module, names: set[str]) -> None:
        self.values: dict[str, Tensor] = {}
        for name in names:
            module.get_submodule(name).register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Any:
        return lambda _module, _inputs, output: self.values.__setitem__(name, output)


def mismatch(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """Return the sum over sites of the mean squared difference of the scaled activations."""
    scaled = [
        {name: functional.normalize(value.flatten(1).float()) for name, value in side.items()}
        for side in (student, teacher)
    ]
    return torch.stack([(scaled[0][name] - scaled[1][name]).square().mean() for name in student]).sum()


class MatchedTrainer(Trainer):
    """A trainer whose loss has the matching term; the first teacher must have the student's sites."""

    beta = 0.0

    def match(self, beta: float) -> None:
        """Start matching with weight beta."""
        teacher = self.teachers[0].module
        names = set(sites(self.module)) & set(sites(teacher))
        self.beta = beta
        self._images: list[Tensor] = []
        self._student, self._teacher = Tap(self.module, names), Tap(teacher, names)
        self.module.register_forward_pre_hook(lambda _module, inputs: self._images.__setitem__(slice(None), inputs))

    def _loss(self, logits: Tensor, labels: Tensor, taught: Tensor | None) -> Tensor:
        loss = super()._loss(logits, labels, taught)
        if not self.beta:
            return loss
        if taught is None or self._cached() or self.recipe.pixels_at(self.place.epoch):
            with torch.no_grad(), precision_of(self.recipe, self.device):
                self.teachers[0].module(self._images[0])
        # otherwise the teacher has just seen these images, for its logits
        return loss + self.beta / 2 * mismatch(self._student.values, self._teacher.values)
