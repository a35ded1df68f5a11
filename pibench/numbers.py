"""Numbers as people read them, on a screen, a page or in a file: three digits, a unit that fits, no exponent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pibench.records.stats import Estimate

Units = Sequence[tuple[float, float, str]]  # below which value, times what, its name

TIMES: Units = (
    (1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s"), (7200.0, 1 / 60, "min"), (math.inf, 1 / 3600, "h"),
)  # fmt: skip
BYTES: Units = ((1e3, 1.0, "B"), (1e6, 1e-3, "kB"), (1e9, 1e-6, "MB"), (math.inf, 1e-9, "GB"))
COUNTS: Units = ((1e3, 1.0, ""), (1e6, 1e-3, "K"), (1e9, 1e-6, "M"), (math.inf, 1e-9, "G"))
ROUNDED = 0.9995  # what three digits would write as the next unit's 1.00 is written in it


def unit_of(value: float, units: Units) -> tuple[float, str]:
    """Return what to multiply a value with, and the unit that it is then in."""
    return next((factor, unit) for bound, factor, unit in units if abs(value) < bound * ROUNDED)


def time_unit(value_s: float) -> tuple[float, str]:
    """Return the factor from seconds to the unit that suits a time, and its name; nothing takes no seconds."""
    return unit_of(value_s, TIMES) if value_s and math.isfinite(value_s) else (1.0, "s")


def digits(value: float, significant: int = 3) -> str:
    """Return a number with so many significant digits (whole numbers in full), without an exponent."""
    if not math.isfinite(value):
        return "?"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{significant - 1}e}")
    places = significant - 1 - math.floor(math.log10(abs(rounded)))
    text = f"{rounded:.{min(places, 9)}f}" if places > 0 else f"{value:,.0f}"
    return _minus(text)


def seconds(value: float | None) -> str:
    """Return a measured time in the unit that suits it; nothing for nothing."""
    if value is None or not math.isfinite(value):
        return ""
    factor, unit = time_unit(value)
    return f"{digits(value * factor)} {unit}"


def interval(estimate: Estimate) -> str:
    """Return the interval in the unit of its point: `[49.8, 51.2]`."""
    return bounds(estimate.point, estimate.low, estimate.high)


def bounds(point_s: float, low_s: float, high_s: float) -> str:
    """Return two times in the unit and with the decimals of the one between them."""
    factor, _ = time_unit(point_s)
    decimals = len(digits(point_s * factor).partition(".")[2])
    low, high = (_minus(f"{value * factor:.{decimals}f}") for value in (low_s, high_s))
    return f"[{low}, {high}]"


def duration(value_s: float) -> str:
    """Return a span for people who wait: `45 s`, `3 min 20 s`, `1 h 05 min`."""
    whole = max(0, round(value_s))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value: float | None) -> str:
    """Return an amount of bytes in decimal units; nothing for nothing."""
    if value is None or not math.isfinite(value):
        return ""
    factor, unit = unit_of(value, BYTES)
    return f"{value:.0f} B" if unit == "B" else f"{digits(value * factor)} {unit}"


def count(value: float) -> str:
    """Return a whole number with thousands separated."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """Return a count as an axis shows it: 12K, 557K, 1.2M."""
    factor, unit = unit_of(value, COUNTS)
    return f"{value * factor:.3g}{unit}"


def axis_seconds(value: float) -> str:
    """Return a tick of a time axis: a round number, so no digits behind it."""
    factor, unit = time_unit(value)
    return f"{value * factor:.3g} {unit}" if value else "0"


def percent(share: float) -> str:
    """Return a share as a percentage that never rounds up to all or down to nothing."""
    if 0.0 < share < 0.005 or 0.995 <= share < 1.0:
        return "over 99.9 %" if share >= 0.9995 else "under 0.1 %" if share < 0.0005 else f"{share * 100:.1f} %"
    return f"{share * 100:.0f} %"


def times(ratio: float) -> str:
    """Return a factor in words: 3.2×."""
    return f"{ratio:.0f}×" if ratio >= 9.95 else f"{ratio:.1f}×"


def _minus(text: str) -> str:
    return text.replace("-", "−")
