"""The command's exit statuses: what a user can mend says how, and nothing but a regression ends with 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import fake_record

from pibench.cli import main
from pibench.records.files import save_record

BASELINE = str(Path(__file__).parents[1] / "ci" / "baseline.json")


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    save_record(fake_record(("full",), ("masked",), sessions=6), Path("a.json"))
    return "a.json"


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "a.json", "a.json", "-o", "absent/x.md"],
        ["gate", "a.json", "--baseline", "a.json", "-o", "absent/x.md"],
        ["export", "a.json", "--to", "bencher", "-o", "absent/x.json"],
        ["zoo", "--folder", ".", "--write", "absent/x.md"],
    ],
)
def test_an_output_that_cannot_be_written_is_no_regression(
    record: str, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"pibench {words[0]}: {words[-1]}: No such file or directory" in said
    assert "Traceback" not in said


def test_an_error_of_its_own_has_a_status_of_its_own(
    record: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("pibench.records.compare.compare", broken)
    assert main(["compare", record, record]) == 3
    said = capsys.readouterr().err
    assert "ZeroDivisionError: planted" in said
    assert "an error of pibench itself" in said


def test_a_suite_in_another_encoding_is_refused(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_bytes("name: mine\n".encode("utf-16"))
    assert main(["validate", "mine.yaml"]) == 4
    assert "mine.yaml: not UTF-8 text" in capsys.readouterr().err


def test_a_gate_with_nothing_to_judge_does_not_pass(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", record, "--baseline", record, "--time", "never", "-m", "online_s"]) == 4
    assert "no measure is left to judge" in capsys.readouterr().err


def test_a_picture_of_an_unknown_format_is_refused_before_anything_is_read(
    record: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "full", "--picture", "x.foo"]) == 4
    assert "'.foo'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["show", "digits-full", "--batch", "-3"], ["run", "--sessions", "0"]])
def test_a_count_is_at_least_one(record: str, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit, match="4"):
        main(words)
    assert f"argument {words[-2]}: '{words[-1]}' is no count" in capsys.readouterr().err


def test_a_zoo_that_is_not_there_is_not_an_empty_one(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "--folder", "absent"]) == 4
    assert "absent: there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_a_terminal_lacks_are_replaced(encoding: str) -> None:
    done = _pibench("run", "--help", environment={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    done = _pibench("compare", BASELINE, BASELINE, environment={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0


def test_units_are_legible_on_a_terminal_of_plain_characters() -> None:
    code = "from pibench import cli; cli._replace_what_the_terminal_cannot_show(); print('42.0 µs, −3 %, 4×')"
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60, check=True)
    assert done.stdout == b"42.0 us, -3 %, 4x\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["compare", BASELINE, BASELINE], ["run", "--help"], ["--help"], ["--version"], []])
def test_a_full_disk_is_one_line_and_status_2(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = _pibench(*words, stdout=full)
    assert done.returncode == 2
    said = " ".join(["pibench", *words[: bool(words) and not words[0].startswith("-")]])
    assert done.stderr.decode() == f"{said}: the output cannot be written: No space left on device\n"


def test_a_reader_that_has_enough_is_no_regression() -> None:
    read, write = os.pipe()
    os.close(read)
    done = _pibench("show", BASELINE, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def _pibench(*words: str, environment: dict[str, str] | None = None, stdout: object = subprocess.PIPE) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "pibench", *words], stdout=stdout, stderr=subprocess.PIPE, timeout=60,  # type: ignore[call-overload]
        env={**os.environ, **(environment or {})}, check=False,
    )  # fmt: skip
