"""Declared cost of the operations, as `masked` counts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pibench.lowering.program import Op, Program, Weights
from pibench.mpc.crypto.garbling.gates import LABEL_BYTES
from pibench.mpc.crypto.softspoken import TRANSFER_BYTES
from pibench.mpc.delphi.options import DelphiOptions
from pibench.mpc.masked import total_cost as masked
from pibench.mpc.protocol import Cost


def operation_cost(program: Program, op: Op, batch: int, options: Mapping[str, Any]) -> Cost:
    """Return what one operation costs for a batch, with what both parties exchange beforehand."""
    return masked.operation_cost(program, op, batch, options, DelphiOptions)


def held_bytes(whole: Cost, largest: Cost, batches: int, options: Mapping[str, Any]) -> int:
    """Return what both parties hold at once: circuits, and a label of 16 bytes for every 4 bytes of choices, twice.

    (The evaluator's wait, in files where there is a folder; the garbler's rows are of one inference.)
    """
    sent = whole.offline_server_bytes, whole.offline_client_bytes
    circuits, labels = max(sent), LABEL_BYTES // TRANSFER_BYTES * min(sent)
    return labels + (0 if options.get("circuits_dir") else batches * (circuits + labels))


def settled_options(program: Program, weights: Weights, batch: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the class of these weights."""
    return masked.settled_options(program, weights, batch, options, DelphiOptions)
