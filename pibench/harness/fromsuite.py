"""From a suite and the command line to the plan of a run."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from pibench.documents import read_yaml
from pibench.harness.plan import CasePlan, OwnModel, RunPlan, select
from pibench.harness.record import SuiteInfo
from pibench.networks.card import resolve


def plan_of(
    suite: str, *, expression: str | None = None, sessions: int | None = None, inferences: int | None = None,
    seed: int | None = None, own: OwnModel | None = None, resumed: Path | None = None, command: tuple[str, ...] = (),
) -> RunPlan:  # fmt: skip
    """Return the plan of a suite, given by name or file; the command line's wishes go before the suite's."""
    path = resolve(suite, "suites", "suite")
    data, _ = read_yaml(path)
    plan = _plan(data, path, own)
    wishes = {"sessions": sessions, "inferences": inferences, "seed": seed, "command": command or None}
    given: dict[str, Any] = {name: value for name, value in wishes.items() if value is not None}
    return dataclasses.replace(plan, cases=select(plan.cases, expression), **given)


def _plan(data: dict[str, Any], path: Path, own: OwnModel | None) -> RunPlan:
    text = path.read_text(encoding="utf-8")
    networks = [own.name] if own is not None else data["networks"]
    cases = tuple(
        CasePlan(network=network, protocol=protocol, batch=batch, threads=data.get("threads", 1))
        for network in networks
        for protocol in data["protocols"]
        for batch in data.get("batches", [1])
    )
    info = SuiteInfo(name=path.stem, path=str(path), sha256=hashlib.sha256(text.encode()).hexdigest(), text=text)
    settings = {name: data[name] for name in ("sessions", "inferences", "warmups", "seed", "pin") if name in data}
    return RunPlan(suite=info, cases=cases, **settings)
