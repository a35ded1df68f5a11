"""The probe of protocols over gloo: real processes, and what a run writes down of it."""

import pytest
from test_link import needs_namespaces

from pibench.errors import PartyError
from pibench.links.glooprobe import round_ms
from pibench.links.link import PROFILES, Link, LinkUp, open_link, pair_of_processes
from pibench.mpc.crypten.spec import GLOO_HOPS
from pibench.records.record import Case, Declared
from pibench.records.record import Link as Described
from pibench.run import runner

pytestmark = pytest.mark.timeout(120)


@needs_namespaces
def test_a_small_round_over_gloo_takes_four_one_ways_and_a_large_one_its_bytes():
    with open_link(Link(name="g", rtt_ms=60.0, mbit_s=50.0, how="wire")) as up:
        small_ms, large_ms = round_ms(up, 2_000), round_ms(up, 500_000)
    assert 0.9 * GLOO_HOPS * 30.0 <= small_ms < 3 * GLOO_HOPS * 30.0
    assert large_ms - small_ms > 0.4 * 500_000 * 8 / 50e6 * 1e3


def test_loopback_has_a_round_too():
    assert 0.05 < round_ms(LinkUp(PROFILES["loopback"]), 24_000) < 1000.0


def test_a_probe_that_cannot_start_says_so():
    with pytest.raises(PartyError, match="could not start"):
        pair_of_processes(LinkUp(PROFILES["loopback"]), "pibench.mpc.no_such_module")


def test_a_case_over_gloo_is_probed_once_with_its_own_bytes(monkeypatch):
    asked = []
    monkeypatch.setattr(runner, "round_ms", lambda up, n_bytes: asked.append(n_bytes) or 2.5)
    blank = Case(
        id="n/crypten/loopback/cpu/b1", network={"card": "n"}, protocol="crypten", link=Described(name="loopback"),
        declared=Declared(rounds=74, server_bytes=1_733_840, client_bytes=1_733_760),
    )  # fmt: skip
    up, described = LinkUp(PROFILES["loopback"]), Described(name="loopback", probe={"rtt_ms": 0.04})
    run = object.__new__(runner.Run)
    link = runner.Run._with_gloo(run, blank, up, described)
    assert link.probe == {"rtt_ms": 0.04, "gloo_round_ms": 2.5, "gloo_round_bytes": 23_430}
    assert runner.Run._with_gloo(run, blank.model_copy(update={"link": link}), up, described) == link
    assert asked == [23_430]
