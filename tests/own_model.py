"""A user's own network, for `pibench run --model own_model:tiny`."""

from __future__ import annotations

from torch import nn


def tiny() -> nn.Module:
    """Make a network small enough for tests."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(8, 10)
    )


def nothing() -> int:
    """Make something that is no network."""
    return 3
