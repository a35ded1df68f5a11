"""The gate: counted measures on any machine with zero tolerance, times on the same machine only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import fake_record

from pibench.cli import main
from pibench.errors import UsageError
from pibench.records.compare import Verdict
from pibench.records.files import save_record
from pibench.records.gate import judge, load_baseline, save_baseline, slim
from pibench.records.record import Declared, Offline, Record, Tally

CASE = "full/masked/loopback/cpu/b1"


def record(seed: int = 1, sessions: int = 8, **changes: object) -> Record:
    return fake_record(("full",), ("masked", "crypten"), sessions=sessions, seed=seed, **changes)  # type: ignore[arg-type]


def test_a_baseline_is_a_small_record_that_reads_back(tmp_path: Path) -> None:
    save_baseline(record(), tmp_path / "baseline.json")
    read = load_baseline(tmp_path / "baseline.json")
    assert read == slim(record())
    assert all(not s.parts for case in read.cases for s in case.sessions)
    lines = (tmp_path / "baseline.json").read_text().splitlines()
    assert sum('"index":' in line for line in lines) == 16  # a line a session


def test_the_same_thing_passes_on_another_machine() -> None:
    comparison = judge(record(2, machine="ffffffffffff"), slim(record(1)))
    assert not comparison.regressed
    assert {r.verdict for r in comparison.rows if not r.measure.exact} == {Verdict.ELSEWHERE}


@pytest.mark.parametrize(
    ("planted", "measure"),
    [({"more_rounds": {"full/masked": 9}}, "rounds"), ({"more_bytes": {"full/masked": 18_432}}, "client_bytes")],
)
def test_a_round_or_a_byte_more_per_relu_fails_anywhere(planted: dict[str, dict[str, int]], measure: str) -> None:
    comparison = judge(record(2, machine="ffffffffffff", sessions=1, **planted), slim(record(1)))
    assert comparison.regressed
    assert measure in {r.measure.name for r in comparison.of(Verdict.WORSE)}
    assert {r.case for r in comparison.of(Verdict.WORSE)} == {CASE}


def test_three_percent_of_time_fail_on_the_same_machine_and_nowhere_else() -> None:
    base = slim(record(1, sessions=20, session_noise=0.005, noise=0.005))
    slow = {"slowdown": {"full/masked": 1.03}, "sessions": 20, "session_noise": 0.005, "noise": 0.005}
    here, elsewhere = judge(record(2, **slow), base), judge(record(2, machine="ffffffffffff", **slow), base)
    assert [(r.case, r.measure.name) for r in here.of(Verdict.WORSE)] == [(CASE, "online_s")]
    assert not elsewhere.regressed
    assert not judge(record(2, **slow), base, time=False).regressed


def test_an_unfinished_record_is_no_baseline() -> None:
    broken = record().with_case(record().cases[0].model_copy(update={"status": "failed"}))
    with pytest.raises(UsageError, match="cannot be a baseline"):
        slim(broken)


def test_the_verb_passes_fails_and_updates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = str(tmp_path / "ci" / "baseline.json")
    good, bad = str(tmp_path / "good.json"), str(tmp_path / "bad.json")
    save_record(record(2, sessions=2), Path(good))
    save_record(record(3, sessions=2, more_rounds={"full/masked": 1}), Path(bad))
    assert main(["gate", good, "--baseline", baseline]) == 4
    assert "there is no baseline" in capsys.readouterr().err
    assert main(["gate", good, "--baseline", baseline, "--update"]) == 0
    assert main(["gate", good, "--baseline", baseline]) == 0
    capsys.readouterr()
    assert main(["gate", bad, "--baseline", baseline, "--format", "json"]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["measure"] for row in rows if row["verdict"] == "regression"] == ["rounds"]
    assert main(["gate", bad, "--baseline", baseline, "--update"]) == 0
    assert "rounds" in capsys.readouterr().out
    assert main(["gate", bad, "--baseline", baseline]) == 0


def test_a_record_of_another_suite_is_refused_and_no_regression(tmp_path: Path, capsys) -> None:
    save_baseline(record(), tmp_path / "baseline.json")
    other = record().model_copy(update={"suite": record().suite.model_copy(update={"name": "elsewhere"})})
    save_record(other, tmp_path / "other.json")
    assert main(["gate", str(tmp_path / "other.json"), "--baseline", str(tmp_path / "baseline.json")]) == 4
    assert "the record is of suite 'elsewhere'" in capsys.readouterr().err


def test_a_case_that_was_not_run_is_named_and_no_regression(tmp_path: Path, capsys) -> None:
    save_baseline(record(), tmp_path / "baseline.json")
    save_record(record().model_copy(update={"cases": record().cases[:1]}), tmp_path / "part.json")
    assert main(["gate", str(tmp_path / "part.json"), "--baseline", str(tmp_path / "baseline.json")]) == 2
    assert "INCOMPLETE" in (out := capsys.readouterr().out)
    assert "1 not in the head: full/crypten/loopback/cpu/b1" in out


def test_any_change_fails_on_improvements_too(tmp_path: Path) -> None:
    save_baseline(record(more_rounds={"full/masked": 9}), tmp_path / "baseline.json")
    save_record(record(), tmp_path / "better.json")
    words = ["gate", str(tmp_path / "better.json"), "--baseline", str(tmp_path / "baseline.json"), "--time", "never"]
    assert main(words) == 0
    assert main([*words, "--any-change"]) == 1


def test_bytes_of_a_session_do_not_make_the_count_of_an_inference_depend_on_how_many_there_were() -> None:
    def greeted(inferences: int) -> Record:
        base = record(sessions=1)
        case = base.cases[0]
        session = case.sessions[0]
        offline = Offline(
            server=Tally(sent_bytes=8), client=Tally(), dealer=Tally(sent_bytes=1000 * inferences),
            inferences=inferences,
        )  # fmt: skip
        fresh = case.model_copy(
            update={
                "declared": Declared(dealer_bytes=1000),
                "sessions": (session.model_copy(update={"offline": offline}),),
            }
        )
        return base.with_case(fresh)

    comparison = judge(greeted(62), slim(greeted(7)), time=False)
    assert not comparison.regressed
    rows = {row.measure.name: (row.base, row.head) for row in comparison.rows if row.case == CASE}
    assert rows["offline_bytes"] == (1000, 1000)
    assert rows["offline_session_bytes"] == (8, 8)
