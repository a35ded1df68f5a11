"""Networks as other people build them, ten kinds, small: structures that no card has, random weights and statistics.

Written from the papers' descriptions; each takes images of three channels, 16 pixels or more on a side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (3, 16, 16)
CLASSES = 10


def block(channels: int, filters: int, kernel: int = 3, *, act: nn.Module | None = None, **more: Any) -> nn.Sequential:
    """Return a convolution with its statistics and activation."""
    conv = nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False, **more)
    return nn.Sequential(conv, nn.BatchNorm2d(filters), nn.ReLU() if act is None else act)


def head(channels: int) -> nn.Sequential:
    """Return an average over what is left of the image, and a classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class Sum(nn.Module):
    """Branches that are added, with an activation behind the sum."""

    def __init__(self, *branches: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.branches, self.after = nn.ModuleList(branches), after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add the branches."""
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        out: Tensor = self.after(total)
        return out


class Join(nn.Module):
    """Branches whose channels are joined."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Join the branches."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class Shuffle(nn.Module):
    """ShuffleNet V2's unit: half of the channels go by, then all change places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        depthwise = nn.Sequential(nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half))
        self.worked = nn.Sequential(block(half, half, 1), depthwise, block(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Work on one half and mix both."""
        left, right = x.chunk(2, dim=1)
        y = torch.cat([left, self.worked(right)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Forked(nn.Module):
    """A plain network in functional style: pools of two kinds, a difference of branches, a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 5, padding=2), nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.fc1, self.fc2 = nn.Linear(8, 24), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = F.max_pool2d(F.leaky_relu(self.conv1(x), 0.1), 3, stride=2, padding=1)
        x = F.relu(self.conv2(x)) - F.avg_pool2d(x, 3, stride=1, padding=1)
        x = F.adaptive_max_pool2d(x, 1).flatten(1)
        out: Tensor = self.fc2(F.relu(self.fc1(x)))
        return out


def vgg() -> nn.Module:
    """Convolutions and maxima, two hidden layers (Simonyan and Zisserman, 2015)."""
    body = nn.Sequential(block(3, 8), block(8, 8), nn.MaxPool2d(2), block(8, 12), nn.MaxPool2d(2))
    last = nn.Sequential(nn.Linear(12 * 16, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, CLASSES))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(4), nn.Flatten(), last)


def preactivation() -> nn.Module:
    """Residual blocks with the activation first (He et al., 2016)."""

    def unit(c: int, f: int, stride: int) -> nn.Module:
        first = nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, f, 3, stride=stride, padding=1, bias=False))
        rest = nn.Sequential(nn.BatchNorm2d(f), nn.ReLU(), nn.Conv2d(f, f, 3, padding=1, bias=False))
        shortcut = nn.Conv2d(c, f, 1, stride=stride, bias=False) if stride > 1 else nn.Identity()
        return Sum(nn.Sequential(first, rest), shortcut)

    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), unit(8, 8, 1), unit(8, 12, 2))
    return nn.Sequential(body, nn.BatchNorm2d(12), nn.ReLU(), head(12))


def inverted() -> nn.Module:
    """Inverted residuals, depthwise, bounded by six (MobileNetV2, Sandler et al., 2018)."""

    def unit(c: int, f: int, stride: int) -> nn.Module:
        wide = 3 * c
        grow, keep = block(c, wide, 1, act=nn.ReLU6()), block(wide, wide, stride=stride, groups=wide, act=nn.ReLU6())
        inner = nn.Sequential(grow, keep, nn.Conv2d(wide, f, 1, bias=False), nn.BatchNorm2d(f))
        return Sum(inner, nn.Identity()) if stride == 1 and c == f else inner

    return nn.Sequential(block(3, 8, stride=2, act=nn.ReLU6()), unit(8, 8, 1), unit(8, 12, 2), head(12))


def squeezed() -> nn.Module:
    """Squeeze and expand by joined convolutions (SqueezeNet, Iandola et al., 2016)."""

    def fire(c: int, s: int, e: int) -> nn.Module:
        squeeze = nn.Sequential(nn.Conv2d(c, s, 1), nn.ReLU())
        grown = [nn.Sequential(nn.Conv2d(s, e, k, padding=k // 2), nn.ReLU()) for k in (1, 3)]
        return nn.Sequential(squeeze, Join(*grown))

    pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    last = nn.Sequential(nn.Conv2d(16, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), pool, fire(8, 4, 8), fire(16, 4, 8), last)


def dense() -> nn.Module:
    """Every layer joined to what went in (DenseNet, Huang et al., 2017)."""

    def layer(c: int) -> nn.Module:
        made = nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 4, 3, padding=1, bias=False))
        return Join(nn.Identity(), made)

    halve = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2))
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), layer(8), layer(12), halve, layer(8))
    return nn.Sequential(body, nn.BatchNorm2d(12), nn.ReLU(), head(12))


def shuffled() -> nn.Module:
    """Channels split, worked on, joined and shuffled (ShuffleNet V2, Ma et al., 2018)."""
    return nn.Sequential(block(3, 8, stride=2), Shuffle(8), Shuffle(8), head(8))


def grouped() -> nn.Module:
    """Bottlenecks of grouped convolutions (ResNeXt, Xie et al., 2017)."""

    def unit(c: int) -> nn.Module:
        inner = nn.Sequential(block(c, c, 1), block(c, c, groups=4), nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))
        return Sum(inner, nn.Identity(), after=nn.ReLU())

    return nn.Sequential(block(3, 16, stride=2), unit(16), unit(16), head(16))


def inception() -> nn.Module:
    """Four branches of different reach, one of them a maximum (Szegedy et al., 2015)."""
    pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), block(8, 4, 1))
    deep = nn.Sequential(block(8, 4, 1), block(4, 4, 5))
    mixed = Join(block(8, 4, 1), nn.Sequential(block(8, 4, 1), block(4, 4)), deep, pooled)
    return nn.Sequential(block(3, 8, stride=2), mixed, nn.AvgPool2d(2), head(16))


def parallel() -> nn.Module:
    """Three linear branches under one activation (RepVGG, Ding et al., 2021), with learnt slopes."""

    def unit(c: int, slope: float) -> nn.Module:
        wide = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c))
        narrow = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))
        return Sum(wide, narrow, nn.BatchNorm2d(c), after=nn.PReLU(c, init=slope))

    return nn.Sequential(block(3, 8, stride=2), unit(8, 0.25), unit(8, 0.1), head(8))


KINDS: dict[str, Callable[[], nn.Module]] = {
    made.__name__: made
    for made in (vgg, preactivation, inverted, squeezed, dense, shuffled, grouped, inception, parallel)
} | {"forked": Forked}


def network(kind: str) -> nn.Module:
    """Return a network of a kind, alike in every process, with statistics as if it had been trained."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        made = KINDS[kind]()
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0.0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0.0, 0.1)
    return made.eval()
