"""ReLU criticality: how much accuracy a stage's ReLUs buy by themselves, for their number (DeepReDuce, step 1).

The form C_k = (Acc(S_k) - Acc(S_min)) / #ReLU(S_k)^w with w = 0.07 is reconstructed: the exponent and the reference
term could not be checked against the paper. Both are parameters here.
"""

from __future__ import annotations

from collections.abc import Mapping

EXPONENT = 0.07


def criticality(
    accuracy: Mapping[int, float], relus: Mapping[int, int], exponent: float = EXPONENT, reference: float | None = None
) -> dict[int, float]:
    """Return C_k of every stage, from the accuracy with the ReLUs of one stage alone and their number.

    `reference` is subtracted from each accuracy; by default it is the worst stage's, which then scores 0.
    """
    floor = min(accuracy.values()) if reference is None else reference
    return {stage: (accuracy[stage] - floor) / max(relus[stage], 1) ** exponent for stage in sorted(accuracy)}


def order(scores: Mapping[int, float], relus: Mapping[int, int]) -> list[int]:
    """Return the stages, most critical first; of equals, the one with more ReLUs counts as less critical."""
    return sorted(scores, key=lambda stage: (-scores[stage], relus[stage], -stage))
