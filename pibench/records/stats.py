"""Statistics of sessions: pure functions on arrays; an `Estimate` is the only way in which a number leaves them.

The unit of independence is the session (a fresh set of processes): inferences inside one share memory layout, core
placement and neighbours, and resampling them alone makes intervals several times too narrow. Everything here takes
`sessions: list[list[float]]`, reduces a session to its median, and resamples sessions first, inferences second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Sessions = Sequence[Sequence[float]]
Array = NDArray[np.float64]

RESAMPLES = 4000
LEVEL = 0.95
EXACT_UP_TO = 120  # sessions, both sides together; beyond, the normal approximation is within a tenth of p


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and the sample that it rests on."""

    point: float
    low: float
    high: float
    n_sessions: int
    n: int  # inferences, all sessions together
    level: float = LEVEL

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width as a share of the point: what `--precision` bounds."""
        return (self.high - self.low) / 2 / abs(self.point) if self.point else math.inf


@dataclass(frozen=True)
class Test:
    """Outcome of an exact test: two-sided p, and the smallest p that these sample sizes can ever give."""

    __test__ = False  # not a test class of pytest

    p: float
    smallest_p: float


def session_medians(sessions: Sessions) -> Array:
    """Return one number a session; empty sessions have none and are left out."""
    return np.array([np.median(session) for session in sessions if len(session)], dtype=np.float64)


def median_interval(sessions: Sessions, seed: int = 0, level: float = LEVEL) -> Estimate:
    """Return the median of the sessions' medians with its bootstrap percentile interval.

    With one session only its inferences can be resampled: the interval then says nothing about other sessions.
    """
    kept = [session for session in sessions if len(session)]
    if not kept:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, level)
    draws = np.median(_two_level(kept, np.random.default_rng(seed)), axis=1)
    low, high = _percentiles(draws, level)
    return Estimate(float(np.median(session_medians(kept))), low, high, len(kept), sum(map(len, kept)), level)


def ratio_of_medians(base: Sessions, head: Sessions, seed: int = 0, level: float = LEVEL) -> Estimate:
    """Return median(head) / median(base) with its bootstrap interval; the two samples are independent."""
    base, head = [s for s in base if len(s)], [s for s in head if len(s)]
    if not base or not head:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, level)
    rng = np.random.default_rng(seed)
    draws = np.median(_two_level(head, rng), axis=1) / np.median(_two_level(base, rng), axis=1)
    low, high = _percentiles(draws, level)
    point = float(np.median(session_medians(head)) / np.median(session_medians(base)))
    return Estimate(point, low, high, min(len(base), len(head)), sum(map(len, base)) + sum(map(len, head)), level)


def mann_whitney_exact(a: Sequence[float], b: Sequence[float]) -> Test:
    """Return the exact two-sided Mann-Whitney test of two independent samples (one number a session).

    Exact with ties too: the permutation distribution of the sum of mid-ranks, counted by dynamic programming.
    """
    n, m = len(a), len(b)
    if not n or not m:
        return Test(1.0, 1.0)
    ranks = doubled_ranks([*a, *b])
    if n + m > EXACT_UP_TO:
        return Test(_normal_p(ranks, n), smallest_p_mann_whitney(n, m))
    weights = _subset_sums(ranks, n)
    observed, centre = int(ranks[:n].sum()), n * (n + m + 1)  # of doubled ranks
    far = np.abs(np.arange(weights.size) - centre) >= abs(observed - centre)
    return Test(min(1.0, float(weights[far].sum() / weights.sum())), smallest_p_mann_whitney(n, m))


def signed_rank_exact(differences: Sequence[float]) -> Test:
    """Return the exact two-sided Wilcoxon signed-rank test of paired differences (zeros carry no sign: left out)."""
    values = np.array([d for d in differences if d != 0.0], dtype=np.float64)
    if not values.size:
        return Test(1.0, 1.0)
    ranks = doubled_ranks(np.abs(values))
    weights = np.zeros(int(ranks.sum()) + 1)
    weights[0] = 1.0
    for rank in ranks:
        weights[rank:] += weights[: weights.size - rank].copy()
    observed, centre = int(ranks[values > 0].sum()), ranks.sum() / 2
    far = np.abs(np.arange(weights.size) - centre) >= abs(observed - centre)
    return Test(min(1.0, float(weights[far].sum() / weights.sum())), smallest_p_signed_rank(values.size))


def smallest_p_mann_whitney(n: int, m: int) -> float:
    """Return the smallest two-sided p that `n` against `m` sessions can give, however far apart they are."""
    if not n or not m:
        return 1.0
    ways = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
    return min(1.0, 2.0 * math.exp(-ways))


def smallest_p_signed_rank(n: int) -> float:
    """Return the smallest two-sided p that `n` pairs can give."""
    return 2.0 ** (1 - n) if n else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values, in the order given."""
    adjusted, running = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        running = max(running, (len(ps) - place) * ps[index])
        adjusted[index] = min(1.0, running)
    return adjusted


def doubled_ranks(values: Sequence[float] | Array) -> NDArray[np.int64]:
    """Return twice the mid-ranks (integers even with ties)."""
    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((2 * ends - counts + 1)[inverse], dtype=np.int64)


def _normal_p(ranks: NDArray[np.int64], n: int) -> float:
    """Return the rank sum's two-sided p by the normal approximation (ties are in the ranks' variance)."""
    m = ranks.size - n
    spread = math.sqrt(n * m / ranks.size * float(np.var(ranks, ddof=1)))
    far = abs(float(ranks[:n].sum()) - n * (ranks.size + 1)) - 1.0  # continuity: half a rank, doubled
    return math.erfc(max(0.0, far) / spread / math.sqrt(2.0)) if spread else 1.0


def _subset_sums(ranks: NDArray[np.int64], size: int) -> Array:
    """Return, for each sum, how many subsets of `size` ranks have it (float64: counts beyond 2^53 lose no p-value)."""
    counts = np.zeros((size + 1, int(ranks.sum()) + 1))
    counts[0, 0] = 1.0
    for rank in ranks:
        counts[1:, rank:] += counts[:-1, : counts.shape[1] - rank].copy()
    return np.asarray(counts[size])


def _two_level(sessions: Sessions, rng: np.random.Generator) -> Array:
    chosen = rng.integers(len(sessions), size=(RESAMPLES, len(sessions)))
    return _within(sessions, chosen, rng)


def _within(sessions: Sessions, chosen: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Return, for each chosen session, the median of a resample of its own inferences."""
    medians = np.empty(chosen.shape)
    for index, session in enumerate(sessions):
        values, where = np.asarray(session, dtype=np.float64), chosen == index
        picks = rng.integers(values.size, size=(int(where.sum()), values.size))
        medians[where] = np.median(values[picks], axis=1)
    return medians


def _percentiles(draws: Array, level: float) -> tuple[float, float]:
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    return float(low), float(high)


def student(level: float, degrees: int) -> float:
    """Return how many standard errors a two-sided interval of that level reaches, by Student's distribution."""
    from scipy.special import stdtrit  # 10x faster to import than scipy.stats

    return float(stdtrit(degrees, 0.5 + level / 2))
