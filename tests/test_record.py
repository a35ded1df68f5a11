"""Records: whole or not at all, refused with a message when damaged, and documented field by field."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes import fake_record
from hypothesis import given, settings
from hypothesis import strategies as st

from pibench.errors import PibenchError, StoreError, UsageError
from pibench.records import record as module
from pibench.records import store
from pibench.records.files import dump_record, load_record, parse_record, save_record
from pibench.records.record import Record

SMALL = fake_record(networks=("tiny",), protocols=("masked",), sessions=2, inferences=2)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    save_record(SMALL, tmp_path / "deep" / "run.json")
    assert load_record(tmp_path / "deep" / "run.json") == SMALL
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run.json"]


def test_parts_of_every_inference_add_up_to_the_whole() -> None:
    for case in fake_record(sessions=2).cases:
        for session in case.sessions:
            for inference in session.inferences:
                for party in (inference.server, inference.client):
                    for name in ("time_s", "wait_s", "sent_bytes", "rounds"):
                        column = getattr(party.parts, name)
                        assert len(column) == len(session.parts)
                        assert sum(column) == pytest.approx(getattr(party, name))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_full_disk_leaves_the_old_record_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "run.json"
    save_record(SMALL, path)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError) as caught:
        save_record(SMALL.model_copy(update={"finished": False}), path)
    assert caught.value.exit_status == 2
    assert os.strerror(number) in str(caught.value)
    assert str(path) in str(caught.value)
    assert "->" in str(caught.value)
    assert load_record(path) == SMALL
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "schema is 'None'"),
        ('{"schema": "pibench-record/9"}', "'pibench-record/9'"),
        ('{"schema": "pibench-record/1"}', "damaged"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_record(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_unknown_fields_wrong_types_and_infinities_are_refused() -> None:
    for change in ({"surprise": 1}, {"seed": "many"}, {"cases": 3}, {"finished": "perhaps"}):
        data = json.loads(dump_record(SMALL)) | change
        with pytest.raises(UsageError, match="damaged"):
            parse_record(json.dumps(data))
    data = json.loads(dump_record(SMALL))
    data["cases"][0]["sessions"][0]["wall_s"] = float("inf")
    with pytest.raises(UsageError):
        parse_record(json.dumps(data))


def test_a_missing_record_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_record(tmp_path / "absent.json")


TEXT = dump_record(SMALL).encode()


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, len(TEXT)), at=st.integers(0, len(TEXT) - 1), byte=st.integers(0, 255))
def test_mangled_records_raise_only_our_own_errors(cut: int, at: int, byte: int) -> None:
    for text in (TEXT[:cut], TEXT[:at] + bytes([byte]) + TEXT[at + 1 :]):
        with contextlib.suppress(PibenchError):
            parse_record(text)


def test_sessions_and_cases_are_added_without_touching_the_old_record() -> None:
    case = SMALL.cases[0]
    more = SMALL.with_session(case.id, case.sessions[0])
    assert len(more.cases[0].sessions) == 3
    assert len(SMALL.cases[0].sessions) == 2
    other = SMALL.with_case(case.model_copy(update={"id": "another"}))
    assert [c.id for c in other.cases] == [case.id, "another"]
    with pytest.raises(KeyError):
        SMALL.case("absent")


def test_the_page_documents_every_field() -> None:
    page = (Path(__file__).parents[1] / "docs" / "record.md").read_text("utf-8")
    models = [m for m in vars(module).values() if isinstance(m, type) and issubclass(m, module._Model)]
    fields = {f.alias or name for model in models for name, f in model.model_fields.items()}
    assert len(fields) > 60
    missing = sorted(name for name in fields if f"`{name}`" not in page)
    assert missing == []


def test_two_runs_of_one_second_get_two_files(tmp_path: Path) -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    first = store.new_record_path("my suite", tmp_path, now)
    assert first.name == "20261120T120000Z-my-suite.json"
    save_record(SMALL, first)
    second = store.new_record_path("my suite", tmp_path, now)
    assert second != first
    save_record(SMALL, second)
    assert store.record_paths(tmp_path) == [first, second]
    assert store.find_record("last", tmp_path) == second
    assert store.find_record(second.stem, tmp_path) == second
    with pytest.raises(UsageError, match="no record 'absent'"):
        store.find_record("absent", tmp_path)


def test_records_are_found_by_file_id_and_age(tmp_path: Path) -> None:
    runs = store.runs_folder(tmp_path)
    runs.mkdir()
    names = "20261120T1-quick", "20261121T1-quick", "20261121T1-quick-2"
    for name in names:
        (runs / f"{name}.json").write_text("{}")
    found = {"latest": 2, "last": 2, "latest~1": 1, "last~2": 0, "20261120": 0, names[1]: 1, f"{names[1]}.json": 1}
    for name, at in found.items():
        assert store.find_record(name, tmp_path).stem == names[at]
    assert store.find_record(str(runs / f"{names[0]}.json")).stem == names[0]
    for wrong in ("latest~3", "202611", "20271", "latest~x", ""):
        with pytest.raises(UsageError):
            store.find_record(wrong, tmp_path)


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from pibench.records.store import scratch_folder as f;"
    code += "print(f(Path(sys.argv[1])), flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    left = Path(done.stdout.strip())
    (left / "weights.safetensors").write_bytes(b"secret")
    old = tmp_path / "tmp" / f"session-{os.getpid()}-abc"  # its name says a process that lives: in which container?
    old.mkdir()
    alive = store.scratch_folder(tmp_path)
    fresh = store.scratch_folder(tmp_path)
    assert not old.exists()
    assert fresh.is_dir()
    assert fresh.stat().st_mode & 0o077 == 0
    assert alive.is_dir()
    assert not left.exists()
    store.release_scratch(alive)
    assert not alive.exists()


def test_measured_leaves_warm_ups_out() -> None:
    record: Record = fake_record(networks=("tiny",), protocols=("masked",), sessions=2, inferences=3, warmups=2)
    assert [len(session) for session in record.cases[0].measured] == [3, 3]
