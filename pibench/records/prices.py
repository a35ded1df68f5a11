"""The price of 1,000 ReLUs, and of a million multiply-accumulates: least squares of seconds over counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pibench.records.stats import LEVEL, student


@dataclass(frozen=True)
class Fit:
    """Least-squares line of seconds over ReLUs: `slope_s` is the price of 1000 ReLUs."""

    intercept_s: float
    slope_s: float
    r2: float
    intercept_interval: tuple[float, float]
    slope_interval: tuple[float, float]
    n: int


@dataclass(frozen=True)
class Joint:
    """Least-squares plane of seconds over ReLUs and multiply-accumulates: reshaping removes both at once.

    Intervals are Student's of 95 %, of each coefficient by itself.
    """

    relu_s: float  # of 1000 ReLUs, at equal multiply-accumulates
    mmac_s: float  # of a million multiply-accumulates, at equal ReLUs
    r2: float
    relu_interval: tuple[float, float]
    mmac_interval: tuple[float, float]

    @property
    def firm(self) -> bool:
        """Whether both coefficients are clearly above nothing: otherwise the plane prices neither."""
        return self.relu_interval[0] > 0 and self.mmac_interval[0] > 0


def fit_price(relus: Sequence[float], seconds: Sequence[float], level: float = LEVEL) -> Fit:
    """Return the line seconds = intercept + slope * (ReLUs / 1000), with Student intervals (nan below 3 points)."""
    x, y = np.asarray(relus, dtype=np.float64) / 1000.0, np.asarray(seconds, dtype=np.float64)
    if x.size < 2 or np.ptp(x) == 0:
        nan = (math.nan, math.nan)
        return Fit(math.nan, math.nan, math.nan, nan, nan, int(x.size))
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    intercept = float(y.mean()) - slope * float(x.mean())
    residual, total = float(((y - intercept - slope * x) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    t = student(level, x.size - 2) * math.sqrt(residual / (x.size - 2)) if x.size > 2 else math.nan
    wide, tall = t / math.sqrt(spread), t * math.sqrt(1 / x.size + float(x.mean()) ** 2 / spread)
    return Fit(
        intercept, slope, 1 - residual / total if total else 1.0,
        (intercept - tall, intercept + tall), (slope - wide, slope + wide), int(x.size),
    )  # fmt: skip


def fit_plane(relus: Sequence[float], macs: Sequence[float], seconds: Sequence[float]) -> Joint | None:
    """Return the plane over both counts; None below five points, or where the two go together."""
    if len(seconds) < 5:
        return None
    y = np.array(seconds, dtype=np.float64)
    counts = np.stack([np.ones(y.size), np.array(relus) / 1e3, np.array(macs) / 1e6], axis=1)  # (networks, 3)
    units = np.maximum(counts.max(axis=0), 1e-30)  # columns of one size, so that the squares below stay exact
    x = counts / units
    if np.linalg.matrix_rank(x) < 3:
        return None
    coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
    total, residual = float(((y - y.mean()) ** 2).sum()), float(((y - x @ coefficients) ** 2).sum())
    degrees = y.size - 3
    errors = np.sqrt(residual / degrees * np.diag(np.linalg.inv(x.T @ x)))
    reach = student(LEVEL, degrees) * errors
    (_, relu, mac), (_, relu_low, mac_low), (_, relu_high, mac_high) = (
        (row / units).tolist() for row in (coefficients, coefficients - reach, coefficients + reach)
    )
    r2 = 1.0 - residual / total if total else 1.0
    return Joint(relu, mac, r2, (relu_low, relu_high), (mac_low, mac_high))
