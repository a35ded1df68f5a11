"""Declared cost of the operations, as `masked` counts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pibench.lowering.program import Op, Program
from pibench.mpc.delphi.options import DelphiOptions
from pibench.mpc.masked import cost as masked
from pibench.mpc.protocol import Cost


def operation_cost(program: Program, op: Op, batch: int, options: Mapping[str, Any]) -> Cost:
    """Return what one operation costs for a batch, with what both parties exchange beforehand."""
    return masked.operation_cost(program, op, batch, options, DelphiOptions)
