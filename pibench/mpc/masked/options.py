"""What a suite may choose of the masked protocol, and which bits of a value an opening compares."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from pibench.errors import UsageError
from pibench.mpc.backends.backend import DIGITS
from pibench.mpc.masked.sources import SOURCES

RING_BITS = 64
TOP_BITS = 2  # of an opening: the sign, and a top bit that says whether the mask wrapped
WRAP_BITS = 32  # of the shares that undo the wrap
NARROWEST_DIGIT, WIDEST_DIGIT = 6, 8  # of one word of a table, and of four
WeightBits = Literal[0, 22, 24, 26]  # 0: the smallest class that the model fits
WITHOUT_PADS = ("two-party",)  # providers that make no pads for ReLUs of two messages
WITHOUT_WIDE = ("two-party", "garbling")  # and those that encrypt products, whose rings are a word
WIDEST_BITS = 160  # of a wide value: what is made offline of it grows with the square
LEAST = {"fraction_bits": 1, "range_bits": 1, "deal_ahead": 0}


@dataclass(frozen=True)
class Window:
    """Bits of an opening: from `low` up, digits that are compared, the sign and a top bit; below, it stays closed.

    An input is in [-2^sign_bit, 2^sign_bit - 2^low]; with an offset of 2^sign_bit, and what rounds it up from 2^low, it
    stays below half of the ring.
    """

    low: int
    digits: tuple[int, ...]  # their bits, lowest first

    @property
    def sign_bit(self) -> int:
        """Position of the sign, which the offset sets."""
        return self.low + sum(self.digits)

    @property
    def bits(self) -> int:
        """Bits of the ring in which an input is masked."""
        return self.sign_bit + TOP_BITS

    @property
    def offset(self) -> int:
        """What is added to an input, so that it is positive."""
        return 1 << self.sign_bit

    @property
    def told_bytes(self) -> int:
        """Bytes a scalar of what the client tells beforehand: all bits, since the low ones carry."""
        return -(-self.bits // 8)

    @property
    def open_bits(self) -> int:
        """Bits of what is opened."""
        return self.bits - self.low

    @property
    def open_bytes(self) -> int:
        """Bytes a scalar of what is opened."""
        return -(-self.open_bits // 8)

    @property
    def digit_words(self) -> int:
        """Words of a one-hot vector for every digit."""
        return sum(1 << (bits - NARROWEST_DIGIT) for bits in self.digits)


@dataclass(frozen=True)
class Options:
    """What a suite may choose; every choice is public and recorded."""

    fraction_bits: int = 16
    range_bits: int = 12  # activations entering a ReLU stay under 2^range_bits in absolute value
    provider: Literal["dealer", "first-party", "two-party"] = "dealer"  # who makes the correlated randomness
    weight_bits: WeightBits = 0  # two-party: log2 of what one output's absolute weights sum to at most, public
    overlap: bool = False  # the next inference's offline phase runs while this one is online
    relu_messages: Literal[4, 2] = 4  # of a ReLU; two are dealt 384 bytes more a ReLU, and send 5 more
    wide_image: bool = False  # no ring extension before the first ReLU: what comes before it is in a wider ring
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

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if type(value := getattr(self, name)) is not int or value < least:
                raise UsageError(f"{name} is {value!r}", remedy=f"it is a whole number from {least}")
        for field in fields(self):
            if isinstance(field.default, bool) and not isinstance(value := getattr(self, field.name), bool):
                raise UsageError(f"{field.name} is {value!r}", remedy="it is true or false")
        if self.weight_bits not in (classes := get_args(WeightBits)):
            known = ", ".join(map(str, classes))
            raise UsageError(f"weight_bits is {self.weight_bits!r}", remedy=f"choose one of {known}")
        if self.fraction_bits + self.range_bits > DIGITS * WIDEST_DIGIT:
            raise UsageError(
                f"{DIGITS} digits of {WIDEST_DIGIT} bits do not cover {self.fraction_bits} fractional and "
                f"{self.range_bits} integer bits",
                remedy=f"lower range_bits to {DIGITS * WIDEST_DIGIT - self.fraction_bits}",
            )
        if self.provider not in SOURCES:
            raise UsageError(f"provider is {self.provider!r}", remedy=f"choose one of {', '.join(SOURCES)}")
        if self.relu_messages not in (4, 2):
            raise UsageError(f"relu_messages is {self.relu_messages!r}", remedy="choose 4 or 2")
        if self.relu_messages == 2 and self.provider in WITHOUT_PADS:
            raise UsageError(
                "ReLUs of two messages need pads that only a dealer makes",
                remedy="set relu_messages: 4, or another provider",
            )
        if self.wide_image and self.provider in WITHOUT_WIDE:
            raise UsageError(
                "a wide image needs products of a ring that only a dealer makes",
                remedy="set wide_image: false, or another provider",
            )

    @property
    def relu(self) -> str:
        """The gadget that ReLUs go through."""
        return "tables" if self.relu_messages == 4 else "offers"

    @property
    def relu_choices(self) -> dict[str, Any]:
        """What the steps of ReLUs are told beside their shift."""
        return {}

    def key(self) -> str:
        """Return what kept material depends on; who made it too, since what the server dealt hides nothing from it."""
        return f"{self.fraction_bits}/{self.range_bits}/{self.provider}/{self.relu_messages}/{self.wide_image}"

    @property
    def headroom_bits(self) -> int:
        """How many ring bits a value may have: what ReLUs and extensions make has 32 above the top bit of its input.

        (The dealer's shares of that bit are of 32 bits.)
        """
        return min(RING_BITS, self.fraction_bits + self.range_bits + TOP_BITS + WRAP_BITS)

    def window(self, scale: int, beyond: int = 0) -> Window:
        """Return where a value of this scale, `beyond` bits larger than the range, is opened: from 2^-fraction_bits up.

        The digits are as narrow as four of them cover it, since each bit doubles a digit's table.
        """
        cover = max(DIGITS * NARROWEST_DIGIT, self.fraction_bits + self.range_bits + beyond)
        digits = tuple(cover // DIGITS + (k < cover % DIGITS) for k in range(DIGITS))
        return Window(scale - self.fraction_bits, digits)
