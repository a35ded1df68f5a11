"""Every script of ci/ in short form, so that none can rot: each runs as a user calls it, in a process of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import networks_for_tests as networks
import numpy as np
import pytest
import torch
import yaml
from ci_scripts import CI, script
from fakes import fake_record

from pibench.cli import build_parser
from pibench.records.files import load_record, save_record
from pibench.run.fromsuite import plan_of

pytestmark = pytest.mark.timeout(240)
TREE = CI.parent
ZOO = {  # a zoo of two networks, where the real ones are not installed
    "pytorchcv/model_provider.py": """
import torch
def small_cifar10(in_size=(8, 8)):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(),
                              torch.nn.Linear(144, 10))
    net.in_size = in_size
    return net
def gelu_cifar10(in_size=(8, 8)):
    net = torch.nn.Sequential(torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(192, 10))
    net.in_size = in_size
    return net
_models = {made.__name__: made for made in (small_cifar10, gelu_cifar10)}
def get_model(name):
    return _models[name]()
""",
    "timm/__init__.py": "def list_models():\n    return []\n",
    "pytorchcv/__init__.py": "",
}


@dataclass(frozen=True)
class Short:
    """A short form: the arguments, what must be printed, statuses that are fine, and what must lie there before."""

    arguments: str
    prints: str
    statuses: tuple[int, ...] = (0,)
    before: Callable[[], None] = lambda: None


def record() -> None:
    """Write a record whose link was probed."""
    made = fake_record()
    probe = {"rtt_ms": 0.04, "floor_ms": 0.04, "up_mbit_s": 1e4, "down_mbit_s": 1e4, "gloo_round_ms": 0.4}
    for case in made.cases:
        made = made.with_case(case.model_copy(update={"link": case.link.model_copy(update={"probe": probe})}))
    save_record(made, Path("record.json"))


def zoo() -> None:
    for name, text in ZOO.items():
        path = Path("zoo", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


SHORT = {
    "offers": Short("--relus 2048 --size 8 --repeats 2", r"ns a ReLU more, both .*\na word more takes -?[\d.]+ ns"),
    "explain_links": Short("record.json", r"tiny/masked/loopback/cpu/b1 +[\d.]+s +[\d.]+s =", (0, 1)),  # no real link
    "faults": Short("--faults 1", r"1 faults \(.*; 0 problems"),
    "fuzz": Short("--inputs 20 --format card", r"card: 20 inputs .* 0 finds"),
    "linear_offline": Short("digits-tiny --check", r"digits-tiny: \d+ layers"),
    "papers": Short("record.json --figure figure.svg", r"masked over loopback.*R² = "),
    "soak": Short("--inferences 40", r"41 inferences in .*worst logit error [\d.e-]+\n", (0, 1)),  # too short to judge
    "training_steps": Short(
        "digits-tiny --layers --pixels 8 --batch 2 --rounds 1", r"float32 512 .*tiles .*bfloat16 .*ratio \d+\.\d\d"
    ),
    "truncations": Short("--values 2000 --planted 10000", r"2,000 values, 0 off"),
    "zoos": Short("--of cifar", r"2 networks: 1 lowers, 1 refused, 0 wrong", before=zoo),
}  # fmt: skip


IN_PARTS = {"circa", "experiments", "no_dealer", "own_repository", "two_hosts"}  # whole runs take too long: see below


def test_every_script_has_a_short_form():
    assert SHORT.keys() | IN_PARTS == {path.stem for path in CI.glob("*.py")}


@pytest.mark.parametrize("name", SHORT)
def test_it_runs_and_prints_what_it_is_for(name, tmp_path, monkeypatch):
    short = SHORT[name]
    monkeypatch.chdir(tmp_path)
    record()
    short.before()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "zoo"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CI / f"{name}.py"), *shlex.split(short.arguments)],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert done.returncode in short.statuses, said
    assert re.search(short.prints, said, re.DOTALL), said


def test_every_change_that_the_experiments_plant_still_has_its_place(tmp_path):
    """Slowdowns, a byte, a round: each text that is replaced occurs once, and what comes of it is Python."""
    experiments = script("experiments")
    for number, changes in enumerate([*experiments.CHANGES.values(), experiments.ROUND, experiments.BYTE]):
        tree = experiments.patched(tmp_path / str(number), *changes)
        for name in {name for name, *_ in changes}:
            compile((tree / name).read_text("utf-8"), name, "exec")
        shutil.rmtree(tree)


def test_the_experiments_call_pibench_as_it_is_called(tmp_path):
    experiments = script("experiments")
    args = SimpleNamespace(network="digits-tiny", protocol="masked", inferences=2)
    made = experiments.side("base", tmp_path, args)
    assert [case.network for case in plan_of(str(made.suite)).cases] == ["digits-tiny"]
    words = made.command(tmp_path / "record.json", 2, [])
    verb = words.index("run")
    build_parser("run").parse_args(words[verb:])


def test_the_experiments_verdicts_come_of_kept_records(tmp_path, monkeypatch, capsys):
    experiments = script("experiments")
    monkeypatch.setattr(sys, "argv", ["experiments.py", "judge", "--keep", str(tmp_path), "--size", "6"])
    for kind, factor in (("same", 1.0), ("slower10", 1.1)):
        for side in ("base", "head"):
            slower = {"tiny/masked": factor if side == "head" else 1.0}
            made = fake_record(["tiny"], ["masked"], slowdown=slower, seed=len(side), session_noise=0.001)
            (tmp_path / f"{kind}-0000").mkdir(exist_ok=True)
            save_record(made, tmp_path / f"{kind}-0000" / f"{side}.json")
    experiments.main()
    assert '"experiment": "slower10, real, 6 pairs"' in capsys.readouterr().out


@pytest.mark.parametrize(("noise", "status", "says"), [(0.0, 0, " 0 "), (0.5, 1, "<- not as with the dealer")])
def test_logits_without_a_dealer_are_compared_with_those_of_one(noise, status, says, monkeypatch, capsys):
    """One structure, and logits that are plaintext's, or are far off without a dealer."""
    no_dealer = script("no_dealer")
    kind = next(iter(no_dealer.other_peoples.KINDS))
    monkeypatch.setattr(no_dealer.other_peoples, "KINDS", {kind: no_dealer.other_peoples.KINDS[kind]})
    monkeypatch.setattr(no_dealer, "Nurseries", lambda modules: nullcontext(SimpleNamespace(start=None)))

    def logits(network, provider, images, batch, launch, folder):
        return network.reference[list(images)] + (noise * np.arange(10) if provider == "two-party" else 0)

    monkeypatch.setattr(no_dealer, "private_logits", logits)
    monkeypatch.setattr(sys, "argv", ["no_dealer.py", "--structures", "--images", "2", "--batch", "2"])
    assert no_dealer.main() == status
    assert says in capsys.readouterr().out


