"""Steps in a series: a piecewise constant fit in the L1 norm with a price on every step (a Potts functional).

Medians are the best constants in that norm, so that a single wild run makes no step. The price is set from the series'
own noise; a step must then also stand in an exact rank test and be larger than the tolerance.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pibench.records.stats import Array, mann_whitney_exact
from pibench.records.warmup import MAD_TO_SIGMA

PRICE = 2.5  # of a step, in noise x log(length): a series without steps shows one in fewer than 1 of 100 (docs)
ALPHA = 0.01
LONGEST = 1000  # points looked at: the newest


@dataclass(frozen=True)
class Step:
    """A change of level between points `index - 1` and `index`."""

    index: int
    before: float
    after: float
    p: float | None  # None for exact measures: every change is real

    @property
    def change(self) -> float:
        """Relative change of the level."""
        return self.after / self.before - 1.0 if self.before else math.inf


def find_steps(values: Sequence[float], *, exact: bool = False, tolerance: float = 0.01) -> list[Step]:
    """Return the steps of a series of positive values, oldest first."""
    skipped = max(0, len(values) - LONGEST)
    series = np.asarray(values[skipped:], dtype=np.float64)
    if exact:
        changed = np.flatnonzero(series[1:] != series[:-1]) + 1
        return [Step(int(i) + skipped, float(series[i - 1]), float(series[i]), None) for i in changed]
    if series.size < 4 or (series <= 0).any():
        return []
    starts = _segments(np.log(series), _price(np.log(series)))
    return _confirmed(series, starts, tolerance, skipped)


def _price(logs: Array) -> float:
    """Return the price of one step: noise from successive differences, which steps hardly touch."""
    differences = np.diff(logs)
    noise = MAD_TO_SIGMA * float(np.median(np.abs(differences - np.median(differences)))) / math.sqrt(2)
    return PRICE * max(noise, 1e-4) * math.log(logs.size)


def _segments(values: Array, price: float) -> list[int]:
    """Return the first index of each segment of the cheapest fit (dynamic programming over the last segment)."""
    best, previous = [0.0], [0]
    for end in range(1, values.size + 1):
        costs = _costs_backwards(values, end)
        totals = [best[start] + cost + price for start, cost in costs]
        cheapest = min(range(len(totals)), key=totals.__getitem__)
        best.append(totals[cheapest])
        previous.append(costs[cheapest][0])
    starts, end = [], values.size
    while end:
        end = previous[end]
        starts.append(end)
    return starts[::-1]


def _costs_backwards(values: Array, end: int) -> list[tuple[int, float]]:
    """Return (start, L1 cost around the median) of every segment that ends before `end`: two heaps, from the end."""
    low: list[float] = []  # negated: the smaller half
    high: list[float] = []
    low_sum = high_sum = 0.0
    costs = []
    for start in range(end - 1, -1, -1):
        value = float(values[start])
        if low and value <= -low[0]:
            heapq.heappush(low, -value)
            low_sum += value
        else:
            heapq.heappush(high, value)
            high_sum += value
        if len(low) > len(high) + 1:
            moved = -heapq.heappop(low)
            heapq.heappush(high, moved)
            low_sum, high_sum = low_sum - moved, high_sum + moved
        elif len(high) > len(low):
            moved = heapq.heappop(high)
            heapq.heappush(low, -moved)
            low_sum, high_sum = low_sum + moved, high_sum - moved
        median = -low[0]
        costs.append((start, high_sum - low_sum + median * (len(low) - len(high))))
    return costs


def _confirmed(series: Array, starts: list[int], tolerance: float, skipped: int) -> list[Step]:
    """Drop the weakest step until each is beyond tolerance and test; a dropped step joins its neighbours."""
    starts = list(starts)
    while True:
        steps = _steps(series, starts)
        weak = [s for s in steps if abs(math.log(s.after / s.before)) <= math.log1p(tolerance) or (s.p or 0.0) >= ALPHA]
        if not weak:
            return [Step(s.index + skipped, s.before, s.after, s.p) for s in steps]
        starts.remove(min(weak, key=lambda s: abs(math.log(s.after / s.before))).index)


def _steps(series: Array, starts: list[int]) -> list[Step]:
    found, ends = [], [*starts[1:], series.size]
    for place in range(1, len(starts)):
        before, after = series[starts[place - 1] : starts[place]], series[starts[place] : ends[place]]
        p = _p(before, after)
        found.append(Step(starts[place], float(np.median(before)), float(np.median(after)), p))
    return found


def _p(before: Array, after: Array) -> float:
    """Return the rank test's p; with too few points on a side for any test, complete separation has to do."""
    before, after = before[-60:], after[:60]
    test = mann_whitney_exact(list(before), list(after))
    if test.smallest_p < ALPHA:
        return test.p
    return 0.0 if min(before.size, after.size) >= 2 and test.p <= test.smallest_p * 1.001 else 1.0
