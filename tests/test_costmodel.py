"""The cost model of systems on paper: published latencies, units, ranges, and the verb."""

from __future__ import annotations

import json

import pytest

from pibench.cli import main
from pibench.errors import EXIT_USAGE, UsageError
from pibench.networks.card import load_card
from pibench.reporting.onpaper.constants import CONSTANTS, cheap, dear, point
from pibench.reporting.onpaper.costcheck import PUBLISHED, WHERE_IT_DOES_NOT_FIT, beyond, checks
from pibench.reporting.onpaper.costmodel import SYSTEMS, WIRES, LinearLayer, Wire, Workload, estimate, workload_of
from pibench.reporting.whatif import wire_named

RESNET18 = Workload("resnet18", 557_056, 555_468_800, 17, 18)


@pytest.mark.parametrize(("network", "published"), [("DeepReDuce 230K", 4.61), ("DeepReDuce 12K", 0.45)])
def test_published_latencies_of_deepreduce_within_a_quarter(network: str, published: float) -> None:
    row = next(c for c in checks() if c.network.startswith(network))
    assert row.published_s == published
    assert abs(row.error) <= 0.25
    assert row.role == "check"


def test_every_check_says_whether_it_fits_and_the_misfits_are_named() -> None:
    rows = checks()
    assert all(row.fits for row in rows), [(r.network, r.error) for r in rows if not r.fits]
    assert {row.network for row in rows if row.note} == {p.load.name for p in PUBLISHED if p.relu_only}
    assert any("SNL" in line for line in WHERE_IT_DOES_NOT_FIT)
    snl = next(p for p in PUBLISHED if p.load.name.startswith("SNL 12.9K"))
    whole = estimate(snl.load, "delphi", WIRES["loopback"]).online.total_s
    assert whole > 1.9 * snl.online_s  # what WHERE_IT_DOES_NOT_FIT says of it


def test_published_latency_is_lost_on_a_gigabit_link_as_the_notes_say() -> None:
    load = PUBLISHED[0].load
    assert estimate(load, "delphi", WIRES["lan"]).online.total_s > 1.25 * PUBLISHED[0].online_s


def test_storage_and_bytes_of_full_resnet18_are_the_published_ones() -> None:
    cost = estimate(RESNET18, "delphi", WIRES["loopback"])
    assert cost.storage_bytes["client"] == pytest.approx(10.17e9, rel=0.01)
    assert cost.online.down_bytes == pytest.approx(659.6e6, rel=0.01)  # 660 MB of labels
    garbled = next(s for s in cost.steps if s.what.startswith("garble"))
    assert garbled.down_bytes == pytest.approx(9_510_061_120, rel=1e-3)


def test_steps_add_up_to_the_phases() -> None:
    for system in SYSTEMS:
        cost = estimate(RESNET18, system, WIRES["wan"])
        for name, phase in (("offline", cost.offline), ("online", cost.online)):
            steps = [s for s in cost.steps if s.phase == name]
            assert phase.compute_s == pytest.approx(sum(s.server_s + s.client_s for s in steps))
            assert phase.down_bytes == pytest.approx(sum(s.down_bytes for s in steps))
        assert cost.online_range_s[0] <= cost.online.total_s <= cost.online_range_s[1]
        assert cost.offline_range_s[0] <= cost.offline.total_s <= cost.offline_range_s[1]


def test_client_garbler_moves_storage_to_the_server_and_transfers_online() -> None:
    ours, theirs = (estimate(RESNET18, s, WIRES["wan"]) for s in ("client-garbler", "delphi"))
    assert ours.storage_bytes["client"] < theirs.storage_bytes["client"] / 4
    assert ours.storage_bytes["server"] == theirs.storage_bytes["client"]
    assert ours.online.up_bytes > theirs.online.up_bytes
    assert ours.online.round_trips > theirs.online.round_trips


def test_circa_is_never_dearer_than_delphi() -> None:
    assert estimate(RESNET18, "circa", WIRES["lan"]).online.total_s < estimate(
        RESNET18, "delphi", WIRES["lan"]
    ).online.total_s  # fmt: skip


def test_an_atom_client_evaluates_more_slowly() -> None:
    slow = estimate(RESNET18, "delphi", WIRES["loopback"], atom_client=True).online.total_s
    assert slow > 4 * estimate(RESNET18, "delphi", WIRES["loopback"]).online.total_s


