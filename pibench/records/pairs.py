"""Statistics of pairs: sessions that ran side by side, inference by inference in turn (`pibench ab`).

What disturbs the machine for longer than one inference falls on both of two inferences that followed each other, so
their ratio is what is looked at. A pair of sessions gives one number, the mean of the middle of its log ratios; the
pairs' numbers give the estimate and the interval that belong to the signed-rank test. Medians would do at both places,
but throw a third of the sample away: docs/statistics.md has the figures.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from pibench.records.stats import LEVEL, RESAMPLES, Array, Estimate, Sessions

TRIMMED = 0.2  # of a pair's log ratios, at either end: a process that was stopped for a moment decides nothing


def paired_ratio(base: Sessions, head: Sessions, seed: int = 0, level: float = LEVEL) -> Estimate:
    """Return head / base over all pairs (Hodges and Lehmann's estimate) with the interval of the signed-rank test.

    Below six pairs no such interval has 95 %: pairs, then inferences, are resampled instead.
    """
    matched = _matched(base, head)
    if not matched:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, level)
    averages = walsh_averages(log_ratios(base, head))
    cut = _outside(len(matched), level)
    low, high = (averages[cut - 1], averages[-cut]) if cut else _resampled(matched, seed, level)
    point, n = math.exp(float(np.median(averages))), 2 * sum(map(len, matched))
    return Estimate(point, math.exp(low), math.exp(high), len(matched), n, level)


def log_ratios(base: Sessions, head: Sessions) -> Array:
    """Return one number a pair of sessions: the middle mean of log(head / base) over matched inferences."""
    return np.array([middle_mean(pair) for pair in _matched(base, head)], dtype=np.float64)


def middle_mean(values: Array) -> float:
    """Return the mean of the middle three fifths (of few values: of the one or two in the middle)."""
    cut = min(math.ceil(TRIMMED * values.size), (values.size - 1) // 2)
    return float(np.sort(values)[cut : values.size - cut].mean())


def walsh_averages(values: Array) -> Array:
    """Return the means of all pairs of values, each with itself too, in order: the signed-rank test's own sample."""
    one, other = np.triu_indices(values.size)
    return np.asarray(np.sort((values[one] + values[other]) / 2), dtype=np.float64)


@cache
def _outside(n: int, level: float) -> int:
    """Return which Walsh average, counted from either end, bounds an interval of at least this level; 0: none does."""
    weights = np.zeros(n * (n + 1) // 2 + 1)
    weights[0] = 1.0
    for rank in range(1, n + 1):
        weights[rank:] += weights[: weights.size - rank].copy()
    return int(np.searchsorted(np.cumsum(weights) / weights.sum(), (1 - level) / 2, side="right"))


def _resampled(matched: list[Array], seed: int, level: float) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(RESAMPLES // 4):
        chosen = [matched[i] for i in rng.integers(len(matched), size=len(matched))]
        draws.append(np.median([middle_mean(rng.choice(pair, pair.size)) for pair in chosen]))
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    return float(low), float(high)


def _matched(base: Sessions, head: Sessions) -> list[Array]:
    """Return log(head / base) of the i-th inferences of each pair of sessions."""
    pairs = [(b, h) for b, h in zip(base, head, strict=True) if len(b) and len(h)]
    return [np.array([math.log(after / before) for before, after in zip(b, h, strict=False)]) for b, h in pairs]
