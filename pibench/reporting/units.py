"""Numbers as people read them: three significant digits, with a unit that fits."""

from __future__ import annotations

import math

from pibench.records.stats import Estimate

_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def digits(value: float, significant: int = 3) -> str:
    """Return a number with so many significant digits, without an exponent."""
    if not math.isfinite(value):
        return "?"
    if value == 0:
        return "0"
    places = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(places, 9)}f}"
    return f"{float(text):,.0f}" if places == 0 else text


def seconds(value: float) -> str:
    """Return a time with its unit."""
    scale, unit = _time_unit(value)
    return f"{digits(value / scale)} {unit}"


def interval(estimate: Estimate) -> str:
    """Return the interval in the unit of its point: `[49.8, 51.2]`."""
    return bounds(estimate.point, estimate.low, estimate.high)


def bounds(point: float, low: float, high: float) -> str:
    """Return two seconds in the unit and with the decimals of the point between them."""
    scale, _ = _time_unit(point)
    decimals = len(digits(point / scale).partition(".")[2])
    return f"[{low / scale:.{decimals}f}, {high / scale:.{decimals}f}]"


def n_bytes(value: float) -> str:
    """Return an amount of bytes with its (decimal) unit."""
    for scale, unit in _BYTES:
        if abs(value) >= scale:
            return f"{digits(value / scale)} {unit}"
    return f"{value:.0f} B"


def count(value: float) -> str:
    """Return a whole number with thousands separated."""
    return f"{value:,.0f}"


def duration(value_s: float) -> str:
    """Return a span for people who wait: `45 s`, `3 min 20 s`, `1 h 05 min`."""
    whole = max(0, round(value_s))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _time_unit(value: float) -> tuple[float, str]:
    if abs(value) >= 1.0 or value == 0 or not math.isfinite(value):
        return 1.0, "s"
    return (1e-3, "ms") if abs(value) >= 1e-3 else (1e-6, "us")
