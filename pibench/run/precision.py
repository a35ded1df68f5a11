"""`--precision 2%`: more sessions for the cases whose interval is still too wide, until none is or the time is up."""

from __future__ import annotations

import dataclasses
import math

from pibench.records.measures import MEASURES, estimate_of
from pibench.records.record import Case, Record
from pibench.run.settings import RunPlan

FEWEST = 5  # sessions before an interval over sessions means anything
GROWTH = 2.0  # at most so many times the sessions in one go: the first spread is a rough one
MOST = 1000
CHEAP_S, FIRM, FIRM_MOST = 1.5, 0.05, 9  # a session's cost, half an interval as a share, and sessions at most


def half_width(case: Case, seed: int = 0) -> float:
    """Return half the interval of the online latency as a share of it; inf where there are too few sessions."""
    estimate = estimate_of(case, MEASURES["online_s"], seed)
    return estimate.relative_half_width if estimate and estimate.n_sessions >= FEWEST else math.inf


def sessions_wanted(case: Case, precision: float, seed: int = 0) -> int:
    """Return how many sessions the case should have; as many as it has when its interval is narrow enough.

    An interval narrows with the square root of the sessions.
    """
    have, width = len(case.sessions), half_width(case, seed)
    if width <= precision:
        return have
    if math.isinf(width):
        return max(FEWEST, have + 1)
    wanted = math.ceil(have * min(GROWTH, (width / precision) ** 2))
    return min(MOST, max(have + 1, wanted))


def next_plan(plan: RunPlan, record: Record, precision: float, left_s: float) -> RunPlan | None:
    """Return the plan of another round for the cases that need one, None when none does or no time is left."""
    short = {c.id: sessions_wanted(c, precision, record.seed) for c in record.cases if c.status == "done"}
    short = {case_id: n for case_id, n in short.items() if n > len(record.case(case_id).sessions)}
    cases = tuple(case for case in plan.cases if case.id in short)
    if not cases or left_s <= 0:
        return None
    one_round_s = sum(_session_s(record.case(case.id)) for case in cases)
    fewest = min(len(record.case(case.id).sessions) for case in cases)
    affordable = fewest + int(left_s // one_round_s) if one_round_s > 0 else MOST
    sessions = min(max(short.values()), affordable)
    return dataclasses.replace(plan, cases=cases, sessions=sessions) if sessions > fewest else None


def cheap_plan(plan: RunPlan, record: Record, left_s: float) -> RunPlan | None:
    """Return the plan of one more session for cases whose sessions cost little and whose intervals say little yet.

    A suite's `firm_s` bounds the time: a headline from five inferences of a millisecond would be noise, and more of
    them cost nothing. None when all that is cheap is firm, or no time is left.
    """
    open_cases = {
        case.id: len(case.sessions) for case in record.cases
        if case.status == "done" and _session_s(case) <= CHEAP_S and half_width(case, record.seed) > FIRM
        and len(case.sessions) < FIRM_MOST
    }  # fmt: skip
    fewest = min(open_cases.values(), default=0)
    cases = tuple(case for case in plan.cases if open_cases.get(case.id) == fewest)
    cost_s = sum(_session_s(record.case(case.id)) for case in cases)
    return dataclasses.replace(plan, cases=cases, sessions=fewest + 1) if cases and cost_s <= left_s else None


def verdict(record: Record, precision: float) -> list[str]:
    """Return a line for each case that is still wider than asked for."""
    wide = [(case.id, half_width(case, record.seed)) for case in record.cases if case.status == "done"]
    return [
        f"{case}: ±{width:.1%}, not ±{precision:.1%}: the time was up" if math.isfinite(width)
        else f"{case}: fewer than {FEWEST} sessions: the time was up"
        for case, width in wide if width > precision
    ]  # fmt: skip


def _session_s(case: Case) -> float:
    return sum(session.wall_s for session in case.sessions) / max(1, len(case.sessions))
