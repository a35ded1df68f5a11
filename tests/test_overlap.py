"""Offline work of the next inference beside the online phase of this one: rates, answers, faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_session import gone, plan

from pibench.errors import PartyError, UsageError
from pibench.mpc.spec import found
from pibench.run.answers import check
from pibench.run.assemble import assemble
from pibench.session.session import SessionResult, run_session
from pibench.session.turn import ADDRESS

pytestmark = pytest.mark.timeout(120)
OFFLINE_S, ONLINE_S = 0.3, 0.2


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(found(), "fake", "fake_protocol:SPEC")


def assembled(result: SessionResult, reference: torch.Tensor) -> Any:
    logits = torch.tensor(result.logits, dtype=torch.float64).flatten(0, 1).numpy()
    correctness = check(logits, reference.double().numpy(), 0.01)
    return assemble(result, index=0, order=0, warmups=1, correctness=correctness, accuracy=None)


def test_the_longer_of_both_phases_gives_the_rate(tmp_path: Path) -> None:
    options = {"offline_s": OFFLINE_S, "delay_s": ONLINE_S, "overlap": True}
    session_plan, reference = plan(tmp_path, inferences=6, options=options)
    session = assembled(run_session(session_plan), reference)
    assert session.correctness.agreeing == 7
    assert session.sustained is not None
    assert session.sustained.inferences == 6
    each = session.sustained.seconds / 6
    assert OFFLINE_S <= each < OFFLINE_S + ONLINE_S  # in turn they would take the sum
    assert session.offline.inferences == 7
    assert session.offline.client.time_s >= 7 * OFFLINE_S
    assert all(i.online_s >= ONLINE_S for i in session.inferences)


def test_in_turn_no_steady_rate_is_claimed(tmp_path: Path) -> None:
    session_plan, reference = plan(tmp_path, inferences=2)
    session = assembled(run_session(session_plan), reference)
    assert session.sustained is None
    assert session.offline.held_bytes is None  # this protocol does not know


@pytest.mark.parametrize(
    ("protocol", "provider"),
    [("masked", "first-party"), ("masked", "dealer"), ("masked", "two-party"), ("delphi", "garbling")],
)
def test_phases_overlap_whoever_makes_the_material(tmp_path: Path, protocol: str, provider: str) -> None:
    settings: dict[str, Any] = {"protocol": protocol, "timeout_s": 60.0, "deadline_s": 100.0, "offline_chunk": 1}
    found = []
    for overlap in (False, True):
        folder = tmp_path / str(overlap)
        folder.mkdir()
        session_plan, reference = plan(
            folder, inferences=2, **settings, options={"provider": provider, "overlap": overlap}
        )
        result = run_session(session_plan)
        assert torch.allclose(torch.tensor(result.logits).flatten(0, 1), reference, atol=2**-8)
        found.append(assembled(result, reference))
    alone, beside = found
    for phase in ("setup", "offline"):  # the same messages, over two connections
        for role in ("server", "client"):
            one, two = (getattr(getattr(session, phase), role) for session in found)
            assert (one.sent_bytes, one.received_bytes) == (two.sent_bytes, two.received_bytes)
    assert alone.inferences[1].client.rounds == beside.inferences[1].client.rounds
    assert alone.sustained is None
    assert beside.sustained.inferences == 2
    assert beside.offline.held_bytes == alone.offline.held_bytes
    assert (beside.offline.held_bytes is None) == (protocol == "delphi")


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_fault_offline_is_the_reason_that_is_given(tmp_path: Path, role: str) -> None:
    fault = {"role": role, "phase": "offline", "how": "raise"}
    session_plan, _ = plan(tmp_path, options={"overlap": True, "misbehave": fault})
    with pytest.raises(PartyError, match=rf"^{role}: ValueError: planted"):
        run_session(session_plan)


def test_overlapping_sessions_take_no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    from pibench.session.party import _run_overlapped
    from pibench.session.turn import Turn

    monkeypatch.setattr(Turn, "shared", True)
    monkeypatch.delenv(ADDRESS, raising=False)
    with pytest.raises(UsageError, match="take no turns"):
        _run_overlapped(type("Job", (), {"role": "server"}), None, None, None, None, None)  # type: ignore[arg-type]


def test_no_process_is_left(tmp_path: Path, pids: list[int]) -> None:
    session_plan, _ = plan(tmp_path, options={"overlap": True})
    run_session(session_plan)
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)
