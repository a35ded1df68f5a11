"""Types of arguments that several verbs take."""

from __future__ import annotations

import argparse
import math
import re

from pibench.registry import DATASETS, nearest


def positive(text: str) -> int:
    """Read a count; argparse shows the error beside the option's name."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; it must be a whole number from 1 on")
    return value


UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "": 1.0}


def duration(text: str) -> float:
    """Read a time as people write it, `300ms`, `1.5s`, `2min`; a bare number is seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|)\s*", text)
    value = float(match[1]) * UNITS_S[match[2]] if match else 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time that leaves any; write 300ms, 1.5s or 2min")
    return value


def percentage(text: str) -> float:
    """Read `65%` or `65`, in percent."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 100.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no accuracy; write 65%")
    return value


def image_shape(text: str) -> tuple[int, ...]:
    """Read `3,32,32`, the shape of one image."""
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if not shape or any(size < 1 for size in shape):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; write C,H,W such as 3,32,32")
    return shape


def normalisation(text: str) -> tuple[float, ...]:
    """Read `0.5,0.25`, a mean and a deviation, or one of each a channel, all means first."""
    from pibench.suite import no_normalisation

    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is no normalisation; write MEAN,STD such as 0.5,0.25")
    if why := no_normalisation(numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: {why}")
    return numbers


def dataset(text: str) -> str:
    """Read the name of a data set, or a folder of pictures."""
    from pibench.suite import is_dataset

    if not is_dataset(text):
        hint = nearest(text, DATASETS) or f"; known: {', '.join(DATASETS)}"
        raise argparse.ArgumentTypeError(f"there is no data set and no folder {text!r}{hint}")
    return text
