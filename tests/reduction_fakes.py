"""A tiny network, tiny data and a tiny study for the tests of reduction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pibench.networks.card import Card, load_card
from pibench.networks.spec import ResNetSpec
from pibench.reduction.study import Study
from pibench.training.data import Dataset

CARD = """\
name: little
title: Little residual network
method: full
dataset: digits
network: {family: resnet, base_width: 4, multipliers: [2], blocks: [1, 1], classes: 10, input: [1, 8, 8]}
relu_count: 1024
provenance: confirmed
recipe: {epochs: 1, batch_size: 128, crop: 1, flip: false, lr: 0.1}
"""


def little(**fields: Any) -> ResNetSpec:
    """Return the network's description, some fields replaced."""
    known: dict[str, Any] = {
        "family": "resnet", "base_width": 4, "multipliers": [2], "blocks": [1, 1], "classes": 10, "input": [1, 8, 8],
    }  # fmt: skip
    return ResNetSpec.model_validate({**known, **fields})


def little_card(folder: Path) -> Card:
    """Write the card and load it."""
    path = folder / "little.yaml"
    path.write_text(CARD, encoding="utf-8")
    return load_card(path)


def little_study(folder: Path, *budgets: int, **fields: Any) -> Study:
    """Return a study of the card."""
    return Study(little_card(folder), budgets or (512, 102), **fields)


def noise(count: int = 128) -> Dataset:
    """Return random images with labels that depend on them."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = images[:, 0, 0, 0].long() % 10
    return Dataset("digits", images, labels, images[:32], labels[:32], (0.5,), (0.25,), 10)
