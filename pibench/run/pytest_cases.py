"""Cases measured for someone else's report (pytest): a suite's selected cases in one interleaved run, or one module."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pibench.mpc.spec import spec_of
from pibench.records.record import Case, Record, SuiteInfo
from pibench.records.store import new_record_path
from pibench.run.listener import Listener
from pibench.run.settings import CasePlan, Needs, RunPlan

if TYPE_CHECKING:
    from torch import nn

    from pibench.run.prepare import Prepare, Prepared

ONCE = {"sessions": 1, "inferences": 1, "warmups": 0}  # a correctness test: each case runs once


class Measured:
    """A suite's cases: run all together when the first is asked for, handed out one by one."""

    def __init__(self, path: Path, wishes: Mapping[str, int | None], *, once: bool, listener: Listener) -> None:
        self._path, self._once, self._listener = path, once, listener
        self._wishes = dict(ONCE) if once else {k: v for k, v in wishes.items() if v is not None}
        self.records: list[Record] = []

    def case(self, case_id: str, selected: Collection[str]) -> Case:
        """Return a case's outcome; `selected` are those that are measured together with it."""
        for record in self.records:
            for case in record.cases:
                if case.id == case_id:
                    return case
        self.records.append(self._run({case_id, *selected}))
        return self.records[-1].case(case_id)

    def _run(self, wanted: Collection[str]) -> Record:
        from pibench.run.fromsuite import plan_of
        from pibench.run.prepare import preparer

        plan = plan_of(str(self._path), command=("pytest", "--benchmark", str(self._path)))
        cases = tuple(case for case in plan.cases if case.id in wanted)
        wishes: dict[str, Any] = self._wishes
        plan = dataclasses.replace(plan, cases=cases, **wishes)
        return execute(plan, preparer(plan.sources, self._listener.told), keep=not self._once, listener=self._listener)


def execute(plan: RunPlan, prepare: Prepare, *, keep: bool, listener: Listener | None = None) -> Record:
    """Run a plan; `keep` puts the record among the others."""
    from pibench.run.begin import blank
    from pibench.run.runner import Run

    path = new_record_path(plan.suite.name)
    folder = None if keep else Path(tempfile.mkdtemp(prefix="pibench-once-"))
    if folder is not None:
        path = folder / path.name
    try:
        return Run(plan, path, blank(plan, path.stem), prepare, listener or Listener()).execute()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def measure_module(
    module: nn.Module, images: Any, labels: Any = None, *, name: str, keep: bool, seed: int = 0,
    protocol: str = "masked", link: str | Mapping[str, Any] = "loopback", options: Mapping[str, Any] | None = None,
    batch: int = 1, threads: int = 1, device: str = "cpu", tolerance: float = 0.01, sessions: int = 3,
    inferences: int = 5, warmups: int = 1,
) -> Record:  # fmt: skip
    """Run one torch module privately on images (n, C, H, W), used in turn; returns the record of its one case.

    `labels` are (n,) integers from 0, `tolerance` a share of the spread of the plaintext logits.
    """
    spec_of(protocol).check(options or {}, device, "auto" if isinstance(link, str) else str(link.get("how", "auto")))
    case = CasePlan(
        network=name, protocol=protocol, options=dict(options or {}), device=device, batch=batch, threads=threads,
        tolerance=tolerance, link={"name": link} if isinstance(link, str) else dict(link),
    )  # fmt: skip
    plan = RunPlan(
        suite=SuiteInfo(name=name), cases=(case,), sources={}, sessions=sessions, inferences=inferences,
        warmups=warmups, seed=seed,
    )  # fmt: skip

    def prepare(_: str, folder: Path, needs: Needs) -> Prepared:
        from pibench.run.prepare import prepare_instance

        return prepare_instance(name, module, images, labels, folder, needs)

    return execute(plan, prepare, keep=keep)
