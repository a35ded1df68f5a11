"""Polynomials in place of ReLUs: which sites, and with which coefficients to start.

Sites lose their ReLUs as a whole (DELPHI's choice by layer), the least sensitive first, until the budget is met. Each
channel's polynomial starts as the least-squares fit of ReLU under a normal distribution with the mean u and the
standard deviation v that the channel has there (AutoReP's start, without the scaling factors of its code):

    c2 = phi(z) / (2 v),  c1 = Phi(z) - z phi(z),  c0 = (u^2 / v + v) phi(z) / 2,   z = u / v.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pibench.errors import UsageError
from pibench.networks.activations import Quadratic
from pibench.networks.build import sites
from pibench.training.data import Dataset, normalise

SAMPLE = 256  # images that the distributions are measured on
SMALLEST_SPREAD = 0.05


def choose_sites(sizes: Mapping[str, int], sensitivity: Mapping[str, float], budget: int) -> list[str]:
    """Return the sites that become polynomials: least sensitive first until at most `budget` ReLUs are left."""
    left, chosen = sum(sizes.values()), []
    for name in sorted(sizes, key=lambda site: (sensitivity[site], -sizes[site])):
        if left <= budget:
            break
        chosen.append(name)
        left -= sizes[name]
    if left > budget:
        raise UsageError(f"the budget of {budget:,} ReLUs is below zero")
    return chosen


def fit(mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return c2, c1, c0 of the least-squares parabola of ReLU for x ~ N(mean, spread^2).

    With Stein's lemma, f = E f + E f' (x - u) + E f'' ((x - u)^2 - v^2) / 2 is that parabola.
    """
    z = mean / spread
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    c2 = density / (2 * spread)
    c1 = below - z * density
    c0 = (mean * z + spread) * density / 2
    return c2, c1, c0


@torch.no_grad()
def start_coefficients(source: nn.Module, target: nn.Module, data: Dataset) -> None:
    """Set the polynomials of `target` from what the same sites of `source` (with ReLUs) see."""
    seen: dict[str, Tensor] = {}
    wanted = {name: site for name, site in sites(target).items() if isinstance(site, Quadratic)}
    handles = [
        source.get_submodule(name).register_forward_hook(lambda _m, i, _o, name=name: seen.__setitem__(name, i[0]))
        for name in wanted
    ]
    source.eval()
    source(normalise(data.train_images[:SAMPLE], data.mean, data.std))
    for handle in handles:
        handle.remove()
    for name, site in wanted.items():
        x = seen[name].transpose(0, 1).flatten(1)
        c2, c1, c0 = fit(x.mean(1), x.std(1).clamp(min=SMALLEST_SPREAD))
        site.c2.copy_(c2), site.c1.copy_(c1), site.c0.copy_(c0)
