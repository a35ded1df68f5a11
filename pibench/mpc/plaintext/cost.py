"""Declared cost of the null protocol: the image goes one way, the logits the other, 8 bytes a scalar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pibench.lowering.program import Input, Op, Program
from pibench.mpc.protocol import Cost

RING_BYTES = 8


def cost(program: Program, op: Op, batch: int, options: Mapping[str, Any]) -> Cost:
    """Declare what one operation sends."""
    return shown(program, op, batch, RING_BYTES)


def shown(program: Program, op: Op, batch: int, width: int) -> Cost:
    """Return the cost of showing the image and the logits, `width` bytes a scalar."""
    n_bytes = width * batch * math.prod(op.shape)
    total = Cost()
    if isinstance(op, Input):
        total += Cost(rounds=1, client_bytes=n_bytes)
    if op.name == program.output.name:
        total += Cost(rounds=1, server_bytes=n_bytes)
    return total
