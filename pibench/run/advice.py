"""What to do about a case whose answers are wrong: said beside INVALID, from the plaintext network's own values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pibench.records.record import Case
from pibench.run.answers import limit_of

if TYPE_CHECKING:
    from torch import Tensor

    from pibench.lowering.program import Program, Weights

FRACTION_BITS, BOTH_BITS = 16, 32  # the default, and with range_bits at most, where a suite may choose both
MOST_IMAGES = 32


def reach_of(program: Program, weights: Weights, images: Tensor) -> float:
    """Return the largest absolute value that enters a comparison or a square, in the clear (images: n, C, H, W)."""
    from pibench.lowering.program import MaxPool, Op, Poly, Relu
    from pibench.lowering.reference import evaluate

    seen = [0.0]

    def watch(op: Op, inputs: list[Tensor]) -> None:
        if isinstance(op, Relu | MaxPool | Poly):
            seen.append(float(inputs[0].abs().max()))

    evaluate(program, weights, images[:MOST_IMAGES], watch=watch)
    return max(seen)


def advice(case: Case, others: Iterable[Case], reach: float, options: Any) -> str:
    """Return the likely cause and its remedy; `options`: the case's, parsed, of which a suite may choose."""
    chooses = hasattr(options, "fraction_bits")
    fraction = int(getattr(options, "fraction_bits", FRACTION_BITS))
    ranged = int(getattr(options, "range_bits", 0))  # 0: a suite cannot choose it
    needed = max(1, math.floor(math.log2(max(reach, 1e-9))) + 1)
    if ranged and reach >= 2.0**ranged:
        room = f" and fraction_bits: {BOTH_BITS - needed}" if chooses and needed + fraction > BOTH_BITS else ""
        return f"values reach {reach:,.0f}, beyond the range of ±{2**ranged:,}: give range_bits: {needed}{room}"
    said = []
    if case.protocol != "plaintext" and any(_alike(case, other) for other in others):
        said.append("plaintext fails alike: it is the fixed point, not the protocol")
    bits = _missing_bits(case)
    if bits and chooses and fraction + bits + needed <= BOTH_BITS:
        more, left = fraction + bits, BOTH_BITS - fraction - bits
        narrower = f" and range_bits: {max(needed, min(ranged, left))}" if more + ranged > BOTH_BITS else ""
        said.append(f"more fraction bits would do (values reach {reach:.3g}): give fraction_bits: {more}{narrower}")
    elif bits:
        said.append(f"it would take {fraction + bits} fraction bits; values reach {reach:.3g}")
    return "; ".join(said)


def _alike(case: Case, other: Case) -> bool:
    """Whether another case is the same network without secrecy, and wrong too."""
    return other.protocol == "plaintext" and other.network.card == case.network.card and other.status == "invalid"


def _missing_bits(case: Case) -> int:
    """Return how many bits finer the fixed point had to be, 0 where the error is no rounding (beyond the spread)."""
    worst = 0.0
    for session in case.sessions:
        found = session.correctness
        error, limit = found.max_abs_logit_error, limit_of(found, case.tolerance or 0.0)
        if error is None or not limit or (found.spread and error > found.spread):
            return 0
        worst = max(worst, error / limit)
    return math.ceil(math.log2(worst)) + 1 if worst > 1.0 else 0
