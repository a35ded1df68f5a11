"""A against B: the turnstile with real sockets, and whole comparisons of trees whose `pibench run` is canned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fakes import fake_record

from pibench.cli import main
from pibench.errors import PartyError, UsageError
from pibench.records.files import dump_record
from pibench.records.record import Record
from pibench.run.ab import Side, adapted_suite, paired, run_pairs, tree_of
from pibench.session.turn import ADDRESS, SIDE, Turn
from pibench.session.turnstile import Turnstile
from pibench.suite import load_suite

pytestmark = pytest.mark.timeout(60)

# A tree whose `pibench run` copies a record prepared beforehand, with as many sessions as asked for.
CANNED = """
import argparse, json, pathlib, sys

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb"); parser.add_argument("suite"); parser.add_argument("--sessions", type=int)
    parser.add_argument("--record"); parser.add_argument("--seed", type=int)
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    tree = pathlib.Path(__file__).resolve().parents[1]
    if (tree / "broken").exists():
        print("the tree is broken", file=sys.stderr)
        return 3
    record = json.loads((tree / "record.json").read_text())
    for case in record["cases"]:
        first = (args.seed or 0) % 7 if args.sessions == 1 else 0
        case["sessions"] = case["sessions"][first : first + args.sessions]
    pathlib.Path(args.record).write_text(json.dumps(record))
    return 0
"""
SUITE = "name: ci\nnetworks: [digits-full]\nprotocols: [masked]\ntimeout_s: 5\n"


def tree(folder: Path, record: Record, *, turns: bool = True) -> Path:
    """Return a tree whose run gives that record."""
    (folder / "pibench" / "mpc").mkdir(parents=True)
    (folder / "pibench" / "__init__.py").touch()
    (folder / "pibench" / "cli.py").write_text(CANNED)
    if turns:
        (folder / "pibench" / "mpc" / "turn.py").touch()
    (folder / "record.json").write_text(dump_record(record))
    return folder


def record(seed: int, slowdown: float = 1.0) -> Record:
    return fake_record(
        ("full",), ("masked",), sessions=12, seed=seed, slowdown={"full/masked": slowdown}, session_noise=0.01
    )


def serve(turnstile: Turnstile, side: str, count: int, seen: list[str], lock: threading.Lock) -> None:
    """Be both parties of one session."""
    with lock:  # the environment is the whole process's
        os.environ[ADDRESS], os.environ[SIDE] = turnstile.address, side
        server, client = Turn("server"), Turn("client")

    def party(turn: Turn, role: str) -> None:
        for _ in range(count):
            turn.take()
            seen.append(f"{side} {role}")
        turn.leave()

    threads = [threading.Thread(target=party, args=(t, r)) for t, r in ((server, "server"), (client, "client"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def no_turnstile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the environment as it was."""
    monkeypatch.setenv(ADDRESS, "")
    monkeypatch.setenv(SIDE, "")


def together(turnstile: Turnstile, counts: dict[str, int]) -> list[str]:
    seen: list[str] = []
    lock = threading.Lock()
    threads = [threading.Thread(target=serve, args=(turnstile, s, n, seen, lock)) for s, n in counts.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    return seen


@pytest.mark.usefixtures("no_turnstile")
def test_two_sessions_serve_one_inference_at_a_time_in_pairs_of_random_order() -> None:
    with Turnstile(seed=3) as turnstile:
        seen = together(turnstile, {"base": 20, "head": 20})
    assert len(seen) == 80
    sides = [entry.split()[0] for entry in seen]
    assert sides[::2] == sides[1::2]  # both parties of one side, then the next
    order = turnstile.log
    assert order == sides[::2]
    firsts = [order[i] for i in range(0, 40, 2)]
    assert all({order[i], order[i + 1]} == {"base", "head"} for i in range(0, 40, 2))
    assert 3 < firsts.count("base") < 17


@pytest.mark.usefixtures("no_turnstile")
def test_a_side_with_more_inferences_finishes_them_alone() -> None:
    with Turnstile() as turnstile:
        together(turnstile, {"base": 3, "head": 8})
    assert turnstile.log.count("head") == 8


@pytest.mark.usefixtures("no_turnstile")
def test_a_side_that_has_ended_is_not_waited_for() -> None:
    with Turnstile() as turnstile:
        turnstile.gone("head")
        assert len(together(turnstile, {"base": 5})) == 10


@pytest.mark.usefixtures("no_turnstile")
def test_a_session_that_dies_in_its_turn_holds_nobody_up() -> None:
    with Turnstile() as turnstile:
        os.environ[ADDRESS], os.environ[SIDE] = turnstile.address, "head"
        dying = [Turn("server"), Turn("client")]
        for turn in dying:
            assert turn._socket is not None
            turn._socket.close()
        turnstile.gone("head")
        assert len(together(turnstile, {"base": 4})) == 8


def test_without_a_turnstile_it_is_always_ones_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    turn = Turn("client")
    turn.take()
    turn.leave()


@pytest.mark.parametrize("turns", [True, False])
@pytest.mark.parametrize(("slowdown", "status"), [(1.0, 0), (1.10, 1)])
def test_ab_of_two_trees_exits_with_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], slowdown: float, status: int, turns: bool
) -> None:
    base = tree(tmp_path / "base", record(1), turns=turns)
    head = tree(tmp_path / "head", record(2, slowdown), turns=turns)
    (tmp_path / "ci.yaml").write_text(SUITE)
    arguments = ["--suite", str(tmp_path / "ci.yaml"), "--keep", str(tmp_path / "kept"), "--environment", "shared"]
    found = main(["ab", str(base), str(head), "--sessions", "12" if turns else "7", "--json", *arguments])
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    [row] = [row for row in data["rows"] if row["measure"] == "online_s"]
    assert data["paired"] is True
    assert row["ratio"]["n_sessions"] == (12 if turns else 7)
    assert ("whole sessions alternate" in captured.err) is not turns
    if turns:  # seven pairs are too few for any verdict at 0.01
        assert found == status
    else:
        assert row["verdict"] == "too few sessions"
    assert len(list((tmp_path / "kept").glob("*/base*.json"))) == (1 if turns else 7)

    again = captured.err.partition("to judge them again: pibench ")[2].split("\n")[0]
    assert main([*again.split(), "--json"]) == found
    [other] = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["measure"] == "online_s"]
    assert other == row


