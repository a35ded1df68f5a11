"""Runs: order, checked answers, partial records, resuming; and the verb from the command line."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeParties, fake_record

from pibench.cli import main
from pibench.errors import NothingSelected, PartyError, StoreError, UsageError
from pibench.records.files import load_record, save_record
from pibench.records.record import SCHEMA, Machine, Record, SuiteInfo
from pibench.run import runner
from pibench.run.fromsuite import plan_of
from pibench.run.prepare import prepare_instance, preparer
from pibench.run.runner import Run
from pibench.run.selection import matches
from pibench.run.settings import CasePlan, Needs, OwnModel, RunPlan, estimate_s, select

OWN = OwnModel("own_model:tiny", (1, 8, 8))


def make_plan(protocols: tuple[str, ...] = ("plaintext", "masked"), **changes: Any) -> RunPlan:
    cases = tuple(CasePlan(network=OWN.name, protocol=protocol) for protocol in protocols)
    settings: dict[str, Any] = {"sessions": 2, "inferences": 2, "seed": 3, **changes}
    return RunPlan(suite=SuiteInfo(name="test"), cases=cases, sources={OWN.name: OWN}, **settings)


def make_run(
    plan: RunPlan, path: Path, parties: FakeParties, monkeypatch: pytest.MonkeyPatch, record: Record | None = None
) -> Run:
    monkeypatch.setattr(runner, "run_session", parties)
    monkeypatch.chdir(path.parent)
    fresh = Record(
        schema=SCHEMA, id=path.stem, created_utc="2026-11-20T12:00:00Z", pibench_version="0", seed=plan.seed,
        suite=plan.suite, machine=Machine(key="k"),
    )  # fmt: skip
    return Run(plan, path, record or fresh, preparer(plan.sources, lambda _: None))


def by_protocol(record: Record) -> dict[str, Any]:
    return {case.protocol: case for case in record.cases}


def test_a_run_fills_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, parties = tmp_path / "run.json", FakeParties()
    record = make_run(make_plan(), path, parties, monkeypatch).execute()
    assert load_record(path) == record
    assert record.finished
    assert [case.status for case in record.cases] == ["done", "done"]
    for case in record.cases:
        assert [session.index for session in case.sessions] == [0, 1]
        assert case.network.relu_count == 2 * 8 * 8
        assert case.declared is not None
        assert case.fingerprint
        for session in case.sessions:
            assert session.correctness.n == session.correctness.agreeing == 3
            assert [inference.warmup for inference in session.inferences] == [True, False, False]
    assert sorted(session.order for case in record.cases for session in case.sessions) == [0, 1, 2, 3]
    left = {path.name for path in (tmp_path / ".pibench" / "tmp").iterdir()}
    assert left <= {".lock"}  # of the folder itself, which runs take turns to change


@pytest.mark.parametrize("merge", [True, False])
def test_linear_neighbours_are_merged_and_answers_are_of_the_network_as_it_is(tmp_path: Path, merge: bool) -> None:
    culled = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 8, 3, padding=1),
        torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3),
    )  # fmt: skip
    images = torch.randn(2, 1, 8, 8)
    ready = prepare_instance(
        "culled", culled, images, None, tmp_path, Needs(images=2, plain_images=0, seed=0, merge=merge)
    )
    assert ready.network.macs == 64 * 9 * (4 + 32 + 64) + 24
    assert ready.network.macs_run == (64 * 9 * 4 + 4 * 64 * 3 if merge else ready.network.macs)
    assert len(ready.ops) == (5 if merge else 8)
    np.testing.assert_allclose(ready.reference, culled(images).detach(), atol=1e-5)


def test_random_weights_have_no_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_run(make_plan(), tmp_path / "run.json", FakeParties(), monkeypatch).execute()
    for case in record.cases:
        assert case.network.plain_accuracy is None
        assert case.network.weights_sha256 is None
        assert case.network.note
        assert all(session.accuracy is None for session in case.sessions)


def test_sessions_take_different_images_and_only_their_owner_is_told_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pibench.mpc.spec import spec_of
    from pibench.session.session import _job

    parties = FakeParties()
    make_run(make_plan(("plaintext",)), tmp_path / "run.json", parties, monkeypatch).execute()
    arrangement = spec_of("plaintext").arrangement({})
    server, client = (_job(parties.plans[0], role, {}, arrangement, "t") for role in ("server", "client"))
    assert server.images is None
    assert client.weights is None
    assert server.weights
    assert client.images
    assert "token" not in repr(server)


@pytest.mark.parametrize(("shift", "status"), [(0.01, "done"), (0.2, "invalid"), (float("nan"), "invalid")])
def test_wrong_logits_make_a_case_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float, status: str
) -> None:
    parties = FakeParties({"masked": shift})
    record = make_run(make_plan(), tmp_path / "run.json", parties, monkeypatch).execute()
    cases = by_protocol(record)
    assert cases["masked"].status == status
    assert bool(cases["masked"].error) == (status == "invalid")
    assert cases["plaintext"].status == "done"
    assert len(cases["masked"].sessions) == 2


def test_a_failed_party_fails_its_case_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parties = FakeParties({"masked": PartyError("server: killed by SIGKILL in online 1")})
    record = make_run(make_plan(), tmp_path / "run.json", parties, monkeypatch).execute()
    cases = by_protocol(record)
    assert cases["masked"].status == "failed"
    assert "SIGKILL" in cases["masked"].error
    assert cases["plaintext"].status == "done"
    assert sum(plan.protocol == "masked" for plan in parties.plans) == 1


def test_an_interrupted_run_leaves_a_valid_record_that_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plan = tmp_path / "run.json", make_plan(sessions=3)
    interrupted = FakeParties({f"{p}#4": KeyboardInterrupt() for p in ("plaintext", "masked")})
    with pytest.raises(KeyboardInterrupt):
        make_run(plan, path, interrupted, monkeypatch).execute()
    left = load_record(path)
    assert not left.finished
    assert sum(len(case.sessions) for case in left.cases) == 3
    assert {case.status for case in left.cases} == {"pending"}
    assert all("interrupted after" in str(case.error) for case in left.cases)

    rest = FakeParties()
    record = make_run(plan, path, rest, monkeypatch, record=left).execute()
    assert len(rest.plans) == 3
    assert record.finished
    assert {case.status for case in record.cases} == {"done"}
    assert {case.error for case in record.cases} == {None}
    assert [len(case.sessions) for case in record.cases] == [3, 3]
    assert sorted(s.order for case in record.cases for s in case.sessions) == list(range(6))


def test_sessions_of_another_setting_are_refused_and_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    first = make_run(make_plan(), path, FakeParties(), monkeypatch).execute()
    again, changed = FakeParties(), FakeParties()
    make_run(make_plan(), path, again, monkeypatch, record=first).execute()
    assert again.plans == []
    with pytest.raises(
        runner.OtherSettings, match=r"its 2 sessions of own_model:tiny/plaintext\S* are of other settings"
    ):
        make_run(make_plan(inferences=3), path, changed, monkeypatch, record=first).execute()
    assert changed.plans == []
    assert load_record(path) == first


def test_more_sessions_keep_those_of_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorm is measured on the same images however many sessions there are, so the weights stay the same."""
    path, more = tmp_path / "run.json", FakeParties()
    first = make_run(make_plan(("plaintext",), sessions=2), path, FakeParties(), monkeypatch).execute()
    record = make_run(make_plan(("plaintext",), sessions=20), path, more, monkeypatch, record=first).execute()
    assert len(more.plans) == 18
    assert len(record.cases[0].sessions) == 20


