"""The mean of the weights that training passes through: wider minima, which tell more test images right.

Stochastic weight averaging (Izmailov et al., UAI 2018, algorithm 1): at a rate that does not fall to nothing the
weights walk around a minimum, whose middle is better than where they end. Batch norm's statistics are of one place on
that walk, so they are taken anew for the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

EVERY_STEPS = 30  # of an epoch, and at its end: an average of neighbouring steps is hardly another one
STATISTICS_IMAGES = 5120  # whose batches give batch norm its statistics


class WeightAverage:
    """The running mean of a module's weights, all places alike."""

    def __init__(self, module: nn.Module) -> None:
        self._model = AveragedModel(module)

    @property
    def places(self) -> int:
        """How many places the mean is of."""
        return int(self._model.n_averaged)

    def add(self, module: nn.Module) -> None:
        """Take the place where the module's weights are into the mean."""
        self._model.update_parameters(module)

    def module(self, batches: Iterable[Tensor], frozen: Sequence[str] = ()) -> nn.Module:
        """Return the network of the mean weights in inference mode, its statistics taken from `batches` of inputs.

        Parts that `frozen` names keep their statistics.
        """
        renew_statistics(self._model.module, batches, frozen)
        return self._model.module

    def tensors(self) -> dict[str, Tensor]:
        """Return what `restore` goes on from."""
        return dict(self._model.state_dict())

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `tensors` of an average of the same network."""
        self._model.load_state_dict(tensors)


@torch.no_grad()
def renew_statistics(module: nn.Module, batches: Iterable[Tensor], frozen: Sequence[str] = ()) -> None:
    """Let every batch norm outside the parts `frozen` have the mean statistics of `batches`; ends in inference mode."""
    kept = [module.get_submodule(name) for name in frozen]
    still = {id(layer) for part in kept for layer in part.modules()}
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and id(layer) not in still]
    momenta = [layer.momentum for layer in layers]
    module.train()
    for part in kept:
        part.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
    for batch in batches:
        module(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    module.eval()
