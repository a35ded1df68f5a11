"""Faults: each ends within its deadline, names its cause, and leaves neither process nor damaged record."""

import os
import random
import resource
import signal
import threading
import time

import pytest
from sabotage import Saboteur
from test_run import make_plan, make_run
from test_session import plan, wait_gone
from two_threads import channel_pair

from pibench.errors import PartyError, PibenchError
from pibench.links.link import PROFILES
from pibench.links.meter import Meter
from pibench.mpc.spec import found
from pibench.records.files import load_record
from pibench.session import children as children_module
from pibench.session.session import run_session

pytestmark = pytest.mark.timeout(120)
PATIENCE_S = 4.0


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(found(), "fake", "fake_protocol:SPEC")


@pytest.fixture
def pids(monkeypatch):
    found = {}
    start = children_module.Children.start

    def spy(self, job, *rest):
        child = start(self, job, *rest)
        found[job.role] = child.process.pid
        return child

    monkeypatch.setattr(children_module.Children, "start", spy)
    return found


CLOSED = r"closed the connection|connection to the peer broke"
SILENT = r"said nothing for 4 s"


@pytest.mark.parametrize(
    ("how", "says"),
    [("cut", SILENT), ("half-close", CLOSED), ("reset", CLOSED), ("truncate", CLOSED),
     ("insert", f"{SILENT}|{CLOSED}|another point")],
)  # fmt: skip
def test_a_broken_link_is_named_by_both_parties_in_time(how, says, tmp_path, pids):
    link = Saboteur(PROFILES["loopback"])
    session_plan, _ = plan(
        tmp_path, link=link, inferences=40, timeout_s=PATIENCE_S, deadline_s=100.0, options={"delay_s": 0.1}
    )
    struck = []

    def strike(phase, batches):
        if phase.startswith("online") and batches >= 2 and not struck:
            struck.append(time.monotonic())
            link.strike(how, random.Random(0))

    with link, pytest.raises(PartyError, match=says) as raised:
        run_session(session_plan, strike)
    assert time.monotonic() - struck[0] < PATIENCE_S + 30
    assert "server: " in raised.value.what
    assert "client: " in raised.value.what
    assert wait_gone(list(pids.values()))


def test_a_corrupted_answer_is_never_called_done(tmp_path, pids):
    link = Saboteur(PROFILES["loopback"])
    session_plan, reference = plan(
        tmp_path, link=link, inferences=12, timeout_s=PATIENCE_S, deadline_s=100.0, options={"delay_s": 0.1}
    )

    def strike(phase, batches):
        if batches == 3:
            link.strike("corrupt", random.Random(0))

    with link:
        try:
            answers = run_session(session_plan, strike).logits
        except PartyError as error:
            assert "peer" in error.what
        else:
            off = [
                abs(a - b)
                for x, y in zip(answers, reference.tolist(), strict=True)
                for a, b in zip(x[0], y, strict=True)
            ]
            assert not max(off) < 0.05  # the comparison with the plaintext network says so; a NaN does, too


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_stalled_party_is_noticed_and_ended(role, tmp_path, pids):
    session_plan, _ = plan(tmp_path, inferences=40, timeout_s=PATIENCE_S, deadline_s=100.0, options={"delay_s": 0.1})

    def stall(phase, batches):
        if batches == 2:
            os.kill(pids[role], signal.SIGSTOP)

    other = {"server": "client", "client": "server"}[role]
    with pytest.raises(PartyError, match=rf"{other}: the peer said nothing for 4 s .*{role}: still in online"):
        run_session(session_plan, stall)
    assert wait_gone(list(pids.values()))


def test_a_full_disk_keeps_the_record_as_it_was(tmp_path, monkeypatch):
    from fakes import FakeParties

    path, one = tmp_path / "run.json", make_plan(("plaintext",), sessions=3)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    parties = FakeParties()

    def full_after_one(*args, **kwargs):
        if len(parties.plans) == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
        return parties(*args, **kwargs)

    run = make_run(one, path, parties, monkeypatch)
    from pibench.run import runner

    monkeypatch.setattr(runner, "run_session", full_after_one)
    try:
        with pytest.raises(PibenchError, match=r"File too large|cannot be written"):
            run.execute()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [len(case.sessions) for case in load_record(path).cases] == [1]
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


def test_a_clock_that_jumps_ends_no_wait(monkeypatch):
    left, right = channel_pair((Meter(), Meter()), timeout_s=20)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    timer = threading.Timer(0.3, left.move, args=(b"x",))
    timer.start()
    into = bytearray(1)
    right.move(None, into)
    assert into == b"x"
    timer.join()
