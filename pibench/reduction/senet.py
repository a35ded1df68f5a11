"""SENet (Kundu et al., ICLR 2023), reconstructed: sensitivities, layer budgets, a mask for each layer.

1. Pruning sensitivity of a layer: the share of its weights that survive when only the `density` most salient of all
   weights stay, saliency being |w dL/dw| at the trained network. ReLU sensitivity is the complement: a layer that
   may lose few weights may lose many ReLUs.
2. The budget is shared out in proportion to ReLU sensitivity, no layer above what it has; the rest goes round again.
   Or the stages' shares are given: those that the authors' later code has for ResNet18 at 49,971 ReLUs are 16 % to the
   stem and S1, 13, 33 and 38 % to S2, S3 and S4 (confirmed); it spends far more on late stages than 1 finds.
3. Masks: while the weights train under the teacher, every layer keeps the elements whose gates have the largest
   mean |dL/da|, their number falling from all of them to the layer's budget.
4. Fine-tuning adds the mismatch of activations after the sites (matching.py).

No official code was found; 1 and 3 follow re-implementations, the schedule of 3 is this project's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pibench.errors import UsageError
from pibench.networks.build import stage_of
from pibench.reduction.gates import keep_largest, open_gates
from pibench.reduction.search import Search, batches, weight_parameters
from pibench.training.convolutions import trained_convolutions
from pibench.training.data import Dataset
from pibench.training.recipe import Recipe

SALIENCY_BATCHES = 8


def relu_sensitivity(
    module: nn.Module, sites: Sequence[str], data: Dataset, recipe: Recipe, density: float
) -> dict[str, float]:
    """Return how much each site's ReLUs matter: 1 minus the surviving share of weights of the layer before it."""
    saliency = _saliency(module, data, recipe)
    owners = _layer_before(module, sites, data)
    everything = torch.cat([score.flatten() for score in saliency.values()])
    kept = max(1, int(density * everything.numel()))
    bar = everything.kthvalue(everything.numel() - kept + 1).values
    survivors = {name: float((score >= bar).float().mean()) for name, score in saliency.items()}
    return {site: 1.0 - survivors[owner] for site, owner in owners.items()}


def share_out(sizes: Mapping[str, int], sensitivity: Mapping[str, float], budget: int) -> dict[str, int]:
    """Return each layer's budget: proportional to its sensitivity, at most its size, the sum exactly the budget."""
    budget = min(budget, sum(sizes.values()))
    given = dict.fromkeys(sizes, 0)
    while (left := budget - sum(given.values())) > 0:
        room = {name for name in sizes if given[name] < sizes[name]}
        total = sum(max(sensitivity[name], 1e-6) for name in room)
        parts = {name: int(left * max(sensitivity[name], 1e-6) / total) for name in room}
        if not any(parts.values()):  # fewer left than layers: one each, the most sensitive first
            first = sorted(room, key=lambda name: -sensitivity[name])[:left]
            parts = dict.fromkeys(first, 1)
        for name, part in parts.items():
            given[name] = min(sizes[name], given[name] + part)
    return given


def share_by_stage(
    sizes: Mapping[str, int], sensitivity: Mapping[str, float], budget: int, shares: Sequence[float]
) -> dict[str, int]:
    """Return each layer's budget: of its stage's share (S1 with the stem, then S2..) by sensitivity within the stage.

    A stage that has fewer ReLUs than its share leaves the rest to the others.
    """
    stages: dict[str, list[str]] = {}
    for name in sizes:
        stages.setdefault("S1" if (stage := stage_of(name)) == "stem" else stage, []).append(name)
    if sorted(stages) != [f"S{number}" for number in range(1, len(shares) + 1)]:
        remedy = "give one share for each stage that has ReLUs, the stem's within the first"
        raise UsageError(f"{len(shares)} shares do not fit the stages {', '.join(sorted(stages))}", remedy=remedy)
    whole = {stage: sum(sizes[name] for name in names) for stage, names in stages.items()}
    given = share_out(whole, {f"S{number}": share for number, share in enumerate(shares, start=1)}, budget)
    parts = [share_out({n: sizes[n] for n in names}, sensitivity, given[stage]) for stage, names in stages.items()]
    return {name: count for part in parts for name, count in part.items()}


