"""The history of one measure of one case: a series over commits, its steps, and the commits that each step may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pibench.errors import UsageError
from pibench.records.changepoints import Step, find_steps
from pibench.records.git import git
from pibench.records.index import Index
from pibench.records.measures import MEASURES, Measure

MOST_COMMITS = 20  # named at one step


@dataclass(frozen=True)
class Point:
    """One run in a series."""

    run_id: str
    created_utc: str
    commit: str | None
    dirty: bool
    value: float
    low: float
    high: float
    sessions: int


@dataclass(frozen=True)
class Commits:
    """The commits that came in with a step; `note` says why there may be none."""

    lines: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class History:
    """A series in the order of its commits, with its steps; `commits[i]` belongs to `steps[i]`."""

    case: str
    measure: Measure
    machine: str
    points: tuple[Point, ...]
    steps: tuple[Step, ...]
    commits: tuple[Commits, ...]
    setting: str = ""  # threads and link of the times
    left_out: int = 0  # runs on other machines
    left_out_settings: int = 0  # runs on this one with other threads or over another link


def history(
    index: Index, case_id: str, measure_name: str = "online_s", machine: str | None = None, tree: Path | None = None
) -> History:
    """Return the history of a case.

    Times are those of one machine (the newest run's by default), and of the threads and link of its newest run.
    """
    if measure_name not in MEASURES:
        raise UsageError(f"no measure is named {measure_name!r}", remedy=f"choose among {', '.join(MEASURES)}")
    measure = MEASURES[measure_name]
    rows = index.series(match_case(index, case_id), measure_name)
    if not rows:
        raise UsageError(f"no run has {measure_name} of {case_id!r}", remedy="run its suite first: `pibench run`")
    keys = [row["machine"] for row in rows]
    chosen = machine or keys[-1]
    kept = [row for row in rows if measure.exact or row["machine"] == chosen]
    if not kept:
        raise UsageError(
            f"no run of {case_id!r} on machine {chosen!r}", remedy=f"machines: {', '.join(sorted(set(keys)))}"
        )
    here, words = len(kept), kept[-1]["setting"]
    kept = [row for row in kept if measure.exact or row["setting"] == words]
    points = in_commit_order([_point(row) for row in kept], tree)
    steps = find_steps([point.value for point in points], exact=measure.exact)
    commits = tuple(_between(points[step.index - 1], points[step.index], tree) for step in steps)
    return History(
        match_case(index, case_id), measure, "any" if measure.exact else chosen, tuple(points), tuple(steps), commits,
        "any" if measure.exact else words, len(rows) - here, here - len(kept),
    )  # fmt: skip


def match_case(index: Index, text: str) -> str:
    """Return the one case of that id, or whose id holds the text; UsageError with the choices otherwise."""
    known = [case for case, _ in index.cases()]
    if text in known:
        return text
    fitting = [case for case in known if text in case]
    if len(fitting) == 1:
        return fitting[0]
    shown = "\n".join(f"    {case}" for case in (fitting or known)[:20])
    what = f"{len(fitting)} cases match {text!r}" if fitting else f"no case in the records matches {text!r}"
    raise UsageError(what, remedy=f"name one of\n{shown}" if shown else "run a suite first: `pibench run`")


def in_commit_order(points: Sequence[Point], tree: Path | None) -> list[Point]:
    """Return the points in the order of their commits where git knows all of them, in that of their runs otherwise."""
    ordered = sorted(points, key=lambda point: (point.created_utc, point.run_id))
    listed = git(tree, "rev-list", "--topo-order", "--reverse", "--all") or ""
    place = {commit: number for number, commit in enumerate(listed.split())}
    if not all(point.commit in place for point in ordered):
        return ordered
    return sorted(ordered, key=lambda point: (place[str(point.commit)], point.dirty, point.created_utc))


def _between(before: Point, after: Point, tree: Path | None) -> Commits:
    if not before.commit or not after.commit:
        return Commits(note="the records name no commit")
    if before.commit == after.commit:
        changed = " with uncommitted changes" if after.dirty or before.dirty else ": the machine, or chance"
        return Commits(note=f"same commit {after.commit[:10]}{changed}")
    text = git(tree, "log", "--format=%h %s", f"{before.commit}..{after.commit}")
    if text is None:
        return Commits((f"{before.commit[:10]}..{after.commit[:10]}",), "this tree does not hold the commits")
    lines = text.splitlines()
    more = f"and {len(lines) - MOST_COMMITS} more" if len(lines) > MOST_COMMITS else ""
    return Commits(tuple(lines[:MOST_COMMITS]), more)


def _point(row: dict[str, Any]) -> Point:
    return Point(
        row["run_id"], row["created_utc"], row["commit_id"], bool(row["dirty"]), row["value"], row["low"], row["high"],
        row["sessions"],
    )  # fmt: skip