def test_a_full_disk_ends_the_run_with_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path, calls = tmp_path / "run.json", []
    work = make_run(make_plan(), path, FakeParties(), monkeypatch)
    fsync = os.fsync

    def fill(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(StoreError, match="No space left"):
        work.execute()
    left = load_record(path)
    assert sum(len(case.sessions) for case in left.cases) == 1
    assert not left.finished


def test_every_round_has_every_case_in_an_order_of_its_own() -> None:
    plan = make_plan(("plaintext", "masked", "crypten", "crypten-cached"), sessions=6)
    order = plan.order()
    rounds = [[case.protocol for index, case in order if index == number] for number in range(6)]
    assert [index for index, _ in order] == sorted(index for index, _ in order)
    assert all(sorted(names) == sorted(rounds[0]) for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert order == plan.order()
    assert order != dataclasses.replace(plan, seed=4).order()
    straight = dataclasses.replace(plan, interleave=False).order()
    assert [case.protocol for _, case in straight[:6]] == ["plaintext"] * 6


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("masked", True), ("MASKED", True), ("crypten", False), ("not crypten", True), ("masked and wan", False),
        ("masked or wan", True), ("not (masked and wan)", True), ("b1 and (wan or lan) or masked", True),
    ],
)  # fmt: skip
def test_k_expressions(expression: str, expected: bool) -> None:
    assert matches(expression, "digits-full/masked/loopback/cpu/b1") == expected


