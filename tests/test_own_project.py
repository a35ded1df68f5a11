"""pibench in a repository of one's own: which commit a record belongs to, and what `ab` compares and writes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pibench.cli import main
from pibench.errors import UsageError
from pibench.run.begin import blank
from pibench.run.fromsuite import plan_of
from pibench.run.settings import OwnModel

CARD = """
name: my-net
title: One of my own
method: full
dataset: digits
network: {family: resnet, base_width: 4, multipliers: [2], blocks: [1, 1], classes: 10, input: [1, 8, 8]}
relu_count: 1024
provenance: confirmed
recipe: {epochs: 1}
"""
SUITE = "name: mine\nnetworks: [my-net]\nprotocols: [plaintext]\nsessions: 1\ninferences: 1\nwarmups: 0\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file, text in (("networks/my-net.yaml", CARD), ("suites/mine.yaml", SUITE), ("mynet.py", "")):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "all of it"]):
        git(tmp_path, *command)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("own", [[OwnModel("mynet:make", (1, 8, 8))], []])
def test_a_record_names_the_commit_of_the_project_that_the_network_comes_from(
    project: Path, own: list[OwnModel]
) -> None:
    plan = plan_of("quick" if own else "mine", own=own)
    state = blank(plan, "one").git
    assert state is not None
    assert state.commit == git(project, "rev-parse", "HEAD")


@pytest.mark.parametrize("head", [[], ["."]])
@pytest.mark.parametrize("environment", ["auto", "shared"])
def test_ab_compares_the_repository_that_one_stands_in_and_writes_nowhere_else(
    project: Path, monkeypatch: pytest.MonkeyPatch, head: list[str], environment: str
) -> None:
    seen: list[Any] = []

    def run_pairs(*sides: Any) -> None:
        seen.extend(sides[:2])
        raise UsageError("enough")

    monkeypatch.setattr("pibench.run.ab.run_pairs", run_pairs)
    assert main(["ab", "main", *head, "--suite", "mine", "--sessions", "1", "--environment", environment]) == 4
    base, other = seen
    assert Path(other.tree).resolve() == project
    assert base.label == f"main ({git(project, 'rev-parse', 'HEAD')[:10]})"
    assert other.tree != base.tree
    assert Path(other.suite).resolve().is_relative_to(project / ".pibench")
    assert git(project, "status", "--porcelain", "--", "networks", "suites", "mynet.py") == ""
