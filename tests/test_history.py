"""The index and the history: planted steps are found and named, nothing is invented, anything derived is rebuilt."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fakes import fake_record

from pibench.cli import main
from pibench.errors import UsageError
from pibench.records import changepoints as steps
from pibench.records.files import save_record
from pibench.records.history import history
from pibench.records.index import open_index
from pibench.records.record import Record
from pibench.reporting.page import series

CASE = "full/masked/loopback/cpu/b1"


def run_at(number: int, commit: str, slowdown: float = 1.0, machine: str = "0123456789ab", rounds: int = 0) -> Record:
    """Return the run of one commit: its case slower by a factor, with so many more rounds."""
    stamp = f"2026-11-20T{number // 60:02d}:{number % 60:02d}:00Z"
    record = fake_record(
        ("full",), ("masked",), sessions=3, inferences=3, seed=number, slowdown={"full/masked": slowdown},
        machine=machine, commit=commit, created_utc=stamp, more_rounds={"full/masked": rounds}, session_noise=0.015,
    )  # fmt: skip
    return record.model_copy(update={"id": f"run-{number:03d}"})


def repository(folder: Path, count: int) -> list[str]:
    """Return the commits of a new repository with `count` of them."""

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "-q")
    for number in range(count):
        git("commit", "-q", "--allow-empty", "-m", f"change {number}")
    return git("rev-list", "--reverse", "HEAD").split()


@pytest.fixture(scope="module")
def fifty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of 50 commits with a record each: 7 % slower from commit 18 on, 6 % faster from 35 on."""
    folder = tmp_path_factory.mktemp("fifty")
    level = 1.0
    for number, commit in enumerate(repository(folder, 50)):
        level *= {18: 1.07, 35: 0.94}.get(number, 1.0)
        record = run_at(number, commit, level, rounds=int(number >= 40))
        save_record(record, folder / ".pibench" / "runs" / f"{record.id}.json")
    return folder


def test_both_planted_steps_are_found_within_two_commits_and_none_is_invented(fifty: Path) -> None:
    with open_index(runs=fifty / ".pibench/runs") as index:
        assert index.refresh() == []
        found = history(index, CASE, tree=fifty)
    assert len(found.points) == 50
    assert len(found.steps) == 2
    assert [abs(step.index - planted) <= 2 for step, planted in zip(found.steps, (18, 35), strict=True)] == [True, True]
    assert found.steps[0].change == pytest.approx(0.07, abs=0.02)
    assert found.steps[1].change == pytest.approx(-0.06, abs=0.02)
    assert [line.split(" ", 1)[1] for line in found.commits[0].lines] == [f"change {found.steps[0].index}"]


def test_an_exact_measure_changes_at_one_commit_only(fifty: Path) -> None:
    with open_index(runs=fifty / ".pibench/runs") as index:
        index.refresh()
        found = history(index, CASE, "rounds", tree=fifty)
    assert [step.index for step in found.steps] == [40]
    assert found.commits[0].lines[0].endswith("change 40")


