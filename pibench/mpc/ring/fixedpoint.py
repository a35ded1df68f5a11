"""Fixed point in the ring of 64-bit integers: a real x is the nearest integer to x * 2^bits, modulo 2^64.

CrypTen's decoder is wrong by 1.0 for about one negative value in 10,000 (where the fraction bits are few), and its
encoder cuts towards zero; ours is exact to half a unit in the last place, and all protocols use it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pibench.errors import UsageError

FRACTION_BITS = 16


def encode(values: Tensor, bits: int = FRACTION_BITS) -> Tensor:
    """Return real values as ring elements (int64) with this many fraction bits, rounded to nearest."""
    scaled = values.to(torch.float64) * float(2**bits)
    if not bool((scaled.abs() < 2.0**62).all()):  # also false for what is not a number
        raise UsageError(f"a value is not finite or too large for fixed point with {bits} fraction bits")
    return scaled.round().to(torch.int64)


def decode(ring: Tensor, bits: int = FRACTION_BITS, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return ring elements as real values."""
    return (ring.to(torch.float64) / float(2**bits)).to(dtype)


def truncate(ring: Tensor, bits: int = FRACTION_BITS) -> Tensor:
    """Divide known (not shared) ring elements by 2^bits, rounded to nearest."""
    return (ring + (1 << (bits - 1))) >> bits
