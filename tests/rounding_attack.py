"""What a client that follows the protocol may try on many runs of one image: find hidden ReLUs by their roundings.

A rounding that depends on numbers which the client sees correlates its logits with them: whether a hidden ReLU is
active is then no secret, the threshold is the hidden value's low bits, and least squares gives the next weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Seen = NDArray[np.float64]  # (numbers a ReLU, runs, ReLUs)


@dataclass
class Finding:
    """How well correlations tell active ReLUs from others, and how many stand out from chance."""

    auc: float
    error: float  # standard error of the AUC of a guess
    found: NDArray[np.int64]  # ReLUs that stand out


def correlate(seen: Seen, logits: Floats, active: NDArray[np.bool_]) -> Finding:
    """Correlate all numbers seen of each ReLU with all logits (runs, classes)."""
    runs = len(logits)
    z = logits - logits.mean(0)
    z /= z.std(0) + 1e-12
    u = seen - seen.mean(1, keepdims=True)
    u /= u.std(1, keepdims=True) + 1e-12
    strength = np.abs(np.einsum("fnr,nk->frk", u, z) / runs).max((0, 2))
    auc = (strength[active][:, None] > strength[~active][None]).mean()
    error = np.sqrt((len(active) + 1) / (12 * active.sum() * (~active).sum()))
    return Finding(float(auc), float(error), np.flatnonzero(strength > 5.5 / np.sqrt(runs)))


def recover(low: Floats, logits: Floats, found: NDArray[np.int64], sweeps: int = 4) -> tuple[Floats, NDArray[np.int64]]:
    """Fit a step at a threshold for every ReLU found; returns the steps' heights (classes, steps) and their ReLUs."""
    thresholds: dict[int, float] = {}
    active = list(found)
    for _ in range(sweeps):
        for i in active:
            rest = _rest(low, logits, {j: t for j, t in thresholds.items() if j != i})
            thresholds[i] = _threshold(low[:, i], rest)
        rest = _rest(low, logits, thresholds)
        u = (low - low.mean(0)) / low.std(0)
        strength = np.abs(u.T @ rest / len(rest) / (rest.std(0) + 1e-9)).max(1)
        active = list(thresholds) + [i for i in np.flatnonzero(strength > 5 / np.sqrt(len(low))) if i not in thresholds]
    return np.linalg.lstsq(_steps(low, thresholds), logits, rcond=None)[0][1:].T, np.array(list(thresholds), np.int64)


def _steps(low: Floats, thresholds: dict[int, float]) -> Floats:
    columns = [np.ones(len(low)), *[(low[:, j] < t).astype(np.float64) for j, t in thresholds.items()]]
    return np.column_stack(columns)


def _rest(low: Floats, logits: Floats, thresholds: dict[int, float]) -> Floats:
    """Return what the steps so far leave unexplained."""
    steps = _steps(low, thresholds)
    return logits - steps @ np.linalg.lstsq(steps, logits, rcond=None)[0]


def _threshold(low: Floats, rest: Floats) -> float:
    """Return where one step explains most of the rest."""
    order = np.argsort(low)
    sums, k = np.cumsum(rest[order], 0), np.arange(1, len(low))
    left, right = sums[:-1] / k[:, None], (sums[-1] - sums[:-1]) / (len(low) - k)[:, None]
    at = ((left - right) ** 2 * (k * (len(low) - k))[:, None]).sum(1).argmax()
    return float(low[order[at]] + low[order[at + 1]]) / 2
