"""ReLU equalization: which channel multipliers put the stages' ReLU counts into the order of their criticality.

DeepReShape's Algorithm 1 as reconstructed from the names of its networks. With the first stage's width m, blocks
phi_k and stage-to-stage multipliers a_1, a_2, ..., each stage halving the sides of the image, and the stem left out,

    #ReLU(S_k) / #ReLU(S_1)  =  (phi_k / phi_1) * (a_1 ... a_(k-1)) / 4^(k-1),

whatever m and the image are. The criticality order gives one strict inequality for each adjacent pair of stages. For
every choice of a_2, a_3, ... that they admit, the smallest a_1 is a solution. ResNet18 with S3 > S2 > S4 > S1 yields
(5,5,3), (5,7,2), (6,6,2) and (7,5,2), the paper's four names; a multiplier of 1 would yield more, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise, product
from math import ceil, floor, prod

from pibench.errors import UsageError

RESNET_ORDER = (3, 2, 4, 1)  # ResNet18, most critical first; the order is remembered, the names above support it
LARGEST = 16  # where an order leaves a multiplier without an upper bound, this is one


def shares(blocks: Sequence[int], multipliers: Sequence[int]) -> list[Fraction]:
    """Return the ReLUs of every stage in units of one block of the first stage at its resolution."""
    return [
        Fraction(blocks[k] * prod(multipliers[:k]), 4**k)
        for k in range(len(blocks))
    ]  # fmt: skip


def solve(
    order: Sequence[int], blocks: Sequence[int], *, smallest: int = 2, largest: int = LARGEST
) -> list[tuple[int, ...]]:
    """Return all integer multipliers (smallest first one for each of the others) that align counts with `order`.

    `order` names the stages from 1, most critical first. Multipliers after the first lie in [smallest, largest].
    """
    _check(order, blocks)
    tails = product(range(smallest, largest + 1), repeat=len(blocks) - 2)
    found = ((first, *tail) for tail in tails for first in _first(order, blocks, tail, smallest))
    return sorted(found, key=lambda solution: (prod(solution), solution))


def _first(order: Sequence[int], blocks: Sequence[int], tail: tuple[int, ...], smallest: int) -> Iterator[int]:
    """Yield the smallest first multiplier that fits the others, if there is one.

    Only the count of stage 1 does not grow with it, so that each pair bounds it from below, from above, or not.
    """
    counts = shares(blocks, (1, *tail))
    low, high = Fraction(smallest - 1), None
    for more, less in pairwise(order):
        if more != 1 and less != 1:
            if not counts[more - 1] > counts[less - 1]:
                return
        elif less == 1:
            low = max(low, counts[0] / counts[more - 1])
        else:
            high = counts[0] / counts[less - 1]
    first = floor(low) + 1
    if high is None or first <= ceil(high) - 1:
        yield first


def _check(order: Sequence[int], blocks: Sequence[int]) -> None:
    if len(blocks) < 2 or sorted(order) != list(range(1, len(blocks) + 1)):
        stages = ", ".join(f"S{stage}" for stage in order)
        raise UsageError(
            f"the criticality order {stages or '(empty)'} does not name each of {len(blocks)} stages once",
            remedy="give every stage once, most critical first, such as 3 2 4 1",
        )
