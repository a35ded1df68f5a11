"""A party that breaks the rules where nobody deals: between two real processes, one line and status 2 each."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_session import plan, wait_gone

from pibench.errors import PartyError
from pibench.mpc.spec import found
from pibench.session.launch import Nurseries
from pibench.session.session import run_session

pytestmark = pytest.mark.timeout(240)
PATIENCE_S = 6.0
MISSED = r"said nothing for 6 s|closed the connection|connection to the peer broke"


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(found(), "faulty", "faulty_party:SPEC")


@pytest.fixture(scope="module")
def nurseries() -> Iterator[Nurseries]:
    """Processes that have everything imported and compiled."""
    with Nurseries(("faulty_party", "pibench.mpc.masked.sources.rehearsal:compile_exchanges")) as made:
        yield made


@pytest.fixture
def pids(pids: list[int]) -> Iterator[list[int]]:
    yield pids
    for pid in pids:  # one that was stopped, if the session did not end it
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize(
    ("role", "how", "says"),
    [
        ("client", "flip", r"^server: the request for \w+ arrived damaged"),
        ("server", "flip", r"^client: the answer for \w+ arrived damaged"),
        ("client", "forge", r"^server: the request for \w+ from the peer holds numbers that are no residues"),
        ("client", "short", MISSED),
        ("client", "long", rf"arrived damaged|another point of the program|{MISSED}"),
        ("server", "long", rf"arrived damaged|another point of the program|{MISSED}"),
        ("client", "close", r"server: .*(closed the connection|broke)"),
        ("server", "close", r"client: .*(closed the connection|broke)"),
        ("client", "stop", r"server: the peer said nothing for 6 s"),
        ("client", "old version", r"encrypts other layers, or by another version"),
        ("server", "old version", r"encrypts other layers, or by another version"),
        ("server", "unknown class", r"^client: the server names a class of weights, 2\^23, that there is not"),
        ("client", "low order", r"^server: base OT: the peer sent a point of low order"),
        ("server", "low order", r"^client: base OT: the peer sent a point of low order"),
    ],
)
def test_a_fault_is_named_and_ends_both(
    role: str, how: str, says: str, tmp_path: Path, pids: list[int], nurseries: Nurseries
) -> None:
    options = {"provider": "two-party", "misbehave": {"role": role, "how": how}}
    session_plan, _ = plan(
        tmp_path, protocol="faulty", options=options, inferences=1, timeout_s=PATIENCE_S, deadline_s=100.0
    )
    with pytest.raises(PartyError, match=says) as raised:
        run_session(session_plan, None, nurseries.start)
    assert raised.value.exit_status == 2
    assert "Traceback" not in raised.value.what
    assert wait_gone(pids)


def test_without_a_fault_it_answers(tmp_path: Path, nurseries: Nurseries) -> None:
    import torch

    session_plan, reference = plan(
        tmp_path, protocol="faulty", options={"provider": "two-party"}, inferences=1, deadline_s=100.0
    )
    result = run_session(session_plan, None, nurseries.start)
    assert torch.allclose(torch.tensor(result.logits).flatten(0, 1), reference, atol=2**-8)