def test_what_a_sign_alone_costs_is_counted():
    """Of a network whose ReLUs are small: with 28 dropped bits most positives become zero, as the formula says."""
    circa, images = script("circa"), 0.01 * torch.rand(4, *networks.SHAPE)
    program, weights = networks.program_of("residual")
    row = circa.measure(program, weights, images, 28)
    seen, predicted, spread = re.search(r"\| ([\d,]+) \(\S+\) \| ([\d,]+) ± (\d+) \|", row).groups()
    assert abs(int(seen.replace(",", "")) - int(predicted.replace(",", ""))) <= 3 * int(spread)
    assert int(seen.replace(",", "")) > 0
    assert "0.00 % | 0.00 % |" in circa.score(program, weights, images, torch.full((4,), -1), 0)


def test_the_scratch_repository_holds_what_pibench_reads(tmp_path, monkeypatch):
    own = script("own_repository")
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(own.SUITE)
    (case,) = plan_of("mine.yaml").cases
    assert case.network == "mynet:make"
    shapes = []
    for layers in ("", own.STEP):
        exec(own.NET % layers, names := {})
        shapes.append(names["make"]()(torch.zeros(2, 1, 8, 8)).shape)
    assert shapes == [(2, 4), (2, 4)]


def test_two_hosts_are_called_as_they_are_called(tmp_path):
    two_hosts = script("two_hosts")
    for command in two_hosts.commands(tmp_path, Path("suite.yaml")):
        build_parser(command[0]).parse_args(command)
    (tmp_path / "suite.yaml").write_text(two_hosts.SUITE)
    assert len(plan_of(str(tmp_path / "suite.yaml")).cases) == 2
    strangers = two_hosts.STRANGERS.format(tests=str(CI.parent / "tests"), port=1, keys=str(tmp_path))
    exec(compile(strangers.partition("for kind")[0], "strangers", "exec"), names := {})
    assert len(names["KINDS"]) >= 6


def test_the_baseline_can_be_made_anew(tmp_path):
    """Beside a copy of the folder."""
    shutil.copytree(CI, tmp_path / "ci")
    pibench = tmp_path / "pibench-here"  # measures nothing, and gates as the real one
    pibench.write_text(
        f'#!/bin/sh\necho "$@" >> calls\n[ "$1" = run ] && mkdir -p .pibench/runs && '
        f'exec cp measured.json .pibench/runs/measured.json\nexec "{sys.executable}" -m pibench "$@"\n'
    )
    pibench.chmod(0o755)
    save_record(fake_record(["tiny"], ["masked"]), tmp_path / "measured.json")
    done = subprocess.run(
        [str(tmp_path / "ci" / "update_baseline.sh"), "--sessions", "1"],
        env=os.environ | {"PIBENCH": str(pibench)}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [case.network.card for case in load_record(tmp_path / "ci" / "baseline.json").cases] == ["tiny"]
    for call in (tmp_path / "calls").read_text().splitlines():
        build_parser(call.split()[0]).parse_args(call.split())


def test_the_baseline_is_of_the_suite_that_ci_measures():
    baseline = load_record(CI / "baseline.json")
    assert yaml.safe_load((TREE / "suites" / "ci.yaml").read_text())["name"] == baseline.suite.name
    assert all(case.status == "done" and case.sessions for case in baseline.cases)


def test_the_ready_workflow_calls_commands_that_there_are():
    jobs = yaml.safe_load((CI / "github-actions.yml").read_text())["jobs"]
    lines = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    commands = re.findall(r"\.venv/bin/pibench ([^|\n]*)", lines)
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command.replace("${{ github.base_ref }}", "main"))
        build_parser(words[0]).parse_args(words)