@pytest.mark.parametrize("expression", ["", "and", "a and", "(a", "a)", "a b", "not", "x " * 300])
def test_k_expressions_that_make_no_sense(expression: str) -> None:
    with pytest.raises(UsageError):
        matches(expression, "a")


def test_nothing_selected_is_said() -> None:
    with pytest.raises(NothingSelected):
        select(make_plan().cases, "absent")


def test_estimates_come_from_earlier_runs() -> None:
    cases = tuple(CasePlan(network=name, protocol="masked") for name in ("tiny", "new"))
    plan = dataclasses.replace(make_plan(), cases=cases)
    found = estimate_s(plan, [fake_record(networks=("tiny",), protocols=("masked",))])
    assert found["tiny/masked/loopback/cpu/b1"][1]
    assert 5 < found["tiny/masked/loopback/cpu/b1"][0] < 20  # two sessions of about five seconds
    assert not found["new/masked/loopback/cpu/b1"][1]


# -- the verb ---------------------------------------------------------------------------------------------------------

SUITE = """name: mine
networks: [{model: "own_model:tiny", input: [1, 8, 8]}]
protocols: [plaintext, masked]
sessions: 1
inferences: 2
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run_session", FakeParties())
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE)
    return path


def test_the_screen_ends_with_the_answer(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(suite)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^own_model:tiny +128 .* yes ", out, re.MULTILINE)
    assert "nothing is said about what a budget buys" in " ".join(out.split())
    assert len(list(Path(".pibench/runs").glob("*-mine.json"))) == 1


def test_json_is_the_record(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(suite), "--json", "--inferences", "3", "--record", "here.json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == SCHEMA
    assert len(data["cases"][0]["sessions"][0]["inferences"]) == 4
    assert load_record(Path("here.json")).finished


def test_a_record_can_be_run_again(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(suite), "-q", "--record", "here.json"]) == 0
    assert main(["run", "here.json", "-q", "--record", "again.json", "-k", "masked"]) == 0
    again = load_record(Path("again.json"))
    assert [case.protocol for case in again.cases] == ["masked"]
    assert again.suite.path == str(suite)
    assert again.suite.sha256 == load_record(Path("here.json")).suite.sha256


def test_failures_have_status_2_and_say_which_case(
    suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "run_session", FakeParties({"masked": PartyError("client: ended with status 7")}))
    assert main(["run", str(suite), "-q"]) == 2
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "client: ended with status 7" in out
    monkeypatch.setattr(runner, "run_session", FakeParties({"masked": 0.7}))
    assert main(["run", str(suite), "-q"]) == 2
    assert "INVALID" in capsys.readouterr().out


def test_ctrl_c_shows_what_there_is_and_how_to_go_on(
    suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted = {f"{name}#2": KeyboardInterrupt() for name in ("plaintext", "masked")}
    monkeypatch.setattr(runner, "run_session", FakeParties(interrupted))
    options = ["-q", "--inferences", "2", "-k", "plaintext or masked", "--record", "part.json"]
    assert main(["run", str(suite), *options]) == 2
    said = capsys.readouterr()
    hint = said.err.partition("go on with: pibench ")[2].strip()
    assert hint == f"run {suite} -q --inferences 2 -k 'plaintext or masked' --record part.json --resume part.json"
    assert "NOT FINISHED" in said.out
    monkeypatch.setattr(runner, "run_session", FakeParties())
    measured = Path("part.json").read_text()
    assert main(["run", str(suite), *options]) == 4  # would begin anew and lose what there is
    assert main(["run", str(suite), "-q", "--resume", "part.json", "--inferences", "9"]) == 4
    assert Path("part.json").read_text() == measured
    capsys.readouterr()
    assert main(shlex.split(hint)) == 0
    assert all(len(s.inferences) == 3 for case in load_record(Path("part.json")).cases for s in case.sessions)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["absent"], 4, "no suite 'absent'"),
        (["{suite}", "-k", "crypten"], 5, "no case is selected"),
        (["{suite}", "--model", "own_model:tiny"], 4, "--input"),
        (["{suite}", "--weights", "x"], 4, "--model"),
        (["{suite}", "--resume", "absent"], 4, "no record"),
    ],
)
def test_usage_errors(
    suite: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    assert main(["run", *[text.format(suite=suite) for text in arguments]]) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "said"), [("absent:f", "cannot import"), ("own_model:g", "cannot import"), ("own_model:nothing", "int")]
)
def test_a_model_that_cannot_be_made_fails_its_cases(
    suite: Path, capsys: pytest.CaptureFixture[str], model: str, said: str
) -> None:
    assert main(["run", str(suite), "-q", "--model", model, "--input", "1,8,8"]) == 2
    assert said in capsys.readouterr().out


def test_an_absent_data_set_is_a_note_and_a_damaged_one_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pibench.errors import DataError
    from pibench.run.images import shown_by

    monkeypatch.setenv("PIBENCH_DATA", str(tmp_path))
    needs = Needs(1, 1, 0)
    found = shown_by("cifar10", (3, 32, 32), needs)
    assert found.data is None
    assert "not there" in str(found.note)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        (folder / f"{name}.bin").write_bytes(b"\0" * 1000)
    with pytest.raises(DataError, match="truncated"):
        shown_by("cifar10", (3, 32, 32), needs)


def test_a_dry_run_runs_nothing(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(suite), "--dry-run"]) == 0
    assert "own_model:tiny/masked/loopback/cpu/b1" in capsys.readouterr().out
    assert main(["run", str(suite), "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["cases"]) == 2
    assert not Path(".pibench").exists()


def test_one_model_takes_the_place_of_a_suites_networks() -> None:
    plan = plan_of("quick", own=[OWN])
    assert {case.network for case in plan.cases} == {"own_model:tiny"}
    assert plan.sources == {"own_model:tiny": OWN}
    assert len(plan.cases) == 4


@pytest.mark.timeout(300)  # numba compiles the kernels once a machine
def test_two_real_parties_under_two_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(SUITE)
    assert main(["run", "mine.yaml", "-q", "--record", "run.json"]) == 0
    for case in load_record(Path("run.json")).cases:
        assert case.status == "done"
        assert case.declared is not None
        for session in case.sessions:
            assert session.correctness.max_abs_logit_error is not None
            assert session.correctness.max_abs_logit_error < 0.01
            for inference in session.inferences:
                assert inference.online_s == max(inference.server.time_s, inference.client.time_s)
                assert inference.server.sent_bytes == case.declared.server_bytes
                assert inference.client.sent_bytes == case.declared.client_bytes
                assert max(inference.server.rounds, inference.client.rounds) == case.declared.rounds


def test_a_records_suite_finds_its_weights_where_they_lay(tmp_path: Path) -> None:
    text = "name: mine\nnetworks: [{card: digits-full, weights: w/x.safetensors}]\nprotocols: [masked]\n"
    info = SuiteInfo(name="mine", path=str(tmp_path / "there" / "mine.yaml"), text=text)
    save_record(fake_record(("full",), ("masked",)).model_copy(update={"suite": info}), tmp_path / "r.json")
    [source] = plan_of(str(tmp_path / "r.json")).sources.values()
    assert source.weights == tmp_path / "there" / "w" / "x.safetensors"
