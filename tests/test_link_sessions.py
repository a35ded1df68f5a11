"""Sessions over links: what the parties count is what they count on loopback, and the kernel agrees."""

import dataclasses

import pytest
from test_link import needs_namespaces
from test_session import plan

from pibench.errors import PartyError
from pibench.links.link import Link, open_link
from pibench.mpc.spec import found
from pibench.run.wirecheck import wire_of
from pibench.session import session as session_module
from pibench.session.session import run_session

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(found(), "fake", "fake_protocol:SPEC")


def counts(result):
    """Bytes and rounds of every inference, by role."""
    return {
        role: [(tally["sent_bytes"], tally["received_bytes"], tally["rounds"]) for tally in tallies]
        for role, tallies in result.online.items()
    }


@pytest.mark.parametrize(
    "how", ["paced", pytest.param("wire", marks=needs_namespaces), pytest.param("veth", marks=needs_namespaces)]
)
def test_bytes_and_rounds_do_not_depend_on_the_link(how, tmp_path):
    on_loopback = run_session(plan(tmp_path)[0])
    rtt_ms = None if how == "veth" else 30.0
    with open_link(Link(name="l", rtt_ms=rtt_ms, mbit_s=None if how == "veth" else 200.0, how=how)) as up:
        session_plan, _ = plan(tmp_path, link=up, probe=True)
        result = run_session(session_plan)
    assert counts(result) == counts(on_loopback)
    assert result.probe is not None
    assert result.probe["rtt_ms"] >= (rtt_ms or 0.0) * 0.95
    if rtt_ms:  # two dependent messages: there and back
        assert min(tally["time_s"] for tally in result.online["client"]) >= rtt_ms / 1e3
    if up.interface:
        wire = wire_of(result.wire)
        assert wire.sent.payload_bytes == sum(sent for sent, _, _ in counts(result)["client"]) + sum(
            tally["sent_bytes"] for tally in [result.setup["client"], *result.offline["client"]]
        )
        assert wire.sent.ratio > 1.0
    else:
        assert result.wire is None


def event(**changes):
    interface = {"sent_bytes": 1_060_000, "sent_packets": 900, "received_bytes": 1_060_000, "received_packets": 900}
    return {"interface": {**interface, **changes}, "sent_bytes": 1_000_000, "received_bytes": 1_000_000, "rounds": 4}


def test_headers_and_framing_are_no_difference():
    wire = wire_of(event())
    assert wire.received.ratio == pytest.approx(1.06)
    assert wire.sent.packets == 900


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sent_bytes": 999_000}, "1000 bytes of payload never crossed the link"),
        ({"received_bytes": 2_000_000}, "are neither payload nor headers"),
    ],
)
def test_a_difference_beyond_framing_fails(changes, complaint):
    with pytest.raises(PartyError, match=complaint):
        wire_of(event(**changes))


def test_parties_with_different_programs_stop_before_setup(tmp_path, monkeypatch):
    original = session_module._job

    def other_program(plan, role, *rest):
        job = original(plan, role, *rest)
        if role == "client":
            job = dataclasses.replace(job, program=[*job.program[:-1], {**job.program[-1], "stage": "S9"}])
        return job

    session_plan, _ = plan(tmp_path)
    monkeypatch.setattr(session_module, "_job", other_program)
    with pytest.raises(PartyError, match=r"disagree on the program .*\(in setup\)"):
        run_session(session_plan)
