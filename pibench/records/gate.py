"""The gate for CI: counted measures against a baseline with zero tolerance on any machine, times on the same one only.

The baseline is itself a record, without warm-ups and parts: everything that reads records reads it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pibench.errors import StoreError, UsageError
from pibench.records.compare import Comparison, Options, compare
from pibench.records.files import load_record
from pibench.records.record import Case, Parts, PartyOnline, Record, Session

KEPT_INFERENCES = 8  # a session, for times on the same machine


def judge(record: Record, baseline: Record, options: Options | None = None, *, time: bool = True) -> Comparison:
    """Return the comparison with the baseline; without `time` only counted measures are judged.

    UsageError for a record of another suite: nothing in it is a regression.
    """
    options = options or Options()
    if record.suite.name != baseline.suite.name:
        raise UsageError(
            f"the record is of suite {record.suite.name!r}, the baseline of {baseline.suite.name!r}", where=record.id,
            remedy=f"run {baseline.suite.name}, or name another baseline with --baseline",
        )  # fmt: skip
    if not time:
        options = replace(options, measures=tuple(m for m in options.measures if m.exact))
    if not options.measures:
        raise UsageError(
            "no measure is left to judge: times are not", remedy="name a counted one too, such as -m rounds"
        )
    return compare(baseline, record, options)


def slim(record: Record) -> Record:
    """Return the record as a baseline: what the gate reads and nothing else."""
    unfinished = [case.id for case in record.cases if case.status != "done"]
    if unfinished or not record.cases:
        what = f"{unfinished[0]} is not done" if unfinished else "it has no case"
        raise UsageError(
            f"this record cannot be a baseline: {what}", where=record.id, remedy="run the suite to its end"
        )
    return record.model_copy(update={"command": (), "cases": tuple(_slim_case(case) for case in record.cases)})


def save_baseline(record: Record, path: Path) -> None:
    """Write a baseline, with one line a field where that helps to review a change."""
    data = json.loads(slim(record).model_dump_json(by_alias=True))
    sessions = {case["id"]: case.pop("sessions") for case in data["cases"]}
    for case in data["cases"]:
        case["sessions"] = f"@{case['id']}@"
    text = json.dumps(data, indent=1)
    for case_id, rows in sessions.items():
        lines = ",\n    ".join(json.dumps(row, separators=(",", ":")) for row in rows)
        text = text.replace(json.dumps(f"@{case_id}@"), f"[\n    {lines}\n   ]")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"the baseline cannot be written: {error.strerror}", where=str(path)) from error


def load_baseline(path: Path) -> Record:
    """Read a baseline; UsageError with the remedy where there is none."""
    if not path.is_file():
        raise UsageError("there is no baseline", where=str(path), remedy="make one: pibench gate --update")
    return load_record(path)


def _slim_case(case: Case) -> Case:
    return case.model_copy(update={"sessions": tuple(_slim_session(session) for session in case.sessions)})


def _slim_session(session: Session) -> Session:
    measured = [inference for inference in session.inferences if not inference.warmup]
    kept = measured[:: -(-len(measured) // KEPT_INFERENCES) or 1]  # from all over the session
    bare = [i.model_copy(update={"server": _bare(i.server), "client": _bare(i.client)}) for i in kept]
    return session.model_copy(update={"inferences": tuple(bare), "parts": ()})


def _bare(side: PartyOnline) -> PartyOnline:
    return side.model_copy(update={"parts": Parts()})
