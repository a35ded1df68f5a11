"""Declared cost of PyTorch in float32: the image goes one way, the logits the other, 4 bytes a scalar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pibench.lowering.program import Op, Program
from pibench.mpc.plaintext.cost import shown
from pibench.mpc.protocol import Cost

FLOAT_BYTES = 4


def cost(program: Program, op: Op, batch: int, options: Mapping[str, Any]) -> Cost:
    """Declare what one operation sends."""
    return shown(program, op, batch, FLOAT_BYTES)
