"""The null protocol as the harness knows it."""

from __future__ import annotations

from dataclasses import dataclass

from pibench.mpc.spec import Arrangement, ProtocolSpec, Trust

SHOWN = Trust("all shown", "nothing is secret: the server sees images and logits")

MOST_RANGE_BITS = 19  # with the fraction bits of a product and a sign, a word of the fastest engine


@dataclass(frozen=True)
class Options:
    """What a suite may choose; the ring has 32 + range_bits + 1 bits, by default 46 as that of `masked`."""

    range_bits: int = 13  # products stay under 2^range_bits in absolute value

    def __post_init__(self) -> None:
        if not 1 <= self.range_bits <= MOST_RANGE_BITS:
            raise ValueError(f"option range_bits: {self.range_bits} is not from 1 to {MOST_RANGE_BITS}")


SPEC = ProtocolSpec(
    name="plaintext",
    module="pibench.mpc.plaintext.protocol",
    options=Options,
    devices=("cpu", "cuda"),
    arrange=lambda _: Arrangement(trust=SHOWN),
    cost="pibench.mpc.plaintext.cost:cost",
    place=0,
    private=False,
)
