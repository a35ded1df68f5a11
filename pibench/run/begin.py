"""The record of a run that is about to begin: where, with what, and whose commit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pibench import __version__
from pibench.library import resolve
from pibench.records.git import git_state
from pibench.records.machine import machine, versions
from pibench.records.record import SCHEMA, Record
from pibench.run.settings import CardSource, OwnModel, RunPlan


def blank(plan: RunPlan, record_id: str) -> Record:
    """Return the record of a run that is about to begin here."""
    return Record(
        schema=SCHEMA, id=record_id, created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        pibench_version=__version__, command=plan.command, seed=plan.seed, suite=plan.suite, machine=machine(),
        versions=versions(), git=git_state(origin(plan)),
    )  # fmt: skip


def origin(plan: RunPlan) -> Path:
    """Return the folder whose commit a run belongs to: that of one's own network, card or suite, else pibench's.

    What comes with pibench is known by pibench's own version; a module is imported from the current folder.
    """
    own = Path(__file__).resolve().parents[2]
    if not plan.sources or any(isinstance(source, OwnModel) for source in plan.sources.values()):
        return Path.cwd()
    files = [resolve(source.card, "networks", "network") for source in plan.sources.values()
             if isinstance(source, CardSource)]  # fmt: skip
    files += [Path(plan.suite.path)] if plan.suite.path else []
    ours = (own, Path(__file__).resolve().parents[1])
    theirs = [file.resolve().parent for file in files if not any(file.resolve().is_relative_to(o) for o in ours)]
    return next((folder for folder in theirs if folder.is_dir()), own)