@dataclass
class SenetSearch(Search):
    """The masks' search; the gates are 0 or 1 and their gradients the scores."""

    density: float = 0.1
    shares: Sequence[float] = ()  # of the stages, where they are given
    sensitivity: dict[str, float] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)
    budgets: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        s = self.setting
        self.sensitivity = relu_sensitivity(s.module, list(self.gates), s.data, s.recipe, self.density)
        sizes = {name: int(torch.Size(gate.shape).numel()) for name, gate in self.gates.items()}
        if self.shares:
            self.budgets = share_by_stage(sizes, self.sensitivity, s.budget, self.shares)
        else:
            self.budgets = share_out(sizes, self.sensitivity, s.budget)
        self._forget()

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return SGD on the weights; gates only collect gradients."""
        recipe = self.setting.recipe
        return torch.optim.SGD(
            weight_parameters(self.setting.module), recipe.lr * 0.1, recipe.momentum, weight_decay=recipe.weight_decay
        )

    def after_step(self) -> None:
        """Add the gates' gradients to the scores."""
        for name, gate in self.gates.items():
            assert gate.gate.grad is not None
            self.scores[name] += gate.gate.grad.abs()
            gate.gate.grad = None

    def after_epoch(self) -> None:
        """Close the gates that matter least, down to this epoch's number."""
        left = (1 - self.epoch / self.setting.recipe.epochs) ** 3
        budgets = {
            name: round(budget + (torch.Size(self.gates[name].shape).numel() - budget) * left)
            for name, budget in self.budgets.items()
        }
        self._set(self._top(budgets))
        if self.epoch < self.setting.recipe.epochs:
            self._forget()

    def masks(self) -> dict[str, Tensor]:
        """Return the gates as they stand after the last epoch."""
        return {n: (g.gate.detach() > 0.5).expand(g.shape).clone() for n, g in self.gates.items()}

    def relus(self) -> int:
        """Return the ReLUs behind gates at 1."""
        return open_gates(self.gates, 0.5)

    def numbers(self) -> dict[str, Any]:
        """Return what was shared out."""
        return {"sensitivity": self.sensitivity, "budgets": self.budgets}

    def describe(self) -> str:
        """Say how many ReLUs are left."""
        return f", {self.relus():,} ReLUs"

    def _top(self, budgets: Mapping[str, int]) -> dict[str, Tensor]:
        masks: dict[str, Tensor] = {}
        for name, gate in self.gates.items():
            masks |= keep_largest({name: self.scores[name]}, {name: gate.shape}, budgets[name])
        return masks

    @torch.no_grad()
    def _set(self, masks: Mapping[str, Tensor]) -> None:
        for name, gate in self.gates.items():
            per_channel = gate.gate.numel() < masks[name].numel()
            chosen = masks[name].flatten(1)[:, :1] if per_channel else masks[name]
            gate.gate.copy_(chosen.reshape(gate.gate.shape).float())

    def _forget(self) -> None:
        self.scores = {name: torch.zeros_like(gate.gate) for name, gate in self.gates.items()}


def _saliency(module: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, Tensor]:
    """Return |w dL/dw| of every convolution and linear layer's weights, over a few batches, in inference mode."""
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    module.eval()
    module.zero_grad()
    for number, (images, labels) in enumerate(batches(data, recipe, 0)):
        if number == SALIENCY_BATCHES:
            break
        with trained_convolutions(module):
            logits = module(images)
        functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
    found = {n: (m.weight * m.weight.grad).abs().detach() for n, m in layers.items() if m.weight.grad is not None}
    module.zero_grad()
    return found


@torch.no_grad()
def _layer_before(module: nn.Module, sites: Sequence[str], data: Dataset) -> dict[str, str]:
    """Return the convolution or linear layer that ran last before each site."""
    last, handles = [""], []
    owners: dict[str, str] = {}
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d | nn.Linear) and "shortcut" not in name:
            handles.append(child.register_forward_hook(lambda _m, _i, _o, name=name: last.__setitem__(0, name)))
        elif name in sites:
            handles.append(child.register_forward_hook(lambda _m, _i, _o, name=name: owners.__setitem__(name, last[0])))
    module.eval()
    shape = data.train_images.shape[1:]
    module(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return owners
