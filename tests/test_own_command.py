"""`--model` as often as one has networks: what belongs to which, and a dry run that finds what is wrong with any."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from pibench.cli import main
from pibench.commands.own_networks import add_own_networks, own_networks
from pibench.errors import UsageError
from pibench.run.settings import OwnModel

CODE = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))

def wide():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))

def raises():
    raise RuntimeError("no licence")

def needs_cuda():
    return net().cuda()

def silu():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(144, 10))

def picture():
    return nn.Conv2d(1, 4, 3)

def row_of_ones():
    return nn.Sequential(nn.Conv2d(1, 10, 8), nn.Softmax(1))

def two():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()
        def forward(self, x):
            y = self.net(x)
            return y, {"twice": 2 * y}
    return Two()
"""
FAULTS = {
    "raises": "RuntimeError: no licence (owncommand.py:11)",
    "needs_cuda": "(owncommand.py:14)",
    "silu": "module 1: SiLU cannot be lowered",
    "picture": "returns values of shape (4, 6, 6) for an image, which is no row of logits",
    "two": "--output NAME; it returns 0 (10,), 1.twice (10,)",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "owncommand.py").write_text(CODE)
    (tmp_path / "small.yaml").write_text(
        "name: small\nnetworks: [digits-tiny]\nprotocols: [plaintext]\nsessions: 1\ninferences: 1\nwarmups: 0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def read(*words: str) -> tuple[OwnModel, ...]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_own_networks(parser, "own")
    return own_networks(parser.parse_args(words).own_networks)


def test_options_belong_to_the_model_before_them() -> None:
    one, two = read(
        "--model", "a:f", "--label", "A", "--weights", "a.pth", "--input", "3,8,8",
        "--model", "b:g", "--method", "snl", "--output", "0", "--label", "B",
    )  # fmt: skip
    assert one == OwnModel("a:f", (3, 8, 8), Path("a.pth"), label="A")
    assert two == OwnModel("b:g", (3, 8, 8), method="snl", output="0", label="B")


def test_what_is_given_once_holds_for_all_and_what_is_given_twice_for_each() -> None:
    once = read("--input", "1,8,8", "--dataset", "digits", "--model", "a:f", "--model", "b:g")
    assert [(model.input_shape, model.dataset) for model in once] == [((1, 8, 8), "digits")] * 2
    each = read("--model", "a:f", "--input", "1,8,8", "--normalise", "0.5,2", "--model", "b:g", "--input", "3,4,4")
    assert [model.input_shape for model in each] == [(1, 8, 8), (3, 4, 4)]
    assert [model.normalise for model in each] == [(0.5, 2.0)] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weights", "a.pth"], "--weights is for your own network"),
        (["--model", "a:f"], "a:f needs the shape of its images"),
        (["--model", "a:f", "--input", "1,8,8", "--model", "b:g", "--input", "1,8,8", "--model", "c:h"], "c:h needs"),
    ],
)
def test_what_is_missing_is_said(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(*words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "a:f", "--label", "x", "--label", "y"], "--label is given twice for one network"),
        (["--normalise", "0.5"], "as many deviations as means"),
        (["--normalise", "0.5,0"], "a deviation is to be above 0"),
        (["--normalise", "a,b"], "write MEAN,STD"),
        (["--dataset", "cifar11"], "did you mean 'cifar10'?"),
        (["--dataset", "no/such/folder"], "no folder 'no/such/folder'"),
    ],
)
def test_what_is_wrong_is_said_beside_the_option(words: list[str], said: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", *words])
    assert ended.value.code == 4
    assert said in capsys.readouterr().err


def test_a_dry_run_finds_the_faults_of_all_factories(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for name in FAULTS for word in ("--model", f"owncommand:{name}")]
    command = ["run", "small.yaml", "--dry-run", "--input", "1,8,8", "--model", "owncommand:net", *words]
    assert main(command) == 4
    shown = capsys.readouterr()
    for name, words_said in FAULTS.items():
        assert f"pibench run: owncommand:{name}: " in shown.err
        assert words_said in shown.err
    assert "owncommand:net:" not in shown.err
    assert "owncommand:net/plaintext" in shown.out
    assert main([*command, "--json"]) == 4
    assert set(json.loads(capsys.readouterr().out)["faults"]) == {f"owncommand:{name}" for name in FAULTS}
    assert not (own / ".pibench").exists()


def test_two_networks_stand_under_their_names_and_a_faulty_one_disturbs_neither(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "run", "small.yaml", "-q", "--input", "1,8,8", "--record", "it.json", "--model", "owncommand:net", "--label",
        "narrow", "--method", "snl", "--model", "owncommand:wide", "--label", "wide", "--model", "owncommand:picture",
        "--model", "owncommand:row_of_ones",
    ]  # fmt: skip
    assert main(command) == 2
    shown = capsys.readouterr().out
    assert "narrow" in shown
    assert "no row of logits" in " ".join(shown.split())
    record = json.loads((own / "it.json").read_text())
    found = {case["network"]["card"]: case for case in record["cases"]}
    states = {name.removeprefix("owncommand:"): case["status"] for name, case in found.items()}
    assert states == {"narrow": "done", "wide": "done", "picture": "failed", "row_of_ones": "done"}
    assert (found["narrow"]["network"]["method"], found["wide"]["network"]["method"]) == ("snl", "")
    assert [found[name]["network"]["relu_count"] for name in ("narrow", "wide")] == [256, 512]


def test_two_of_one_name_want_a_label(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "small.yaml", "--dry-run", "--input", "1,8,8", *("--model", "owncommand:net") * 2]
    assert main(command) == 4
    assert "give each its --label" in capsys.readouterr().err