def test_wire_time_is_bytes_over_rate_plus_round_trips() -> None:
    wire = Wire("test", rtt_ms=10.0, down_mbit_s=8.0, up_mbit_s=80.0)
    assert wire.seconds(1e6, 1e6, 3) == pytest.approx(1.0 + 0.1 + 0.03)
    assert WIRES["loopback"].seconds(1e9, 1e9, 100) == 0.0


def test_quadratics_cost_almost_nothing() -> None:
    poly = Workload("poly", 0, 555_468_800, 0, 18, quadratics=557_056)
    none = Workload("none", 0, 555_468_800, 0, 18)
    more = estimate(poly, "delphi", WIRES["loopback"]).online.total_s
    assert 0 < more - estimate(none, "delphi", WIRES["loopback"]).online.total_s < 0.01


def test_ciphertexts_are_counted_as_measured() -> None:
    layer = LinearLayer(inputs=65_536, outputs=65_536, taps=9)
    load = Workload("one layer", 0, 37_748_736, 0, 1, layers=(layer,))
    step = next(s for s in estimate(load, "delphi", WIRES["loopback"]).steps if "encrypt" in s.what)
    assert step.up_bytes == pytest.approx(37_756_304, rel=1e-3)
    assert step.down_bytes == pytest.approx(4_195_152, rel=1e-3)


def test_constants_have_source_tag_and_a_range_around_them() -> None:
    for name, constant in CONSTANTS.items():
        assert constant.low <= constant.value <= constant.high, name
        assert constant.source
        assert constant.tag
        assert constant.unit
        assert {cheap(name), dear(name)} == {constant.low, constant.high}
        assert point(name) == constant.value


def test_unknown_names_are_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match="delphi"):
        estimate(RESNET18, "delfi", WIRES["loopback"])
    with pytest.raises(UsageError, match="wan"):
        wire_named("moon")
    with pytest.raises(UsageError, match="nothing"):
        wire_named("5ms,0mbit")
    assert wire_named("40ms,100mbit").rtt_ms == 40.0


def test_workload_of_a_lowered_program_counts_shared_inputs_once() -> None:
    pytest.importorskip("torch")
    from pibench.lowering.lower import lower
    from pibench.networks.build import build
    from pibench.networks.card import load_card
    from pibench.networks.census import census

    card = load_card("digits-full")
    program, _ = lower(build(card.network), card.network.input)
    counts = census(program)
    load = workload_of(program, card.name, counts.macs, counts.relu_rounds)
    assert load.relu_count == card.relu_count
    assert load.linear_layers < len(counts.layers)  # shortcuts read what the first convolution reads
    assert load.linear_layers == len(load.layers)
    assert load.layers[0].inputs == int(torch_size(card.network.input))


def torch_size(shape: list[int] | tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def test_verb_prints_both_phases_and_says_that_it_is_on_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "digits-full", "--system", "delphi", "--link", "wan"]) == 0
    out = capsys.readouterr().out
    for word in ("on paper, not measured", "offline", "online", "stored for one inference", "round trips"):
        assert word in out


@pytest.mark.parametrize("card", ["digits-full-snl-10", "digits-full-senet-50"])
def test_a_masked_network_is_counted_by_its_masks(card: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", card, "--system", "delphi", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["estimates"]
    assert made["workload"]["relu_count"] == load_card(card).relu_count


def test_verb_as_json_with_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "digits-full", "--system", "all", "--check", "--constants", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert {e["system"] for e in plain["estimates"]} == set(SYSTEMS)
    assert all(c["fits"] for c in plain["checks"])
    assert plain["constants"]["gc_eval_s"]["source"]


def test_verb_without_a_card_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate"]) == EXIT_USAGE
    assert "--check" in capsys.readouterr().err


def test_page_of_cost_models_lists_every_constant_and_its_range() -> None:
    from pathlib import Path

    page = (Path(__file__).parent.parent / "docs" / "costmodels.md").read_text("utf-8")
    for name in CONSTANTS:
        assert f"`{name}`" in page, name
    for row in checks():
        assert row.network in page


def test_a_network_beyond_the_checks_is_called_extrapolated(capsys: pytest.CaptureFixture[str]) -> None:
    assert beyond(RESNET18) == ""
    assert "12,288" in beyond(Workload("tiny", 96, 1_000_000, 2, 5))
    assert main(["estimate", "digits-tiny"]) == 0
    assert "extrapolated" in capsys.readouterr().out
