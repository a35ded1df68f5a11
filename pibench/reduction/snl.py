"""SNL (Cho et al., ICML 2022): gates between ReLU and identity, driven to zero by L1, cut at a threshold.

1. Start from the trained network with every gate open (a = 1).
2. Minimise CE + T^2 KL to the teacher + lambda * sum |a| with Adam; lambda grows by a factor after every epoch in
   which the number of gates above the threshold did not fall fast enough.
3. Stop when that number meets the budget; keep exactly the budget's largest gates as a boolean mask.
4. Fine-tune the masked network under the teacher by the same loss without gates (the method's second task).

Loss, threshold, factor and start of lambda are those of the public code (confirmed): CE and T^2 KL at equal weights
(here 1/2 each, with half of lambda beside them, which Adam does not tell from the whole). This project's are:

* for searches of far fewer steps: gates take steps large enough to cross [0, 1] in them, lambda's factor spends the
  range of 200 epochs in as many as there are, and "fast enough" is the pace that meets the budget at the last epoch
  (the code asks for any new low, from the sixth epoch on);
* gates stay in [0, 1], and the budget is met exactly: of equal gates, at 0 or 1, those win that the optimizer wanted
  more open, summed over all steps (the code keeps what is above the threshold, which may be fewer);
* a stem's ReLU has gates too, where the card has one (the code's networks have none);
* fine-tuning takes three quarters of the card's epochs at a fifth of its rate (the code: 100 epochs at 0.001), both
  with a cosine to 0; with half the loss, a rate of SGD acts like half of it in the code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pibench.reduction.gates import keep_largest, open_gates
from pibench.reduction.search import Search, gate_parameters, weight_parameters
from pibench.training.recipe import Distillation

LONG = 200  # epochs in which the public code's growth of lambda was meant to act
ADAM_LR = 1e-3


@dataclass
class SnlSearch(Search):
    """The gates' search."""

    threshold: float = 1e-2
    strength: float = 1e-5  # lambda
    growth: float = 1.1
    lowest: int = -1
    wanted: dict[str, Tensor] = field(default_factory=dict)  # each gate as the optimizer left it, summed over steps

    def __post_init__(self) -> None:
        super().__post_init__()
        self.wanted = {name: torch.zeros_like(gate.gate, dtype=torch.float64) for name, gate in self.gates.items()}

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return Adam, the gates with a rate that can cross [0, 1] three times in half of all steps."""
        recipe = self.setting.recipe
        steps = recipe.epochs * max(1, len(self.setting.data.train_labels) // recipe.batch_size)
        groups = [
            {"params": weight_parameters(self.setting.module), "lr": ADAM_LR},
            {"params": gate_parameters(self.gates), "lr": max(ADAM_LR, min(0.05, 6 / steps))},
        ]
        return torch.optim.Adam(groups)

    def penalty(self) -> Tensor | float:
        """Return lambda times the sum of the gates, in ReLUs, at the weight of the cross-entropy."""
        how = self.setting.recipe.distillation or Distillation(weight=0.0)
        total = torch.stack([g.gate.abs().sum() * g.elements_a_gate for g in self.gates.values()]).sum()
        return (1 - how.weight) * self.strength * total

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the gates in [0, 1]; add up what they were before, which tells gates at the ends apart."""
        for name, gate in self.gates.items():
            self.wanted[name] += gate.gate
            gate.gate.clamp_(0.0, 1.0)

    def after_epoch(self) -> None:
        """Count; press harder where the count stalls; stop at the budget."""
        count = self.relus()
        factor = self.growth ** max(1.0, LONG / self.setting.recipe.epochs)
        fast_enough = self.lowest >= 0 and self.lowest - count >= self._due(count)
        if not fast_enough:
            self.strength *= factor
        self.lowest = count if self.lowest < 0 else min(self.lowest, count)
        self.done = count <= self.setting.budget

    def _due(self, count: int) -> float:
        """Return how many gates must close an epoch to meet the budget in the epochs that are left."""
        left = max(1, self.setting.recipe.epochs - self.epoch)
        return max(1.0, (count - self.setting.budget) / left)

    def masks(self) -> dict[str, Tensor]:
        """Return the masks of the largest gates, as many as the budget allows."""
        scores = {name: gate.gate.detach() for name, gate in self.gates.items()}
        shapes = {name: gate.shape for name, gate in self.gates.items()}
        return keep_largest(scores, shapes, self.setting.budget, self.wanted)

    def relus(self) -> int:
        """Return the ReLUs behind gates above the threshold."""
        return open_gates(self.gates, self.threshold)

    def numbers(self) -> dict[str, Any]:
        """Return lambda and the lowest count."""
        return {"strength": self.strength, "lowest": self.lowest}

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums over steps."""
        return self.wanted

    def describe(self) -> str:
        """Say how many gates are open."""
        return f", {self.lowest:,} of {self.setting.budget:,} ReLUs, lambda {self.strength:.2g}"
