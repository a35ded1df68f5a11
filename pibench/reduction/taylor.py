"""Second-order Taylor importance: the ReLUs go first whose absence moves the network's answers least.

Without its ReLU a value x is larger by d = min(x, 0). The answers then move by KL(before || after), to second order
1/2 E[(g d)^2] nats, g being the gradient of log p(y) with y drawn from the network's own answers: Fisher's information
stands for the Hessian, as in Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, section
3.1, for whole channels. ReLUPruner (AAAI 2026) ranks ReLUs by a second-order Taylor term; its text was not at hand, so
what is here is this project's.

1. Measure every open ReLU on some training images in one backward pass a batch, without labels.
2. Close those of least importance, over all sites at once, down to what is left open in this epoch; then an epoch of
   all weights under the teacher, and measure again.
3. Fine-tune under the teacher (the method's second task).

A channel's importance is that of all its ReLUs together, (sum of g d)^2, for each ReLU of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pibench.reduction.closing import ClosingSearch
from pibench.reduction.gates import GatedReLU, keep_largest
from pibench.reduction.search import batches
from pibench.training.augment import generator
from pibench.training.distill import precision_of


@dataclass
class TaylorSearch(ClosingSearch):
    """The masks' search."""

    judged: int = 4096  # images that ReLUs are measured on

    def close(self, due: int) -> None:
        """Close the ReLUs of least importance."""
        if self.relus() <= due:
            return
        scores = {name: self._opened(name, score) for name, score in self.importance().items()}
        with torch.no_grad():
            for name, mask in keep_largest(scores, {n: g.shape for n, g in self.gates.items()}, due).items():
                gate = self.gates[name].gate
                gate.copy_(mask[tuple(slice(size) for size in gate.shape)])

    def importance(self) -> dict[str, Tensor]:
        """Return E[(g d)^2] for each ReLU of each gate, of the gates' shapes; also of what is closed."""
        s = self.setting
        sums = {name: torch.zeros_like(gate.gate) for name, gate in self.gates.items()}
        seen = 0
        with as_in_use(s.module):
            for images, _ in batches(s.data, s.recipe, self.epoch):
                for name, moved in self._moved(images, seen):
                    sums[name] += moved.square().sum(0) / self.gates[name].elements_a_gate
                if (seen := seen + len(images)) >= self.judged:
                    break
        return {name: total / seen for name, total in sums.items()}

    def describe(self) -> str:
        """Say how many ReLUs are left."""
        return f", {self.relus():,} ReLUs"

    def _moved(self, images: Tensor, number: int) -> Iterator[tuple[str, Tensor]]:
        """Yield g d of each site's gates for each image, (N, *gate.shape)."""
        recipe = self.setting.recipe
        with values(self.gates) as held, precision_of(recipe, images.device):
            logits = self.setting.module(images).float()
        rng = generator("answers", recipe.seed, self.epoch, number)
        drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=rng)
        likelihood = logits.log_softmax(1).gather(1, drawn).sum()
        gradients = torch.autograd.grad(likelihood, [output for _, output in held.values()])
        for (name, (value, _)), gradient in zip(held.items(), gradients, strict=True):
            moved = gradient.float() * value.float().clamp_max(0)
            yield name, moved.sum_to_size(len(value), *self.gates[name].gate.shape)

    def _opened(self, name: str, score: Tensor) -> Tensor:
        """Return scores with those of closed gates below all others."""
        return torch.where(self.gates[name].gate > 0.5, score, -1.0)


@contextmanager
def as_in_use(module: nn.Module) -> Iterator[None]:
    """Let a network compute as it will in use, and train on afterwards."""
    module.eval()
    try:
        yield
    finally:
        module.train()


@contextmanager
def values(gates: dict[str, GatedReLU]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Keep what went into and came out of each gate in the latest forward pass, by site."""
    held: dict[str, tuple[Tensor, Tensor]] = {}

    def keeper(name: str) -> object:
        def keep(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            held[name] = (inputs[0].detach(), output)

        return keep

    hooks = [gate.register_forward_hook(keeper(name)) for name, gate in gates.items()]  # type: ignore[arg-type]
    try:
        yield held
    finally:
        for hook in hooks:
            hook.remove()
