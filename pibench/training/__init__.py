"""How a card becomes a checkpoint: data sets, recipes, training, distillation. Nothing here is heavy to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pibench.kernelcache import settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pibench.networks.card import Card

settle()  # before anything below imports numba


def ensure_trained(card: Card, tell: Callable[[str], None] = lambda _: None) -> Path | None:
    """Return a card's checkpoint, trained now where that takes seconds; None where there is none."""
    from pibench.training.find_checkpoint import ensure_trained as ensure

    return ensure(card, tell)