def test_a_tree_that_cannot_run_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    base, head = tree(tmp_path / "base", record(1)), tree(tmp_path / "head", record(2))
    (head / "broken").touch()
    suite = adapted_suite(SUITE, tmp_path, tmp_path / "suites")
    sides = [Side(path.name, path.name, path, sys.executable, suite) for path in (base, head)]
    with pytest.raises(PartyError, match=r"head \(head\) ended with status 3\n.*the tree is broken"):
        run_pairs(sides[0], sides[1], tmp_path / "kept", 2, [], seed=0)


def test_a_session_that_one_side_lost_takes_its_partner_with_it() -> None:
    base, head = record(1), record(2)
    case = head.cases[0]
    head = head.with_case(case.model_copy(update={"sessions": case.sessions[:3] + case.sessions[5:]}))
    one, other = paired(base, head)
    assert [s.index for s in one.cases[0].sessions] == [0, 1, 2, 5, 6, 7, 8, 9, 10, 11]
    assert [s.index for s in one.cases[0].sessions] == [s.index for s in other.cases[0].sessions]


def test_two_cards_are_matched_case_by_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tree(tmp_path / "here", record(1))
    (tmp_path / "ci.yaml").write_text(SUITE)
    arguments = ["--suite", str(tmp_path / "ci.yaml"), "--keep", str(tmp_path / "kept"), "--environment", "shared"]
    main(["ab", str(here), str(here), "--cards", "digits-full", "digits-tiny", "--json", *arguments])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["case"] for row in rows} == {"digits-full -> digits-tiny/masked/loopback/cpu/b1"}


def test_a_sides_suite_waits_for_the_other_and_may_name_one_card(tmp_path: Path) -> None:
    text = adapted_suite(SUITE, tmp_path, tmp_path / "here", "digits-tiny").read_text()
    assert "digits-tiny" in text
    assert "digits-full" not in text
    assert "timeout_s: 600" in text


def test_a_sides_suite_means_the_same_weights(tmp_path: Path) -> None:
    text = "name: ci\nnetworks: [{card: digits-full, weights: w/x.safetensors}]\nprotocols: [masked]\n"
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "x.safetensors").touch()
    suite = load_suite(adapted_suite(text, tmp_path, tmp_path / "elsewhere"))
    assert suite.networks[0].weights == str(tmp_path / "w" / "x.safetensors")


def test_what_is_wrong_in_the_judging_shows_before_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError("it has measured already")

    monkeypatch.setattr("pibench.run.ab.run_pairs", measured)
    here = tree(tmp_path / "here", record(1))
    (tmp_path / "ci.yaml").write_text(SUITE)
    words = ["ab", str(here), str(here), "--suite", str(tmp_path / "ci.yaml"), "--environment", "shared"]
    assert main([*words, "--alpha", "5"]) == 4
    assert main([*words, "-t", "absent=3%"]) == 4
    assert main([*words, "-o", str(tmp_path / "absent" / "x.md")]) == 2
    assert "absent/x.md" in capsys.readouterr().err


def test_a_revision_is_checked_out_beside_the_tree_and_removed(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout

    git("init", "-q")
    (tmp_path / "file").write_text("then")
    git("add", "file")
    git("commit", "-q", "-m", "then")
    (tmp_path / "file").write_text("now")
    (tmp_path / ".pibench" / "checkpoints").mkdir(parents=True)
    with tree_of("HEAD", tmp_path) as (folder, label):
        assert (folder / "file").read_text() == "then"
        assert label.startswith("HEAD (")
        assert (folder / ".pibench" / "checkpoints").is_dir()
    assert not folder.exists()
    assert git("worktree", "list").count("\n") == 1
    with tree_of(str(tmp_path)) as (_, label):
        assert label == f"{tmp_path.name} ({git('rev-parse', 'HEAD')[:10]}, with changes)"
    with pytest.raises(UsageError, match="nowhere"), tree_of("nowhere", tmp_path):
        pass


def test_ab_without_anything_to_compare_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab"]) == 4
    assert "name a base" in capsys.readouterr().err
