"""Exports: the three formats, from one record, as their readers take them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import fake_record

from pibench.cli import main
from pibench.records.files import save_record
from pibench.records.record import Record
from pibench.reporting.paper.export import FORMATS, extra_info, render, to_bencher, to_github, to_pytest_benchmark

CASE = "full/masked/loopback/cpu/b1"


@pytest.fixture(scope="module")
def record() -> Record:
    return fake_record(("full", "tiny"), ("masked",), seed=3)


def test_github_entries_are_smaller_is_better_with_value_unit_and_range(record: Record) -> None:
    entries = to_github(record)
    assert len({entry["name"] for entry in entries}) == len(entries) == 12
    assert all({"name", "unit", "value", "extra"} <= entry.keys() for entry in entries)
    latency = next(entry for entry in entries if entry["name"] == f"{CASE} online latency")
    assert (latency["unit"], latency["range"][0]) == ("s", "±")
    assert not any("accuracy" in entry["name"] for entry in entries)  # larger is better there


def test_bencher_has_latency_in_nanoseconds_within_its_bounds(record: Record) -> None:
    measures = to_bencher(record)[CASE]
    latency = measures["latency"]
    assert latency["lower_value"] < latency["value"] < latency["upper_value"]
    assert latency["value"] == pytest.approx(1e9 * record.case(CASE).measured[0][0].online_s, rel=0.1)
    assert measures["rounds"] == {"value": 29}
    assert measures["accuracy"]["value"] == pytest.approx(356 / 360)


def test_pytest_benchmark_json_has_every_key_of_the_convention(record: Record) -> None:
    data = to_pytest_benchmark(record)
    assert {"machine_info", "commit_info", "benchmarks", "datetime", "version"} == data.keys()
    assert {"id", "time", "author_time", "dirty", "project", "branch"} == data["commit_info"].keys()
    entry = data["benchmarks"][0]
    assert {"group", "name", "fullname", "params", "param", "extra_info", "options", "stats"} == entry.keys()
    assert entry["stats"]["rounds"] == len(entry["stats"]["data"]) == 30
    assert entry["extra_info"]["rounds"] == 29


@pytest.mark.timeout(60)
def test_pytest_benchmark_compare_loads_it(record: Record, tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text(render(record, "pytest-benchmark"))
    command = [
        sys.executable,
        "-c",
        "from pytest_benchmark.__main__ import main; main()",
        "compare",
        str(tmp_path / "out.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert CASE in done.stdout


def test_a_case_without_correctness_is_not_exported(record: Record) -> None:
    wrong = record.with_case(record.case(CASE).model_copy(update={"status": "invalid"}))
    assert CASE not in to_bencher(wrong)
    assert all(CASE not in json.dumps(make(wrong)) for make in FORMATS.values())


def test_extra_info_is_json_with_accuracy_and_link(record: Record) -> None:
    info = json.loads(json.dumps(extra_info(record.case(CASE)), allow_nan=False))
    assert info["relu_count"] == 18_432
    assert info["link"]["name"] == "loopback"
    assert info["accuracy_images"] == 36
    assert info["online_s_interval"][0] < info["online_s_interval"][1]


def test_the_verb_writes_a_file(record: Record, tmp_path: Path) -> None:
    save_record(record, tmp_path / "r.json")
    out = tmp_path / "bmf.json"
    assert main(["export", str(tmp_path / "r.json"), "--to", "bencher", "-o", str(out)]) == 0
    assert CASE in json.loads(out.read_text())
