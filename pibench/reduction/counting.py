"""Counts of a description, without weights: what budgets are checked against before anything is trained."""

from __future__ import annotations

from functools import lru_cache

from pibench.networks.census import Census
from pibench.networks.spec import AnyNetwork


def count(spec: AnyNetwork) -> Census:
    """Return the census of a description, its masks (if any) all true."""
    return _count(spec.model_dump_json(), type(spec))


@lru_cache(maxsize=512)
def _count(document: str, kind: type[AnyNetwork]) -> Census:
    from pibench.lowering.lower import lower
    from pibench.networks.build import skeleton, stage_of
    from pibench.networks.census import census

    spec = kind.model_validate_json(document)
    return census(lower(skeleton(spec), spec.input_shape, stage_of)[0])


def stage_relus(spec: AnyNetwork, stages: int) -> dict[int, int]:
    """Return the ReLUs of every stage by number; the stem's count with stage 1, the head's with the last."""
    by_stage = count(spec).relus_by_stage
    numbers = {f"S{stage}": stage for stage in range(1, stages + 1)} | {"stem": 1, "head": stages}
    found = dict.fromkeys(range(1, stages + 1), 0)
    for name, relus in by_stage.items():
        found[numbers[name]] += relus
    return found
