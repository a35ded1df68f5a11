"""Thresholds: how much of a change each measure of each case may show, from the suite and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pibench.errors import UsageError
from pibench.records.measures import Measure, named
from pibench.records.record import Case, SuiteInfo


@dataclass(frozen=True)
class Threshold:
    """A tolerance for one measure; the last one that fits a case counts. `cases` is a shell pattern on the case id."""

    measure: str
    tolerance: float
    cases: str = "*"
    group: str = ""  # a protocol, link or method by name; "" fits all
    sees: float | None = None  # the change that the sample should be able to see

    def fits(self, measure: str, case: Case) -> bool:
        """Whether it speaks about this measure of this case."""
        groups = {case.protocol, case.link.name, case.device, case.network.method, case.network.dataset or ""}
        return measure == self.measure and fnmatchcase(case.id, self.cases) and (not self.group or self.group in groups)


def tolerance_of(measure: Measure, case: Case, thresholds: Sequence[Threshold]) -> tuple[float, float]:
    """Return (tolerance, the change to be seen) of a measure of a case."""
    tolerance, sees = measure.tolerance, measure.sees
    for threshold in thresholds:
        if threshold.fits(measure.name, case):
            tolerance = threshold.tolerance
            sees = threshold.sees if threshold.sees is not None else max(measure.sees, 2 * tolerance)
    return tolerance, sees


def parse_threshold(text: str) -> Threshold:
    """Read `MEASURE[@PATTERN|@group:NAME]=TOLERANCE`, such as `online_s@*/masked/*=3%` or `rounds=0`."""
    left, equals, right = text.partition("=")
    name, _, where = left.strip().partition("@")
    if not equals:
        raise UsageError(f"{text!r} is not a threshold", remedy="write MEASURE=TOLERANCE, such as online_s=3%")
    named([name])
    group = where.removeprefix("group:") if where.startswith("group:") else ""
    return Threshold(name, parse_share(right), cases="*" if group or not where else where, group=group)


def parse_share(text: str) -> float:
    """Read `2%` or `0.02`; UsageError for anything else or a negative one."""
    number, scale = (text.strip()[:-1], 0.01) if text.strip().endswith("%") else (text, 1.0)
    try:
        value = float(number) * scale
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 1e6:  # nan fails too
        raise UsageError(f"{text!r} is not a share", remedy="write a percentage such as 2%, or 0.02")
    return value


def suite_thresholds(suite: SuiteInfo) -> list[Threshold]:
    """Return the thresholds of the suite that a record ran (its text travels in the record)."""
    import yaml

    try:
        data = yaml.safe_load(suite.text)
    except yaml.YAMLError:
        return []  # a record made by hand; the suite itself was checked when it ran
    rows = data.get("thresholds") if isinstance(data, dict) else None
    return [_from_suite(row, suite) for row in rows] if isinstance(rows, list) else []


def _from_suite(row: Any, suite: SuiteInfo) -> Threshold:
    where = f"{suite.path or suite.name}: thresholds"
    if not isinstance(row, dict) or "measure" not in row or "tolerance" not in row:
        raise UsageError("a threshold names a measure and a tolerance", where=where)
    named([str(row["measure"])])
    sees = row.get("sees")
    return Threshold(
        str(row["measure"]), parse_share(str(row["tolerance"])), cases=str(row.get("cases") or "*"),
        group=str(row.get("group") or ""), sees=None if sees is None else parse_share(str(sees)),
    )  # fmt: skip
