"""Types of arguments that several verbs take."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """Read a count; argparse shows the error beside the option's name."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; it must be a whole number from 1 on")
    return value
