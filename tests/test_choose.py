"""Which network for a deadline: from the zoo's costs and from records, with the nearest miss and what would fit."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import fake_record

from pibench.cli import main
from pibench.commands.arguments import duration, percentage
from pibench.mpc.spec import spec_of
from pibench.records.files import save_record
from pibench.records.machine import machine
from pibench.reporting.choose import Candidate, choose, costs_of, record_candidates, would_fit, zoo_candidates
from pibench.reporting.onpaper.costmodel import WIRES, Wire

WAN = WIRES["wan"]


def candidate(name: str, percent: float, rounds: int, local_s: float = 0.01) -> Candidate:
    return Candidate(
        network=name, dataset="cifar100", percent=percent, n=1000, relu_count=1000, protocol="masked", rounds=rounds,
        server_bytes=125_000, client_bytes=0, local_s=local_s, offline_s=0.1, offline_bytes=10**6, source="a test",
    ).over(WAN)  # fmt: skip


def test_the_time_over_a_link_is_local_time_rounds_and_bytes() -> None:
    one = candidate("a", 70.0, 10)
    hops = spec_of("masked").arrangement({}).hops
    assert one.online_s == pytest.approx(0.01 + 10 * hops * 0.020 + 125_000 / (100 * 125_000))


def test_the_most_accurate_within_the_deadline_and_the_nearest_miss() -> None:
    found = [candidate("small", 60.0, 8), candidate("middle", 65.0, 12), candidate("large", 70.0, 30)]
    choice = choose(found, 0.3, None)
    assert (choice.fits, choice.miss) == (found[1], found[2])
    assert choose(found, 0.3, 66.0).fits is None
    assert choose(found, 0.3, 66.0).miss is found[2]
    assert choose(found, None, 62.0).fits is found[1], "without a deadline the fastest of them"


def test_what_would_fit_does() -> None:
    miss = candidate("large", 70.0, 30)
    [rtt, rounds] = would_fit(miss, WAN, 0.3)
    nearer = float(rtt.split()[-2])
    assert miss.over(replace(WAN, rtt_ms=nearer)).online_s <= 0.3
    assert miss.over(replace(WAN, rtt_ms=nearer + 0.1)).online_s > 0.3
    most = int(rounds.split()[1])
    assert replace(miss, rounds=most).over(WAN).online_s <= 0.3 < replace(miss, rounds=most + 1).over(WAN).online_s
    assert "no round trip" in would_fit(replace(miss, local_s=1.0).over(WAN), WAN, 0.3)[0]


def test_what_was_measured_on_the_link_counts_as_it_was_with_its_percentiles() -> None:
    record = fake_record(("full",), ("masked",), sessions=5, machine=machine().key)
    [local] = record_candidates([record], machine().key, Wire("loopback", 0.0, None, None))
    marks = local.percentiles()
    assert list(marks) == ["median", "p95", "p99"]
    assert marks["median"] <= marks["p95"] <= marks["p99"]
    [carried] = record_candidates([record], machine().key, WAN)
    assert not carried.samples
    assert record_candidates([record], "another", WAN) == []


def test_the_zoo_costs_are_those_that_the_networks_declare() -> None:
    """Rounds and bytes of zoo/costs.json, counted again from the smallest network."""
    from pibench.lowering.lower import lower
    from pibench.lowering.merge import merge
    from pibench.mpc.protocol import total_cost
    from pibench.networks.build import build, stage_of
    from pibench.networks.card import load_card

    found = zoo_candidates()
    assert len(found) >= 8
    one = min(found, key=lambda c: c.relu_count)
    card = load_card(one.network)
    lowered = lower(build(card.network).eval(), card.network.input_shape, stage_of)
    program, weights = (lowered.program, lowered.weights) if hasattr(lowered, "program") else lowered
    program, _, _ = merge(program, weights)
    declared = total_cost(program, one.protocol, 1, {})
    assert declared is not None
    assert (declared.rounds, declared.server_bytes, declared.client_bytes) == (
        one.rounds, one.server_bytes, one.client_bytes,
    )  # fmt: skip


def test_the_verb_answers_from_a_fresh_clone_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pibench.cli import main\n"
        "status = main(['choose', '--deadline', '2s', '--link', '10ms,50mbit', '--accuracy', '60%'])\n"
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "under masked within 2.00 s over 10ms,50mbit" in " ".join(done.stdout.split())
    assert "Predicted: " in done.stdout
    assert "Trust: " in done.stdout


def test_no_network_fits_and_the_answer_says_what_would(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["choose", "--deadline", "1ms"]) == 5
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("No network makes it within 1.00 ms over wan (40ms,100mbit)")
    assert "Nearest miss: " in out
    assert main(["choose", "--deadline", "5s", "--json", "--core-hour", "0.05", "--gigabyte", "0.09"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["fits"]["thousand"]["price"] > 0
    assert data["fits"]["online_s"] <= 5


def test_costs_are_written_from_a_record(tmp_path) -> None:
    record = fake_record(("full", "tiny"), ("masked",), sessions=2)
    made = costs_of(record)
    assert [row["network"] for row in made["networks"]] == ["full", "tiny"]
    assert Candidate(source="x", **made["networks"][0]).percent == pytest.approx(98.9, abs=0.1)
    save_record(record, tmp_path / "a.json")
    assert main(["choose", "--record", str(tmp_path / "a.json"), "--write-costs", str(tmp_path / "costs.json")]) == 0
    assert json.loads((tmp_path / "costs.json").read_text())["networks"]


@pytest.mark.parametrize(("text", "seconds"), [("300ms", 0.3), ("1.5s", 1.5), ("2", 2.0), ("2min", 120.0)])
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)
    assert percentage("65%") == percentage("65") == 65.0


@pytest.mark.parametrize("words", [["--deadline", "0"], ["--deadline", "soon"], ["--accuracy", "120%"]])
def test_what_is_no_time_or_accuracy_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["choose", *words])
    assert caught.value.code == 4
