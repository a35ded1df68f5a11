"""What a protocol declares of a case before it runs: rounds, bytes, and memory, for the weights that it will run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pibench.mpc.protocol import Cost, cost_function, settled_options, total_cost
from pibench.mpc.spec import load, spec_of
from pibench.records.record import Declared
from pibench.run.prepare import Prepared
from pibench.run.settings import CasePlan


def declared_cost(case: CasePlan, prepared: Prepared) -> Declared | None:
    """Return what the protocol declares for one batch of this network, if it declares anything."""
    total = total_cost(prepared.program, case.protocol, case.batch, _settled(case, prepared))
    return None if total is None else Declared(**asdict(total))


def held_bytes(case: CasePlan, prepared: Prepared, batches: int) -> int:
    """Return what the protocol estimates to hold in memory at once for so many batches."""
    cost, program = cost_function(case.protocol), prepared.program
    options = _settled(case, prepared)
    each = [cost(program, op, case.batch, options) for op in program] if cost else []
    largest = max(each, key=lambda one: one.server_bytes, default=Cost())
    held: int = load(spec_of(case.protocol).holds)(sum(each, Cost()), largest, batches, case.options)
    return held


def _settled(case: CasePlan, prepared: Prepared) -> Mapping[str, Any]:
    """Return the case's options with what a protocol's sizes depend on of the network's weights."""
    if not spec_of(case.protocol).settles:
        return case.options
    from safetensors.torch import load_file

    weights = load_file(prepared.weights_path)
    return settled_options(prepared.program, weights, case.protocol, case.batch, case.options)
