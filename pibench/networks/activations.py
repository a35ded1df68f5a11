"""What may stand at a ReLU site beside nn.ReLU and nn.Identity."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaskedReLU(nn.Module):
    """ReLU where the public mask is true, the value itself elsewhere; all true at first."""

    mask: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(shape, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mask's choice."""
        return torch.where(self.mask, torch.relu(x), x)


class Quadratic(nn.Module):
    """c2 x^2 + c1 x + c0 with learned coefficients a channel, from the least-squares fit of ReLU on N(0, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c2 = nn.Parameter(torch.full((channels,), 0.19947))
        self.c1 = nn.Parameter(torch.full((channels,), 0.5))
        self.c0 = nn.Parameter(torch.full((channels,), 0.19947))

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the polynomial of each channel."""
        c2, c1, c0 = (c.reshape(-1, *[1] * (x.dim() - 2)) for c in (self.c2, self.c1, self.c0))
        return (c2 * x + c1) * x + c0


class MaskedQuadratic(nn.Module):
    """ReLU where the public mask is true, a learned polynomial of the channel elsewhere (AutoReP)."""

    mask: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(shape, dtype=torch.bool))
        self.quadratic = Quadratic(shape[0])

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mask's choice."""
        return torch.where(self.mask, torch.relu(x), self.quadratic(x))


class ReusedReLU(nn.Module):
    """ReLU on 1/factor of the channels, whose features the next as many channels reuse; the rest pass as they are.

    DeepReShape's ReLU-reuse keeps three parts whatever the factor; that the second part adds the features to its own
    is an interpretation, for the wiring could not be read. The count (C H W / factor) is not in doubt.
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.active = max(1, channels // factor)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the ReLU to its part, and hand its features on."""
        n = self.active
        features = self.relu(x[:, :n])
        return torch.cat([features, x[:, n : 2 * n] + features, x[:, 2 * n :]], 1)


ACTIVATIONS = (nn.ReLU, MaskedReLU, Quadratic, MaskedQuadratic)
