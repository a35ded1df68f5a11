"""What a suite may choose of the masked protocol, and which bits of a value an opening compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pibench.errors import UsageError
from pibench.mpc.masked.sources import SOURCES

RING_BITS = 64
DIGITS = 4  # comparison digits
TOP_BITS = 2  # of an opening: the sign, and a top bit that says whether the mask wrapped
WRAP_BITS = 32  # of the shares that undo the wrap
NARROWEST_DIGIT, WIDEST_DIGIT = 6, 8  # of one word of a table, and of four
LEAST = {"fraction_bits": 1, "range_bits": 1, "deal_ahead": 0}


@dataclass(frozen=True)
class Window:
    """Bits of an opening: compared from `low` up, sign at `sign_bit`, which the offset sets; ring of `bits`.

    An input is below 2^sign_bit in absolute value; with an offset of as much it stays below half of the ring.
    """

    low: int
    sign_bit: int
    bits: int

    @property
    def offset(self) -> int:
        """What is added to an input, so that it is positive."""
        return 1 << self.sign_bit

    @property
    def wire_bytes(self) -> int:
        """Bytes a scalar on the wire."""
        return -(-self.bits // 8)


@dataclass(frozen=True)
class Options:
    """What a suite may choose; every choice is public and recorded."""

    relu = "tables"  # no option: the gadget that ReLUs go through
    fraction_bits: int = 16
    range_bits: int = 12  # activations entering a ReLU stay under 2^range_bits in absolute value
    provider: Literal["dealer", "first-party", "two-party"] = "dealer"  # who makes the correlated randomness
    check_ranges: bool = False  # debug: open every ReLU's input to the server and refuse what is out of range
    keep_dir: str = ""  # folder for material that outlives a run; empty: none is kept
    deal_ahead: int = 0  # with keep_dir: how many inferences' material to make for later

    @classmethod
    def parse(cls, options: dict[str, Any]) -> Options:
        """Return the options of a suite; raises UsageError for an unknown name or an impossible value."""
        known = {k: v for k, v in options.items() if k in cls.__dataclass_fields__}
        if extra := sorted(set(options) - set(known) - {"rendezvous", "wire"}):
            names = ", ".join(cls.__dataclass_fields__)
            raise UsageError(f"this protocol has no option {', '.join(extra)}", remedy=f"it knows {names}")
        return cls(**known)

    @property
    def digit_bits(self) -> int:
        """Width of one comparison digit: the narrowest that covers the range, since each bit doubles the tables."""
        return max(NARROWEST_DIGIT, -(-(self.fraction_bits + self.range_bits) // DIGITS))

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if type(value := getattr(self, name)) is not int or value < least:
                raise UsageError(f"{name} is {value!r}", remedy=f"it is a whole number from {least}")
        if self.digit_bits > WIDEST_DIGIT:
            raise UsageError(
                f"{DIGITS} digits of {WIDEST_DIGIT} bits do not cover {self.fraction_bits} fractional and "
                f"{self.range_bits} integer bits",
                remedy=f"lower range_bits to {DIGITS * WIDEST_DIGIT - self.fraction_bits}",
            )
        if self.provider not in SOURCES:
            raise UsageError(f"provider is {self.provider!r}", remedy=f"choose one of {', '.join(SOURCES)}")

    @property
    def relu_choices(self) -> dict[str, str]:
        """What the steps of ReLUs are told beside their shift."""
        return {}

    def key(self) -> str:
        """Return what kept material depends on; who made it too, since what the server dealt hides nothing from it."""
        return f"{self.fraction_bits}/{self.range_bits}/{self.provider}"

    @property
    def headroom_bits(self) -> int:
        """How many ring bits a value may have: what ReLUs and extensions make has 32 above the top bit of its input.

        (The dealer's shares of that bit are of 32 bits.)
        """
        return min(RING_BITS, self.fraction_bits + self.range_bits + TOP_BITS + WRAP_BITS)

    def window(self, scale: int) -> Window:
        """Return where the sign of a value of this scale is compared."""
        low = max(0, scale + self.range_bits - DIGITS * self.digit_bits)
        sign_bit = low + DIGITS * self.digit_bits
        return Window(low, sign_bit, sign_bit + TOP_BITS)
