"""Predictions are the declared costs, a link's arithmetic, and computing only where something was measured."""

from __future__ import annotations

import networks_for_tests as networks
import pytest
import torch
from fakes import fake_record
from masked_pair import run_masked

from pibench.errors import UsageError
from pibench.mpc.protocol import CLIENT, SERVER, Cost, total_cost
from pibench.records.files import save_record
from pibench.records.machine import machine
from pibench.records.record import Inference, Parts, PartyOnline
from pibench.run.explain import explain
from pibench.run.predict import computing_s, predict, wire_seconds


def test_rounds_and_bytes_are_those_of_a_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    program, weights = networks.program_of("residual")
    said = predict(program, "masked", "wan", 2)
    outcome = run_masked(program, weights, [torch.randn(2, *networks.SHAPE)], relu_messages=2)  # as that link decides
    assert said["rounds"] == outcome.online[CLIENT][0].total.rounds
    assert said["sent by server, bytes"] == outcome.online[SERVER][0].total.sent_bytes
    assert said["sent by client, bytes"] == outcome.online[CLIENT][0].total.sent_bytes
    assert "not known" in str(said["computing, s"])


def test_a_link_charges_one_ways_and_bytes():
    cost = Cost(rounds=10, server_bytes=3_000_000, client_bytes=1_000_000)
    latency_s, transfer_s = wire_seconds(cost, "masked", 40.0, 100.0)
    assert latency_s == pytest.approx(10 * 0.020)
    assert transfer_s == pytest.approx(4_000_000 * 8 / 100e6)  # to and fro, one after the other
    latency_s, transfer_s = wire_seconds(cost, "crypten", 40.0, 100.0)
    assert transfer_s == pytest.approx(3_000_000 * 8 / 100e6)  # both at once
    assert latency_s == pytest.approx(10 * 4 * 0.020)  # over gloo, a round is four one ways
    assert wire_seconds(cost, "crypten", 40.0, 100.0, {"wire": "channel"})[0] == pytest.approx(10 * 0.020)
    assert wire_seconds(cost, "masked", None, None) == (0.0, 0.0)


def test_computing_counts_what_both_do_at_once_only_once():
    parts = [{"time_s": (2.0, 1.0), "wait_s": (0.5, 0.0)}, {"time_s": (1.0, 3.0), "wait_s": (0.0, 1.0)}]
    tallies = [{"time_s": 5.0, "wait_s": 1.5, "rounds": 4, "sent_bytes": 10**6, "parts": Parts(**p)} for p in parts]
    server, client = (PartyOnline.model_construct(received_bytes=0, **tally) for tally in tallies)
    inference = Inference.model_construct(warmup=False, online_s=5.0, server=server, client=client)
    assert computing_s(inference) == pytest.approx(1.5 + 2.0)
    bare = [party.model_copy(update={"parts": Parts()}) for party in (server, client)]
    slim = inference.model_copy(update={"server": bare[0], "client": bare[1]})
    assert computing_s(slim) == pytest.approx(3.5)


@pytest.mark.parametrize(("protocol", "hops", "senders"), [("masked", 1, 2), ("crypten", 4, 1)])
def test_a_case_is_explained_by_the_rules_that_predict_it(protocol, hops, senders):
    record = fake_record(("full",), (protocol,), sessions=2)
    case = record.cases[0]
    probe = {"rtt_ms": 40.0, "floor_ms": 40.0, "up_mbit_s": 100.0, "down_mbit_s": 110.0}
    case = case.model_copy(update={"link": case.link.model_copy(update={"probe": probe})})
    [found] = explain(record.with_case(case))
    one = case.sessions[0].inferences[-1]
    assert found.latency_s == pytest.approx(one.client.rounds * hops * 0.020)
    sent_bytes = sorted([one.server.sent_bytes, one.client.sent_bytes])
    assert found.transfer_s == pytest.approx(sum(sent_bytes[-senders:]) * 8 / 100e6)
    assert found.explained_s == pytest.approx(found.compute_s + found.latency_s + found.transfer_s)


def test_a_round_over_gloo_is_what_the_probe_found_it_to_take():
    record = fake_record(("full",), ("crypten",), sessions=2)
    case = record.cases[0]
    probe = {"rtt_ms": 0.04, "floor_ms": 0.04, "up_mbit_s": 1e4, "down_mbit_s": 1e4, "gloo_round_ms": 3.0}
    case = case.model_copy(update={"link": case.link.model_copy(update={"probe": probe})})
    [found] = explain(record.with_case(case))
    rounds = case.sessions[0].inferences[-1].client.rounds
    assert found.latency_s + found.transfer_s == pytest.approx(rounds * 0.003)


def test_full_resnet18_under_stock_crypten_is_what_is_known_of_it():
    from pibench.lowering.lower import lower
    from pibench.networks.build import skeleton
    from pibench.networks.card import load_card

    card = load_card("resnet18-c100")
    program, _ = lower(skeleton(card.network), card.network.input_shape)
    stock, fast = (total_cost(program, name, 1, {}) for name in ("crypten", "masked"))
    assert stock.rounds == 175
    assert stock.server_bytes == pytest.approx(224e6, rel=0.01)
    assert fast.rounds <= 70
    assert max(fast.server_bytes, fast.client_bytes) < 11e6


def test_an_unknown_link_is_refused():
    with pytest.raises(UsageError, match="no link is named 'moon'"):
        predict(networks.program_of("residual")[0], "masked", "moon", 1)


def test_all_three_phases_are_predicted_from_records_of_the_same_options(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    program, options = networks.program_of("residual")[0], {"provider": "two-party"}
    unknown = predict(program, "masked", "wan", 1, options)
    assert "offline computing, s" not in unknown
    record = fake_record(("full", "culled", "thinned", "tiny"), ("masked",), sessions=2, machine=machine().key)
    cases = tuple(case.model_copy(update={"options": options, "status": "done"}) for case in record.cases)
    save_record(record.model_copy(update={"cases": cases}), tmp_path / ".pibench" / "runs" / f"{record.id}.json")
    known = predict(program, "masked", "wan", 1, options)
    for phase in ("setup", "offline"):
        wire = unknown[f"{phase} on wan without computing, s"]
        assert f"{phase} on wan without computing, s" not in known
        assert known[f"{phase} on wan, s"] == pytest.approx(wire + known[f"{phase} computing, s"], abs=2e-4)
        assert known[f"{phase} computing, s"] > 0
    assert known["online on wan, s"] > 0
    assert "offline computing, s" not in predict(program, "masked", "wan", 1)  # a dealer's is another matter