def test_the_verb_draws_lists_and_pictures(
    fifty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(fifty)
    picture = tmp_path / "history.svg"
    assert main(["history", "full/masked", "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    assert text.count("---- step") == 2
    assert "2 steps" in text
    assert picture.read_text().startswith("<?xml")
    assert main(["history"]) == 0
    assert capsys.readouterr().out.split() == ["50", CASE]
    assert main(["history", "full", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["points"]) == 50
    assert main(["history", "nothing-like-it"]) == 4


@pytest.mark.parametrize("seed", range(12))
def test_a_series_without_steps_has_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert steps.find_steps(list(np.exp(rng.normal(0, 0.02, 50)))) == []


def test_one_wild_run_is_no_step() -> None:
    values = [1.0 + 0.001 * (i % 3) for i in range(30)]
    values[12] = 4.0
    assert steps.find_steps(values) == []


def test_a_step_smaller_than_the_tolerance_is_no_step() -> None:
    values = [1.0 + 0.0001 * (i % 3) for i in range(20)] + [1.005 + 0.0001 * (i % 3) for i in range(20)]
    assert steps.find_steps(values) == []
    assert [step.index for step in steps.find_steps(values, tolerance=0.001)] == [20]


def test_few_points_make_no_step_and_long_series_keep_their_newest_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps.find_steps([1.0, 2.0, 2.0]) == []
    monkeypatch.setattr(steps, "LONGEST", 40)
    values = [5.0] * 60 + [1.0 + 0.001 * (i % 3) for i in range(20)] + [2.0 + 0.001 * (i % 3) for i in range(20)]
    assert [step.index for step in steps.find_steps(values)] == [80]


def test_times_of_other_machines_are_left_out_and_said(tmp_path: Path) -> None:
    for number in range(8):
        record = run_at(number, f"{number:040d}", machine="other" if number < 3 else "here")
        save_record(record, tmp_path / "runs" / f"{record.id}.json")
    with open_index(runs=tmp_path / "runs") as index:
        index.refresh()
        found, exact = history(index, CASE), history(index, CASE, "rounds")
    assert (found.machine, len(found.points), found.left_out) == ("here", 5, 3)
    assert len(exact.points) == 8
    assert "3 runs on other machines left out" in series.as_text(found)


def test_times_of_other_threads_are_left_out_and_said(tmp_path: Path) -> None:
    for number in range(10):
        record = run_at(number, "1" * 40, slowdown=0.7 if number >= 5 else 1.0)
        if number < 5:
            record = record.with_case(record.cases[0].model_copy(update={"threads": 2}))
        save_record(record, tmp_path / "runs" / f"{record.id}.json")
    with open_index(runs=tmp_path / "runs") as index:
        index.refresh()
        found, exact = history(index, CASE), history(index, CASE, "rounds")
    assert (len(found.points), found.left_out, found.left_out_settings, found.steps) == (5, 0, 5, ())
    assert "5 runs not of 1 thread a party, loopback" in series.as_text(found)
    assert len(exact.points) == 10


def test_a_shared_store_of_older_tables_keeps_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/team.sqlite"
    monkeypatch.setattr("pibench.records.index.VERSION", 1)
    with open_index(url) as index:
        index.share([run_at(1, "1" * 40)])
    monkeypatch.undo()
    with open_index(url) as index:
        assert index.cases() == [(CASE, 1)]
    monkeypatch.setattr("pibench.records.index.VERSION", 1)
    with pytest.raises(UsageError, match="of a newer pibench"):
        open_index(url)


def test_the_index_follows_the_files(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    save_record(run_at(1, "1" * 40), runs / "one.json")
    save_record(run_at(2, "2" * 40), runs / "two.json")
    (runs / "broken.json").write_text("{")
    with open_index(runs=runs) as index:
        assert [line.count("broken.json") for line in index.refresh()] == [1]
        assert len(index.runs()) == 2
        before = index.series(CASE, "online_s")
        (runs / "one.json").unlink()
        save_record(run_at(2, "2" * 40, slowdown=2.0), runs / "two.json")
        index.refresh()
        [after] = index.series(CASE, "online_s")
    assert after["value"] > 1.5 * before[1]["value"]


def test_a_damaged_or_older_index_is_built_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    save_record(run_at(1, "1" * 40), runs / "one.json")
    with open_index(runs=runs) as index:
        index.refresh()
        first = index.series(CASE, "online_s")
    (tmp_path / "index.sqlite").write_bytes(b"not a data base, " * 100)
    with open_index(runs=runs) as index:
        index.refresh()
        assert index.series(CASE, "online_s") == first
        index._db.execute("UPDATE pibench_meta SET version = 0")
        index._db.commit()
    with open_index(runs=runs) as index:
        assert index.runs() == []
        index.rebuild()
        assert index.series(CASE, "online_s") == first


def test_a_failed_case_has_no_place_in_a_history(tmp_path: Path) -> None:
    record = run_at(1, "1" * 40)
    failed = record.cases[0].model_copy(update={"status": "invalid"})
    save_record(record.with_case(failed), tmp_path / "runs" / "one.json")
    with open_index(runs=tmp_path / "runs") as index:
        index.refresh()
        assert index.cases() == []


def test_a_team_shares_a_store_by_url(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sqlalchemy")
    for number in range(3):
        save_record(run_at(number, f"{number:040d}"), tmp_path / "runs" / f"{number}.json")
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    assert main(["history", CASE, "--runs", str(tmp_path / "runs"), "--store", url, "--share"]) == 0
    assert "shared 3 records" in capsys.readouterr().out
    with open_index(url) as index:
        index.rebuild()
        assert len(index.series(CASE, "online_s")) == 3
        body = index.body("run-001")
    assert body is not None
    assert json.loads(body)["id"] == "run-001"
