"""Tiny networks that together use every operation, lowered with fixed weights; shared by the protocols' tests."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pibench.lowering.lower import lower
from pibench.lowering.program import Program, Weights
from pibench.networks.activations import MaskedReLU, Quadratic

SHAPE = (3, 8, 8)


def masked(shape: tuple[int, ...], keep: float = 0.5) -> MaskedReLU:
    """Return a masked ReLU that keeps about this share of its sites."""
    module = MaskedReLU(shape)
    module.mask.copy_(torch.rand(shape) < keep)
    return module


class Residual(nn.Module):
    """Two convolutions, a strided convolution as shortcut, an average and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.conv2, self.shortcut = nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Conv2d(4, 6, 1, stride=2)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.conv2(x) + self.shortcut(x))
        return self.linear(self.pool(x).flatten(1))


class Culled(nn.Module):
    """A stage without ReLUs, then a strided block with one and a shortcut that must not run out of ring bits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.down, self.relu1, self.conv3 = nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 1)
        self.shortcut, self.conv4, self.relu2 = nn.Conv2d(4, 6, 1, stride=2), nn.Conv2d(6, 3, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return an image-shaped value."""
        x = self.stem(x)
        x = x + self.conv2(self.conv1(x))
        x = self.conv3(self.relu1(self.down(x))) + self.shortcut(x)
        return self.relu2(self.conv4(x))


class OptionA(nn.Module):
    """A shortcut by slice and padding, channels cut and joined, no ReLU at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return an image-shaped value."""
        y = self.conv(x).relu() + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        return torch.cat([y[:, 2:], y[:, :2]], 1)


class Shuffled(nn.Module):
    """Channels that change places, padding on two sides, a difference of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return an image-shaped value."""
        y = self.conv1(x).relu()
        y = y.view(len(x), 2, 3, *y.shape[2:]).transpose(1, 2).reshape(y.shape)
        return self.conv2(F.pad(y, (0, 1, 0, 1))) - F.avg_pool2d(y, 2)


class Bounded(nn.Module):
    """A ReLU6 and a leaky ReLU, a maximum over windows that leave the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return an image-shaped value."""
        y = F.leaky_relu(self.conv2(F.relu6(8 * self.conv1(x))), 0.1)
        return F.max_pool2d(y, 3, 2, ceil_mode=True)


def _networks() -> dict[str, nn.Module]:
    return {
        "residual": Residual(),
        "option a": OptionA(),
        "culled": Culled(),
        "masked": nn.Sequential(nn.Conv2d(3, 4, 3), masked((4, 6, 6)), nn.Flatten(), nn.Linear(144, 5)),
        "poly": nn.Sequential(nn.Conv2d(3, 4, 3), Quadratic(4), nn.AvgPool2d(3, padding=1), nn.Flatten()),
        "max pool": nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, padding=1), nn.MaxPool2d(2)),
        "shuffled": Shuffled(),
        "bounded": Bounded(),
        "grouped": nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, padding=2, dilation=2), nn.ReLU(), nn.BatchNorm2d(6)),
    }


def everything() -> list[str]:
    """Return the names of the networks."""
    return list(_networks())


@cache
def program_of(name: str) -> tuple[Program, Weights]:
    """Return a network lowered, with the same weights in every process."""
    torch.manual_seed(7)
    return lower(_networks()[name], SHAPE)
