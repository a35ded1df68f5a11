"""Scales, ticks, and numbers as words: shared by every figure, table and sentence of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """From values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float  # pixel of `low`
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values outside are clamped to the scale's ends."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int) -> list[float]:
        """Return round values inside the scale."""
        return log_ticks(self.low, self.high, about) if self.log else linear_ticks(self.low, self.high, about)


def linear_ticks(low: float, high: float, about: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, about: int) -> list[float]:
    """Return 1, 2, 5 times powers of ten, thinned to powers where there are too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        ticks = [m * 10.0**p for p in powers for m in multiples if low * 0.999 <= m * 10.0**p <= high * 1.001]
        if len(ticks) <= about and len(ticks) >= 2:
            return ticks
    if high / low < 10.0:
        return linear_ticks(low, high, about)
    return [10.0**p for p in powers if low * 0.999 <= 10.0**p <= high * 1.001][:: max(1, len(powers) // max(about, 1))]


def padded(
    values: Iterable[float], *, log: bool = False, share: float = 0.08, zero: bool = False
) -> tuple[float, float]:
    """Return a range around values with some air; never empty."""
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (1.0, 10.0)
    if log:
        air = max((high / low) ** share, 1.15)
        return low / air, high * air
    air = (high - low) * share or abs(high) * 0.1 or 1.0
    return (0.0 if zero else low - air), high + air


def seconds(value: float | None) -> str:
    """Return a duration in the unit that suits it; nothing for nothing."""
    if value is None or not math.isfinite(value):
        return ""
    if value < 0:
        return f"−{seconds(-value)}"
    for bound, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s"), (7200.0, 1 / 60, "min")):
        if value < bound * 0.9995:
            return f"{three(value * factor)} {unit}"
    return f"{three(value / 3600)} h"


def size(value: float | None) -> str:
    """Return bytes in decimal units; nothing for nothing."""
    if value is None or not math.isfinite(value):
        return ""
    if abs(value) < 1e3:
        return f"{value:.0f} B"
    for bound, factor, unit in ((1e6, 1e-3, "kB"), (1e9, 1e-6, "MB")):
        if abs(value) < bound * 0.9995:
            return f"{three(value * factor)} {unit}"
    return f"{three(value * 1e-9)} GB"


def three(value: float) -> str:
    """Return a number with three significant digits and no exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    rounded = float(f"{value:.3g}")
    digits = 2 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{min(max(digits, 0), 6)}f}" if abs(rounded) < 100 else f"{rounded:,.0f}"


def short(value: float) -> str:
    """Return a count as an axis shows it: 12K, 557K, 1.2M."""
    for bound, factor, unit in ((1e3, 1.0, ""), (1e6, 1e-3, "K"), (1e9, 1e-6, "M")):
        if abs(value) < bound * 0.9995:
            text = f"{value * factor:.3g}"
            return f"{text}{unit}"
    return f"{value * 1e-9:.3g}G"


def axis_seconds(value: float) -> str:
    """Return a tick of a time axis."""
    for bound, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s"), (7200.0, 1 / 60, "min")):
        if abs(value) < bound * 0.9995:
            return f"{value * factor:.3g} {unit}" if value else "0"
    return f"{value / 3600:.3g} h"


def percent(share: float) -> str:
    """Return a share as a percentage that never rounds up to all or down to nothing."""
    if 0.0 < share < 0.005 or 0.995 <= share < 1.0:
        return "over 99.9 %" if share >= 0.9995 else "under 0.1 %" if share < 0.0005 else f"{share * 100:.1f} %"
    return f"{share * 100:.0f} %"


def times(ratio: float) -> str:
    """Return a factor in words: 3.2×."""
    return f"{ratio:.0f}×" if ratio >= 9.95 else f"{ratio:.1f}×"


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return label positions near the wanted ones, at least `gap` apart, inside the bounds where they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    floor = low
    for index in order:
        placed[index] = max(wanted[index], floor)
        floor = placed[index] + gap
    ceiling = high
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed
