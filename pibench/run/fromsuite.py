"""From a suite and the command line's wishes to the plan of a run."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pibench.errors import UsageError
from pibench.records.files import load_record
from pibench.records.record import SuiteInfo
from pibench.registry import DATASETS
from pibench.run.settings import CardSource, CasePlan, OwnModel, RunPlan, Source, select
from pibench.suite import CaseEntry, Suite, load_suite


def plan_of(
    suite: str, *, expression: str | None = None, sessions: int | None = None, inferences: int | None = None,
    seed: int | None = None, own: Sequence[OwnModel] = (), resumed: Path | None = None, command: tuple[str, ...] = (),
) -> RunPlan:  # fmt: skip
    """Return the plan of a suite (a name, a file, or a record to run again); the wishes go before the suite's words."""
    found = _suite_of_record(Path(suite)) if suite.endswith(".json") else load_suite(suite)
    wishes = {"sessions": sessions, "inferences": inferences, "seed": seed, "command": command or None}
    given: dict[str, Any] = {name: value for name, value in wishes.items() if value is not None}
    plan = plan_from(found, own)
    if resumed is not None and (old := load_record(resumed)).suite.sha256 != plan.suite.sha256:
        raise UsageError(
            f"the record is of suite {old.suite.name!r} as it was then, not of this {plan.suite.name!r}",
            where=str(resumed), remedy=f"give the suite of the record, or run it as it was: pibench run {resumed}",
        )  # fmt: skip
    return dataclasses.replace(plan, cases=select(plan.cases, expression), **given)


def plan_from(suite: Suite, own: Sequence[OwnModel] = ()) -> RunPlan:
    """Return the plan of a suite; `own` ones take the place of all its networks."""
    cells = suite.cases()
    sources: dict[str, Source] = {cell.network: _source(cell, suite.path.parent) for cell in cells}
    cases = [_case(cell) for cell in cells]
    if own:
        sources = {model.name: model for model in own}
        if len(sources) < len(own):
            raise UsageError("two of your networks have one name", where="--model", remedy="give each its --label")
        cases = [dataclasses.replace(case, network=name) for name in sources for case in cases]
    return RunPlan(
        suite=info_of(suite),
        cases=tuple({case.id: case for case in cases}.values()), sources=sources, sessions=suite.sessions,
        inferences=suite.inferences, warmups=suite.warmups, seed=suite.seed, pin=suite.pin,
        interleave=suite.interleave, offline_chunk=suite.offline_chunk, timeout_s=suite.timeout_s,
        deadline_s=suite.deadline_s, accuracy_images=suite.accuracy_images, merge=suite.merge, firm_s=suite.firm_s,
    )  # fmt: skip


def info_of(suite: Suite) -> SuiteInfo:
    """Return what a record says of its suite."""
    return SuiteInfo(name=suite.name, path=str(suite.path), sha256=suite.sha256, text=suite.text)


def _case(cell: CaseEntry) -> CasePlan:
    return CasePlan(
        network=cell.network, protocol=cell.protocol, options=dict(cell.options), label=cell.label,
        link=cell.link.given, device=cell.device, batch=cell.batch, threads=cell.threads, tolerance=cell.tolerance,
    )  # fmt: skip


def _source(cell: CaseEntry, folder: Path) -> Source:
    entry = cell.entry
    weights = None if entry.weights is None else near(Path(entry.weights), folder)
    if cell.card is not None:
        return CardSource(cell.card, weights)
    dataset = entry.dataset
    if dataset is not None and dataset not in DATASETS:
        dataset = str(near(Path(dataset), folder))
    return OwnModel(
        str(entry.model), tuple(entry.input or ()), weights, dataset=dataset, output=entry.output,
        normalise=tuple(entry.normalise) if entry.normalise else None, label=entry.label or "", method=entry.method,
    )  # fmt: skip


def near(path: Path, folder: Path) -> Path:
    """Return a file that a suite names: from the current folder, else from the suite's."""
    return path if path.exists() or path.is_absolute() else folder / path


def _suite_of_record(path: Path) -> Suite:
    """Return the suite that a record was made from, as it was then."""
    record = load_record(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{record.suite.name}.yaml"
        copy.write_text(record.suite.text, encoding="utf-8")
        return load_suite(copy).lying_at(Path(record.suite.path))
