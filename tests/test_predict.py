"""Predictions are the declared costs, a link's arithmetic, and computing only where something was measured."""

from __future__ import annotations

import networks_for_tests as networks
import pytest
import torch
from masked_pair import run_masked

from pibench.errors import UsageError
from pibench.harness.predict import predict, total_cost, wire_seconds
from pibench.mpc.link import PROFILES
from pibench.mpc.protocol import CLIENT, SERVER, Cost


def test_rounds_and_bytes_are_those_of_a_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    program, weights = networks.program_of("residual")
    said = predict(program, "masked", "wan", 2)
    outcome = run_masked(program, weights, [torch.randn(2, *networks.SHAPE)])
    assert said["rounds"] == outcome.online[CLIENT][0].total.rounds
    assert said["sent by server, bytes"] == outcome.online[SERVER][0].total.sent_bytes
    assert said["sent by client, bytes"] == outcome.online[CLIENT][0].total.sent_bytes
    assert "not known" in str(said["computing, s"])


def test_a_link_charges_one_ways_and_bytes():
    cost = Cost(rounds=10, server_bytes=3_000_000, client_bytes=1_000_000)
    latency_s, transfer_s = wire_seconds(cost, "masked", PROFILES["wan"])  # 40 ms, 100 Mbit/s
    assert latency_s == pytest.approx(10 * 0.020)
    assert transfer_s == pytest.approx(4_000_000 * 8 / 100e6)  # to and fro, one after the other
    assert wire_seconds(cost, "crypten", PROFILES["wan"])[1] == pytest.approx(3_000_000 * 8 / 100e6)  # both at once
    assert wire_seconds(cost, "masked", PROFILES["loopback"]) == (0.0, 0.0)


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
