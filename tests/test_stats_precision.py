"""`--precision`: more sessions where the interval is wide, none where it is narrow or the time is up."""

from __future__ import annotations

import math

from fakes import fake_record

from pibench.records.record import Record, SuiteInfo
from pibench.run.precision import FEWEST, half_width, next_plan, sessions_wanted, verdict
from pibench.run.settings import CasePlan, RunPlan


def record(sessions: int, noise: float, seed: int = 1) -> Record:
    return fake_record(("full", "tiny"), ("masked",), sessions=sessions, seed=seed, session_noise=noise)


def plan(sessions: int) -> RunPlan:
    cases = tuple(CasePlan(network=name, protocol="masked") for name in ("full", "tiny"))
    return RunPlan(suite=SuiteInfo(name="quick"), cases=cases, sources={}, sessions=sessions)


def test_a_narrow_interval_wants_nothing_more() -> None:
    narrow = record(10, 0.001)
    assert sessions_wanted(narrow.cases[0], 0.02) == 10
    assert next_plan(plan(10), narrow, 0.02, 1e9) is None
    assert verdict(narrow, 0.02) == []


def test_few_sessions_have_no_interval_to_speak_of() -> None:
    few = record(2, 0.001)
    assert math.isinf(half_width(few.cases[0]))
    assert sessions_wanted(few.cases[0], 0.02) == FEWEST


def test_a_wide_interval_wants_more_but_not_too_many_at_once() -> None:
    wide = record(10, 0.2)
    assert sessions_wanted(wide.cases[0], 0.02) == 20
    more = next_plan(plan(10), wide, 0.02, 1e9)
    assert more is not None
    assert (more.sessions, len(more.cases)) == (20, 2)


def test_only_cases_that_need_it_run_again() -> None:
    mixed = record(10, 0.2)
    mixed = mixed.with_case(record(10, 0.001).cases[1])
    more = next_plan(plan(10), mixed, 0.02, 1e9)
    assert more is not None
    assert [case.network for case in more.cases] == ["full"]


def test_the_budget_bounds_the_sessions() -> None:
    wide = record(10, 0.2)  # canned sessions took 5 s each
    more = next_plan(plan(10), wide, 0.02, 35.0)
    assert more is not None
    assert more.sessions == 13
    assert next_plan(plan(10), wide, 0.02, 5.0) is None
    assert next_plan(plan(10), wide, 0.02, -1.0) is None
    assert all("the time was up" in line for line in verdict(wide, 0.02))


def test_it_ends() -> None:
    sessions, rounds = 2, 0
    while True:
        more = next_plan(plan(sessions), record(sessions, 0.05), 0.02, 1e9)
        if more is None:
            break
        sessions, rounds = more.sessions, rounds + 1
    assert 5 < sessions < 200
    assert rounds < 10
