"""The frontier: what is left when every network is dropped that another one beats at no more ReLUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def frontier(points: Iterable[T], cost: Callable[[T], float], gain: Callable[[T], float]) -> list[T]:
    """Return the points that no other dominates, cheapest first.

    A point is dominated where another costs no more and gains no less, and differs in one of the two. Of points that
    agree in both, the first given stays.
    """
    ordered = sorted(points, key=lambda point: (cost(point), -gain(point)))
    kept: list[T] = []
    for point in ordered:
        if not kept or gain(point) > gain(kept[-1]):
            kept.append(point)
    return kept


def best_within(points: Iterable[T], budget: float, cost: Callable[[T], float], gain: Callable[[T], float]) -> T | None:
    """Return the point of most gain that costs at most `budget` (the cheaper one of equals), None where none does."""
    affordable = [point for point in points if cost(point) <= budget]
    return max(affordable, key=lambda point: (gain(point), -cost(point)), default=None)
