"""What a run would do with one's own networks before it measures: everything that can be wrong with them, at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pibench.errors import PibenchError
from pibench.run.settings import Needs, OwnModel, RunPlan


def faults(plan: RunPlan) -> dict[str, PibenchError]:
    """Make, load and lower each network of one's own, and run it on one image; returns what is wrong, by its name."""
    names = dict.fromkeys(case.network for case in plan.cases)
    own = {name: source for name in names if isinstance(source := plan.sources[name], OwnModel)}
    if not own:
        return {}
    from pibench.run.prepare import prepare_model

    found: dict[str, PibenchError] = {}
    needs = Needs(images=1, plain_images=1, seed=plan.seed, merge=plan.merge)
    with tempfile.TemporaryDirectory(prefix="pibench-rehearsal-") as folder:
        for name, model in own.items():
            try:
                prepare_model(model, Path(folder), needs, lambda _: None)
            except PibenchError as error:
                found[name] = error
    return found
