"""Declared cost of stock CrypTen between two parties: what each operation sends, 8 bytes a ring element.

Both parties send the same, but for the logits, which the server alone sends. Sharing a value is free (pairwise seeds),
truncation and average pooling are local, and tuples cost no traffic: rank 0 plays the dealer for everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pibench.lowering.program import Conv, Linear, MaxPool, Op, Poly, Program, Relu, Shape
from pibench.mpc.protocol import Cost

RING = 8
PRODUCT = 2 * RING  # a Beaver product opens both factors: 1 round
# 64-bit adder, 7 rounds: one AND, then six levels of two ANDs. The two share a factor, which CrypTen nevertheless
# opens twice (it broadcasts before the product): 32 bytes a level, not 24.
CARRY = PRODUCT + 6 * 2 * PRODUCT
BIT_TO_RING = RING  # one opened bit, in a whole word: 1 round
LESS_THAN = CARRY + BIT_TO_RING  # 216 bytes an element, 8 rounds
EQUALS = 6 * PRODUCT + BIT_TO_RING  # six levels of one AND: 104 bytes, 7 rounds
RELU = LESS_THAN + PRODUCT  # 232 bytes, 9 rounds
TUPLES_TO_SENT = 1.65  # bytes of tuples that a party keeps to bytes that it sends: 1.4 to 1.9 in four networks
RANDOM_BITS = 16  # a random fraction is 16 bits, each brought to the ring


def cost(program: Program, op: Op, batch: int, options: Mapping[str, Any]) -> Cost:
    """Declare what one operation sends for a batch; the same over both wires."""
    rounds, each = _operation(program, op, batch, program.weight_shapes())
    total = Cost(rounds=rounds, server_bytes=each, client_bytes=each)
    if op.name == program.output.name:  # opened to the client
        total += Cost(rounds=1, server_bytes=RING * batch * math.prod(op.shape))
    return total


def held_bytes(whole: Cost, largest: Cost, batches: int, options: Mapping[str, Any]) -> int:
    """Return what both parties hold at once: the largest operation, in tuples and openings about what it sends."""
    return 2 * largest.server_bytes


def held_bytes_cached(whole: Cost, largest: Cost, batches: int, options: Mapping[str, Any]) -> int:
    """Add the tuples of every batch: three words where a product opens two, and CrypTen's slack."""
    return held_bytes(whole, largest, batches, options) + round(2 * TUPLES_TO_SENT * whole.server_bytes * batches)


def _operation(program: Program, op: Op, batch: int, shapes: dict[str, Shape]) -> tuple[int, int]:
    """Return rounds and bytes each way."""
    match op:
        case Conv() | Linear():  # opens its input and its weights
            n_inputs = batch * math.prod(program.op(op.inputs[0]).shape)
            return 1, RING * (n_inputs + math.prod(shapes[op.weight]))
        case Relu():
            return 9, RELU * batch * program.kept(op)
        case Poly():  # a square opens its input; the product opens both powers and their coefficients
            n = batch * program.kept(op)
            coefficients = op.shape[0] if op.mask is None else program.kept(op)
            return 2, RING * n + RING * (2 * n + 2 * coefficients)
        case MaxPool():
            return max_pool(batch * math.prod(op.shape), math.prod(op.kernel))
        case _:
            return 0, 0


def max_pool(windows: int, size: int) -> tuple[int, int]:
    """Return rounds and bytes each way of CrypTen's default maximum over `windows` rows of `size` elements.

    `floor(ln size)` halvings (a comparison, then two products one after the other), all pairs of what is left, and
    twice a one-hot choice among equals, though pooling needs none.
    """
    rounds, total, left = 0, 0, size
    for _ in range(int(math.log(size))):
        rounds += 10
        total += windows * (left // 2) * (LESS_THAN + 2 * PRODUCT)
        left = left // 2 + left % 2
    pairs = max(left, 2) - 1 if left > 1 else 1
    rounds, total = rounds + 8, total + windows * left * pairs * LESS_THAN
    while pairs > 1:  # a tree of products over the comparisons
        rounds, total = rounds + 1, total + windows * left * (pairs // 2) * PRODUCT
        pairs = pairs // 2 + pairs % 2
    rounds, total = rounds + 10, total + _one_of_equals(windows, left)
    rounds, total = rounds + 1, total + windows * left * PRODUCT  # the maximum: values times choice
    rounds, total = rounds + 7, total + windows * size * EQUALS
    return rounds + 10, total + _one_of_equals(windows, size)


def _one_of_equals(windows: int, size: int) -> int:
    """Return the bytes of CrypTen's weighted_index: a random fraction, one product, one comparison (10 rounds)."""
    return windows * (RANDOM_BITS * BIT_TO_RING + PRODUCT + size * LESS_THAN)
