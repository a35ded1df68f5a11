"""Verdicts over two records: exact measures, times, Holm, thresholds, what differs, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import fake_record

from pibench.cli import main
from pibench.errors import UsageError
from pibench.records.compare import Comparison, Options, Row, Verdict, compare
from pibench.records.files import save_record
from pibench.records.measures import MEASURES
from pibench.records.record import Accuracy, Case, Record
from pibench.records.thresholds import parse_share, parse_threshold, suite_thresholds
from pibench.reporting.screen.comparison import as_json, as_markdown, as_text

SMALL = {"networks": ("full", "tiny"), "protocols": ("crypten", "masked")}


def record(seed: int = 1, sessions: int = 10, **changes: object) -> Record:
    return fake_record(**SMALL, sessions=sessions, seed=seed, **changes)  # type: ignore[arg-type]


def row(comparison: Comparison, case: str, measure: str) -> Row:
    return next(r for r in comparison.rows if r.case.startswith(case) and r.measure.name == measure)


def with_case(base: Record, number: int, **changes: object) -> Record:
    case: Case = base.cases[number].model_copy(update=changes)
    return base.with_case(case)


def test_two_runs_of_the_same_thing_show_no_change() -> None:
    comparison = compare(record(1), record(2))
    assert not comparison.regressed
    assert not comparison.of(Verdict.WORSE, Verdict.BETTER)
    assert comparison.tests == 4
    assert row(comparison, "full/masked", "rounds").verdict is Verdict.SAME


def test_a_slowdown_is_found_in_the_case_that_has_it_and_in_time_only() -> None:
    comparison = compare(record(1), record(2, slowdown={"full/masked": 1.12}))
    assert [(r.case, r.measure.name) for r in comparison.of(Verdict.WORSE)] == [
        ("full/masked/loopback/cpu/b1", "online_s")
    ]
    found = row(comparison, "full/masked", "online_s")
    assert found.ratio is not None
    assert found.ratio.low < 1.12 < found.ratio.high
    assert found.p_holm is not None
    assert found.p is not None
    assert found.p < found.p_holm < 0.01


def test_an_improvement_is_no_regression() -> None:
    comparison = compare(record(1), record(2, slowdown={"full/masked": 0.85}))
    assert row(comparison, "full/masked", "online_s").verdict is Verdict.BETTER
    assert not comparison.regressed


@pytest.mark.parametrize(
    ("planted", "measures"),
    [
        ({"more_rounds": {"full/masked": 1}}, {"rounds"}),
        ({"more_bytes": {"full/masked": 1}}, {"server_bytes", "client_bytes"}),
    ],
)
def test_one_more_byte_or_round_is_found_with_few_sessions(
    planted: dict[str, dict[str, int]], measures: set[str]
) -> None:
    comparison = compare(record(1, sessions=1), record(2, sessions=1, **planted))
    assert {r.measure.name for r in comparison.of(Verdict.WORSE)} == measures


def test_accuracy_and_agreement_are_better_when_higher() -> None:
    base = record(1)
    plain = base.cases[0].network.model_copy(update={"plain_accuracy": Accuracy(correct=340, n=360)})
    comparison = compare(base, with_case(base, 0, network=plain))
    worse = comparison.of(Verdict.WORSE)
    assert [r.measure.name for r in worse] == ["plain_accuracy"]
    assert worse[0].change == pytest.approx((340 - 356) / 360)


def test_too_few_sessions_are_said_not_shown_as_no_change() -> None:
    comparison = compare(record(1, sessions=3), record(2, sessions=3, slowdown={"full/masked": 3.0}))
    found = row(comparison, "full/masked", "online_s")
    assert found.verdict is Verdict.TOO_FEW
    assert any("no slowdown of any size" in note and "takes" in note for note in found.notes)


def test_an_undecided_sample_says_how_many_sessions_would_do() -> None:
    comparison = compare(record(1, session_noise=0.1), record(2, session_noise=0.1))
    found = row(comparison, "full/masked", "online_s")
    assert found.verdict is Verdict.UNCLEAR
    assert any("sessions a side see slowdowns from" in note for note in found.notes)


def test_times_of_another_machine_are_not_judged_but_counts_are() -> None:
    head = record(2, machine="ffffffffffff", slowdown={"full/masked": 2.0}, more_rounds={"full/masked": 1})
    comparison = compare(record(1), head)
    assert row(comparison, "full/masked", "online_s").verdict is Verdict.ELSEWHERE
    assert row(comparison, "full/masked", "rounds").verdict is Verdict.WORSE
    assert comparison.differences[0].what == "machine"
    assert comparison.differences[0].forbids_time


def test_times_over_another_link_are_not_judged() -> None:
    base = record(1)
    slow = base.cases[0].link.model_copy(update={"rtt_ms": 40.0})
    comparison = compare(base, with_case(base, 0, link=slow))
    assert comparison.rows[0].verdict is Verdict.ELSEWHERE
    assert any("link of" in difference.what for difference in comparison.differences)


def test_a_threshold_for_a_case_or_group_wins_over_the_default() -> None:
    base, head = record(1), record(2, slowdown={"full/masked": 1.12})
    lenient = Options.of(None, [parse_threshold("online_s@full/masked*=20%")])
    assert row(compare(base, head, lenient), "full/masked", "online_s").verdict is not Verdict.WORSE
    other = Options.of(None, [parse_threshold("online_s@group:crypten=20%")])
    assert row(compare(base, head, other), "full/masked", "online_s").verdict is Verdict.WORSE
    more = compare(
        base, record(2, more_bytes={"full/masked": 100}), Options.of(None, [parse_threshold("client_bytes=1%")])
    )
    assert {r.measure.name for r in more.of(Verdict.WORSE)} == {"server_bytes"}


def test_thresholds_of_the_suite_travel_in_the_record() -> None:
    suite = record().suite.model_copy(
        update={"text": "thresholds:\n  - {measure: online_s, tolerance: 3%, group: masked, sees: 8%}\n"}
    )
    [threshold] = suite_thresholds(suite)
    assert (threshold.tolerance, threshold.group, threshold.sees) == (0.03, "masked", 0.08)


@pytest.mark.parametrize("text", ["online_s", "speed=1%", "online_s=fast", "online_s=-1%", "online_s=nan"])
def test_a_malformed_threshold_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_threshold(text)


def test_shares_are_percentages_or_numbers() -> None:
    assert parse_share("2%") == pytest.approx(parse_share("0.02")) == 0.02


def test_missing_new_and_failed_cases() -> None:
    base = record(1)
    shorter = base.model_copy(update={"cases": base.cases[1:]})
    gone, new = compare(base, shorter), compare(shorter, base)
    assert gone.of(Verdict.MISSING)[0].case == base.cases[0].id
    assert gone.incomplete
    assert not gone.regressed, "what was not run is not known to be worse"
    assert f"INCOMPLETE: 0 regressions, 0 improvements, 1 not in the head: {base.cases[0].id}" in as_text(gone)
    assert new.of(Verdict.NEW)
    assert not new.regressed
    wrong = compare(base, with_case(base, 0, status="invalid", error="logit error 9.1"))
    assert wrong.regressed
    assert wrong.rows[0].notes == ("logit error 9.1",)


def test_warmup_left_in_by_the_suite_is_excluded_on_both_sides_with_a_word() -> None:
    def unmarked(source: Record) -> Record:
        for case in source.cases:
            sessions = [
                s.model_copy(update={"inferences": tuple(i.model_copy(update={"warmup": False}) for i in s.inferences)})
                for s in case.sessions
            ]
            source = source.with_case(case.model_copy(update={"sessions": tuple(sessions)}))
        return source

    base = unmarked(record(1, warmups=2, inferences=8))
    found = row(compare(base, unmarked(record(2, warmups=2, inferences=8))), "full/masked", "online_s")
    assert "warm-up: first 2 inferences of every session excluded" in found.notes
    assert found.base_estimate is not None
    assert found.base_estimate.n == 80


def test_a_counted_measure_that_varies_is_pointed_out() -> None:
    base = record(1)
    first, *rest = base.cases[0].sessions[0].inferences[1:]
    odd = first.model_copy(
        update={"client": first.client.model_copy(update={"sent_bytes": first.client.sent_bytes + 5})}
    )
    session = base.cases[0].sessions[0].model_copy(update={"inferences": (odd, *rest)})
    head = with_case(base, 0, sessions=(session, *base.cases[0].sessions[1:]))
    found = row(compare(base, head), base.cases[0].id, "client_bytes")
    assert found.verdict is Verdict.WORSE
    assert found.notes == ("not the same in every inference of the head",)


def test_pairs_need_no_equal_numbers_of_sessions() -> None:
    comparison = compare(record(1, sessions=9), record(2, sessions=10), Options.of(None, paired=True))
    assert row(comparison, "full/masked", "online_s").ratio is not None
    assert comparison.paired


def test_text_says_what_differs_before_any_number() -> None:
    text = as_text(compare(record(1), record(2, machine="ffffffffffff", more_rounds={"full/masked": 1})))
    assert text.index("machine: 0123456789ab -> ffffffffffff") < text.index("online_s")
    assert "✗ regression" in text
    assert "exact values unchanged" in text
    assert text.rstrip().splitlines()[-1].startswith("REGRESSION: 1 regression")


def test_markdown_is_a_table() -> None:
    lines = as_markdown(compare(record(1), record(2))).splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("| case |"))
    assert all(line.count("|") == lines[header].count("|") for line in lines[header + 1 : header + 4])
    assert lines[2].startswith("**OK: 0 regressions"), "the verdict stands first"


def test_json_holds_every_row_and_no_nan() -> None:
    comparison = compare(record(1, sessions=3), record(2, sessions=3))
    data = json.loads(as_json(comparison), parse_constant=lambda name: pytest.fail(name))
    assert len(data["rows"]) == len(comparison.rows)
    assert data["regressed"] is False
    assert {"case", "measure", "verdict", "ratio", "p_holm"} <= data["rows"][0].keys()


@pytest.mark.parametrize(("planted", "status"), [({}, 0), ({"more_rounds": {"full/masked": 1}}, 1)])
def test_the_verb_exits_with_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], planted: dict[str, dict[str, int]], status: int
) -> None:
    save_record(record(1, sessions=2), tmp_path / "a.json")
    save_record(record(2, sessions=2, **planted), tmp_path / "b.json")
    assert main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--format", "md"]) == status
    assert "| case |" in capsys.readouterr().out


def test_the_verb_names_a_record_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "nowhere.json", "latest"]) == 4
    assert "nowhere.json" in capsys.readouterr().err


def test_every_measure_reads_a_record() -> None:
    case = record().cases[0]
    assert all(measure.samples(case) for measure in MEASURES.values())
    assert not any(measure.varies(case) for measure in MEASURES.values())


def with_right(record: Record, lost: int, sessions: int = 12) -> Record:
    """Return the record with so many private answers wrong, in its first sessions, one each."""
    case = record.cases[0]
    kept = [
        s.model_copy(update={"accuracy": Accuracy(correct=s.accuracy.n - (s.index < lost), n=s.accuracy.n)})
        for s in case.sessions[:sessions] if s.accuracy
    ]  # fmt: skip
    return record.with_case(case.model_copy(update={"sessions": tuple(kept)}))


@pytest.mark.parametrize(("lost", "verdict"), [(1, Verdict.SAME), (2, Verdict.WORSE)])
def test_one_image_on_the_edge_is_no_regression_in_a_small_record(lost: int, verdict: Verdict) -> None:
    base = fake_record(("full",), ("masked",), sessions=6, inferences=2)
    n = sum(s.accuracy.n for s in base.cases[0].sessions if s.accuracy)
    assert 1 / n > 0.02
    [row] = [r for r in compare(base, with_right(base, lost)).rows if r.measure.name == "accuracy"]
    assert row.verdict is verdict


def test_accuracies_of_other_images_are_not_compared() -> None:
    base = fake_record(("full",), ("masked",), sessions=6, inferences=2)
    comparison = compare(base, with_right(base, 3, sessions=3))
    [row] = [r for r in comparison.rows if r.measure.name == "accuracy"]
    assert row.verdict is Verdict.ELSEWHERE
    assert not comparison.regressed
    assert "not the same images" in as_text(comparison, all_rows=True)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_verdict_comes_first_and_nothing_is_wider_than_the_screen(width: int) -> None:
    comparison = compare(record(1), record(2, more_rounds={"full/masked": 9}))
    lines = as_text(comparison, width=width).splitlines()
    assert lines[0].startswith("REGRESSION: 1 regression")
    assert max(map(len, lines)) <= width
    assert any("rounds" in line and "regression" in line for line in lines[3:])
