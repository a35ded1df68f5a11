"""Gates: a ReLU site with one number in [0, 1] an element (or a channel) between the value itself and its ReLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from pibench.errors import UsageError
from pibench.networks.activations import MaskedQuadratic, MaskedReLU
from pibench.networks.build import replace, sites

Granularity = Literal["pixel", "channel"]


class GatedReLU(nn.Module):
    """y = a ReLU(x) + (1 - a) x, a gate for each element of one image, or for each channel."""

    def __init__(self, shape: tuple[int, ...], granularity: Granularity = "pixel") -> None:
        super().__init__()
        self.shape = shape
        size = shape if granularity == "pixel" else (shape[0], *[1] * (len(shape) - 1))
        self.gate = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Mix the value and its ReLU."""
        return x + self.gate * (torch.relu(x) - x)

    @property
    def elements_a_gate(self) -> int:
        """ReLUs of one image that one gate stands for."""
        return int(torch.Size(self.shape).numel() // self.gate.numel())


def install(module: nn.Module, granularity: Granularity) -> dict[str, GatedReLU]:
    """Put a gate, fully open, where the network has masked ReLUs; returns the gates by site."""
    gates: dict[str, GatedReLU] = {}
    for name, site in sites(module).items():
        if isinstance(site, MaskedReLU):
            gates[name] = GatedReLU(tuple(site.mask.shape), granularity)
            replace(module, name, gates[name])
    if not gates:
        raise UsageError("the network has no ReLU site that could be masked", remedy="start from a card with ReLUs")
    return gates


def restore(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Put masked ReLUs with these masks where the gates stand."""
    for name, mask in masks.items():
        site = MaskedReLU(tuple(mask.shape))
        site.mask.copy_(mask)
        replace(module, name, site)


def set_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Copy masks into a network's masked sites; every site needs one of its shape."""
    found = {n: s for n, s in sites(module).items() if isinstance(s, MaskedReLU | MaskedQuadratic)}
    if missing := sorted(found.keys() ^ masks.keys()):
        raise UsageError(f"masks and masked sites differ: {', '.join(missing[:5])}")
    for name, site in found.items():
        if masks[name].shape != site.mask.shape:
            raise UsageError(f"the mask of {name} has shape {tuple(masks[name].shape)}, not {tuple(site.mask.shape)}")
        site.mask.copy_(masks[name])


def open_gates(gates: Mapping[str, GatedReLU], threshold: float) -> int:
    """Return how many ReLUs of one image stand behind gates above the threshold."""
    return sum(int((gate.gate > threshold).sum()) * gate.elements_a_gate for gate in gates.values())


@torch.no_grad()
def keep_largest(
    scores: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    budget: int,
    ties: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the masks that keep the highest scores over all sites within the budget.

    A score stands for one element, or for a channel (its later dimensions are 1), whose elements stay together.
    Of equal scores the higher value in `ties` (of the scores' shapes) wins, and then the earlier position.
    """
    flat = torch.cat([score.flatten().double() for score in scores.values()])
    weights = torch.cat(
        [torch.full((s.numel(),), torch.Size(shapes[n]).numel() // s.numel()) for n, s in scores.items()]
    )
    order = torch.arange(len(flat))
    if ties is not None:
        order = torch.argsort(
            torch.cat([ties[name].flatten().double() for name in scores]), descending=True, stable=True
        )
    order = order[torch.argsort(flat[order], descending=True, stable=True)]
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[order] = weights[order].cumsum(0) <= budget
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return {
        name: part.reshape(score.shape).expand(shapes[name]).clone()
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }
