"""A workflow for somebody's repository: valid YAML whose commands are pibench's, run here from a scratch repository."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pibench.cli import VERBS, main

SUITE = """
name: mine
networks: [{model: "mynet:make", input: [1, 8, 8]}]
protocols: [plaintext]
sessions: 1
inferences: 2
warmups: 0
"""
NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), %s nn.Flatten(), nn.Linear(128, 4))
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "mine.yaml").write_text(SUITE)
    (tmp_path / "mynet.py").write_text(NET % "")
    _git("init", "-q", "-b", "main")
    _git("add", "-A")
    _git("-c", "user.name=n", "-c", "user.email=n@example.org", "commit", "-qm", "one layer")
    return tmp_path


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


def test_the_workflow_is_yaml_whose_commands_exist(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ci", "init", "--suite", "suites/mine.yaml"]) == 0
    data = yaml.safe_load((repository / ".github/workflows/pibench.yml").read_text())
    assert data["env"]["SUITE"] == "suites/mine.yaml"
    steps = [step for job in data["jobs"].values() for step in job["steps"]]
    said = " ".join(step.get("run", "") for step in steps).split()
    verbs = {after for word, after in itertools.pairwise(said) if word == "pibench"}
    assert verbs == {"run", "gate", "ab"}
    assert verbs <= set(VERBS)
    assert main(["ci", "init", "--suite", "suites/mine.yaml"]) == 4, "it is not written over"
    assert main(["ci", "init", "--suite", "absent"]) == 4


@pytest.mark.timeout(300)
def test_the_gate_of_an_own_module_finds_a_planted_step_in_its_counts_and_the_record_its_commit(
    repository: Path,
) -> None:
    def pibench(*words: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(Path(__file__).parents[1]), str(repository)])
        return subprocess.run(
            [sys.executable, "-m", "pibench", *words], capture_output=True, text=True, timeout=200, check=False,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip

    assert pibench("run", "suites/mine.yaml", "--record", "a.json", "-q").returncode == 0
    assert pibench("gate", "a.json", "--update", "--baseline", "ci/baseline.json").returncode == 0
    (repository / "mynet.py").write_text(NET % "nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(),")
    _git("-c", "user.name=n", "-c", "user.email=n@example.org", "commit", "-qam", "a second layer")
    assert pibench("run", "suites/mine.yaml", "--record", "b.json", "-q").returncode == 0
    done = pibench("gate", "b.json", "--baseline", "ci/baseline.json", "--time", "never", "--format", "markdown")
    assert done.returncode == 1
    assert "relu_count" in done.stdout
    from pibench.records.files import load_record

    record = load_record(repository / "b.json")
    assert (record.git.commit, record.git.dirty) == (_git("rev-parse", "HEAD"), False)
