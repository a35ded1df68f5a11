"""DeepReShape's three ways to widen a network: BaseCh (all alike), StageCh (one multiplier), HybReNet (their own)."""

from __future__ import annotations

from collections.abc import Sequence

from pibench.errors import UsageError
from pibench.networks.spec import AnyNetwork, ResNetSpec
from pibench.reduction.steps import changed

STAGECH_WIDTH = 16  # base width of the paper's StageCh and HybReNet networks, as remembered


def residual(spec: AnyNetwork) -> ResNetSpec:
    """Return the description if it is a residual network's; raises UsageError otherwise."""
    if isinstance(spec, ResNetSpec):
        return spec
    raise UsageError(f"DeepReShape reshapes residual networks, not the family '{spec.family}'")


def basech(spec: ResNetSpec, width: int) -> ResNetSpec:
    """Scale the base width; multipliers, and with them the stages' shares of the ReLUs, stay."""
    return changed(spec, base_width=width)


def stagech(spec: ResNetSpec, multiplier: int, width: int = STAGECH_WIDTH) -> ResNetSpec:
    """Use one multiplier between all stages."""
    return changed(spec, base_width=width, multipliers=[multiplier] * (spec.stage_count - 1))


def hybrenet(spec: ResNetSpec, multipliers: Sequence[int], width: int = STAGECH_WIDTH) -> ResNetSpec:
    """Use a multiplier of its own between each two stages."""
    return changed(spec, base_width=width, multipliers=list(multipliers))


def name_of(multipliers: Sequence[int]) -> str:
    """Return the paper's name of a HybReNet's multipliers, such as 5x5x3x."""
    return "".join(f"{multiplier}x" for multiplier in multipliers)
