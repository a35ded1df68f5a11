"""What a sample can see: the smallest slowdown that it would find, and how many sessions another would take.

A verdict "no change" from a sample that could never have shown one is the commonest lie of benchmarks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pibench.records.pairs import log_ratios
from pibench.records.stats import (
    LEVEL,
    Array,
    Sessions,
    session_medians,
    smallest_p_mann_whitney,
    smallest_p_signed_rank,
    student,
)
from pibench.records.warmup import MAD_TO_SIGMA

POWER = 0.9  # a slowdown is "seen" when it would be found so often
MOST_SESSIONS = 10_000
MEDIAN_SD = math.sqrt(math.pi / 2)  # spread of a median, in spreads of a mean, for a normal sample
RANK_SD = math.sqrt(math.pi / 3)  # the same for a rank test's implied shift


@dataclass(frozen=True)
class Rule:
    """When a slowdown is called one: interval wholly above 1 + tolerance, and p (after Holm) below alpha."""

    tolerance: float = 0.01
    alpha: float = 0.01
    level: float = LEVEL


@dataclass(frozen=True)
class Power:
    """What one comparison can see: `sees` is a relative slowdown (inf: none, whatever its size)."""

    sees: float
    sessions: int  # a side, as measured
    sessions_needed: int  # a side, to see `target`
    target: float

    @property
    def enough(self) -> bool:
        """Whether the target would be found."""
        return self.sees <= self.target

    def sentence(self) -> str:
        """Return the word that a verdict needs when the sample is too small; "" when it is not."""
        if self.enough:
            return ""
        sees = "no slowdown of any size" if math.isinf(self.sees) else f"slowdowns from {self.sees:.1%} on"
        need = f"{self.sessions_needed}" if self.sessions_needed < MOST_SESSIONS else f"over {MOST_SESSIONS}"
        least = "at least " if self.sessions < 2 else ""
        side = "1 session a side sees" if self.sessions == 1 else f"{self.sessions} sessions a side see"
        return f"{side} {sees}; seeing {self.target:.1%} takes {least}{need}"


def spread_independent(base: Sessions, head: Sessions) -> float:
    """Return the sessions' spread (standard deviation of log medians, robust), pooled over both sides."""
    logs = [np.log(session_medians(side)) for side in (base, head)]
    return _robust_sd(np.concatenate([side - np.median(side) for side in logs if side.size]), lost=2)


def spread_paired(base: Sessions, head: Sessions) -> float:
    """Return the spread of the pairs' log ratios."""
    ratios = log_ratios(base, head)
    return _robust_sd(ratios - np.median(ratios), lost=1) if ratios.size else math.inf


def power_of(spread: float, sessions: int, target: float, rule: Rule, *, paired: bool, tests: int = 1) -> Power:
    """Return what `sessions` a side can see when sessions spread by `spread` and Holm divides alpha by `tests`."""
    alpha = rule.alpha / max(1, tests)
    guess = spread if math.isfinite(spread) else 0.0  # one session has no spread: the least that it could take
    needed = next((n for n in _candidates() if sees(guess, n, rule, alpha, paired=paired) <= target), MOST_SESSIONS)
    return Power(sees(spread, sessions, rule, alpha, paired=paired), sessions, needed, target)


def sees(spread: float, sessions: int, rule: Rule, alpha: float, *, paired: bool) -> float:
    """Return the smallest relative slowdown that is found nine times in ten, both conditions of the rule together."""
    smallest = smallest_p_signed_rank(sessions) if paired else smallest_p_mann_whitney(sessions, sessions)
    if smallest > alpha or sessions < 2:
        return math.inf
    sides = 1 if paired else 2  # a pair's ratio already holds both sides' noise
    error = spread * math.sqrt(sides / sessions)
    found = NormalDist().inv_cdf(POWER)
    if paired:  # both conditions rest on the pairs' own spread, of which few pairs know little
        reach, wide = [student(level, sessions - 1) for level in (rule.level, 1 - alpha)], RANK_SD
    else:
        reach, wide = [NormalDist().inv_cdf(0.5 + level / 2) for level in (rule.level, 1 - alpha)], MEDIAN_SD
    by_interval = math.log1p(rule.tolerance) + (reach[0] + found) * wide * error
    by_test = (reach[1] + found) * RANK_SD * error
    return math.expm1(max(by_interval, by_test))


def _candidates() -> Sequence[int]:
    return [*range(2, 200), *range(200, MOST_SESSIONS, 10)]


def _robust_sd(centred: Array, lost: int) -> float:
    """Return the larger of the robust and half the plain deviation: a few wild sessions count, but do not rule."""
    if centred.size <= lost:
        return math.inf
    robust = MAD_TO_SIGMA * float(np.median(np.abs(centred))) * math.sqrt(centred.size / (centred.size - lost))
    plain = math.sqrt(float((centred**2).sum()) / (centred.size - lost))
    return max(robust, plain / 2)
