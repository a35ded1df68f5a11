"""What a protocol declares: suites are refused by it, the harness goes by it, and another package may bring its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from pibench.errors import UsageError
from pibench.mpc.protocol import Protocol, cost_function, protocol_class
from pibench.mpc.spec import BUILT_IN, Arrangement, ProtocolSpec, Trust, found, is_private, load, order, spec_of
from pibench.session.session import device_of
from pibench.suite import load_suite


def refusal(folder: Path, **changes: Any) -> str:
    suite = {"name": "s", "networks": ["digits-tiny"], "protocols": ["masked"], **changes}
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    with pytest.raises(UsageError) as caught:
        load_suite(path)
    return str(caught.value)


@pytest.mark.parametrize("protocol", sorted(name for name in BUILT_IN if "cuda" not in spec_of(name).devices))
@pytest.mark.parametrize("device", ["cuda", "cuda:0,cuda:1"])
def test_a_device_that_a_protocol_has_not_is_refused_when_the_suite_is_read(
    tmp_path: Path, protocol: str, device: str
) -> None:
    said = refusal(tmp_path, protocols=[protocol], devices=["cpu", device])
    assert f"s.yaml:5: {protocol} does not run on cuda, only on cpu" in said


@pytest.mark.parametrize(
    ("protocol", "options", "said"),
    [
        ("masked", {"fraktion_bits": 12}, "masked has no option 'fraktion_bits'; did you mean 'fraction_bits'?"),
        ("masked", {"wire": "gloo"}, "masked has no option 'wire'; it has fraction_bits"),
        ("masked", {"fraction_bits": "16"}, "option fraction_bits: input should be a valid integer (given: '16')"),
        ("masked", {"fraction_bits": True}, "option fraction_bits: input should be a valid integer (given: True)"),
        ("masked", {"check_ranges": 1}, "option check_ranges: input should be a valid boolean (given: 1)"),
        ("masked", {"provider": "nobody"}, "option provider: input should be 'dealer', 'first-party' or 'two-party'"),
        ("masked", {"range_bits": 30}, "4 digits of 8 bits do not cover"),
        ("crypten", {"wire": "pigeon"}, "option wire: input should be 'gloo' or 'channel'"),
        ("crypten-cached", {"rendezvous": "a:1"}, "crypten-cached has no option 'rendezvous'"),
        ("float32", {"wire": "gloo"}, "float32 has no option 'wire', nor any other"),
    ],
)
def test_an_option_that_a_protocol_has_not_is_refused(
    tmp_path: Path, protocol: str, options: dict[str, Any], said: str
) -> None:
    assert said in refusal(tmp_path, protocols=[{"name": protocol, "options": options}])


def test_a_link_that_carries_no_foreign_socket_is_refused_for_gloo_alone(tmp_path: Path) -> None:
    paced = [{"name": "slow", "rtt_ms": 5.0, "how": "paced"}]
    assert "crypten opens sockets of its own" in refusal(tmp_path, protocols=["crypten", "masked"], links=paced)
    fine = {"protocols": [{"name": "crypten", "options": {"wire": "channel"}}, "masked"], "links": paced}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"name": "t", "networks": ["digits-tiny"], **fine}))
    assert len(load_suite(tmp_path / "t.yaml").cases()) == 2


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_declaration_names_what_there_is(name: str) -> None:
    spec = spec_of(name)
    assert issubclass(protocol_class(name), Protocol)
    assert protocol_class(name).name == name
    assert callable(cost_function(name))
    for where in spec.preload:
        load(where) if ":" in where else __import__(where)
    assert set(spec.local) <= {field.name for field in dataclasses.fields(spec.options)}
    kinds = typing.get_type_hints(spec.options)
    chosen = {option: typing.get_args(kind) for option, kind in kinds.items() if typing.get_args(kind)}
    for option, choices in chosen.items():
        for choice in choices:
            arrangement = spec.arrangement({option: choice})
            assert arrangement.trust.line
            assert arrangement.dealer is None or callable(load(f"{arrangement.dealer}:serve"))


def test_who_takes_part_is_a_matter_of_the_provider() -> None:
    masked = spec_of("masked")
    assert masked.arrangement({}).roles == ("server", "client", "dealer")
    assert masked.arrangement({"provider": "first-party"}).roles == ("server", "client")
    assert [masked.arrangement({"provider": p}).trust.short for p in ("dealer", "first-party")] == [
        "dealer", "first party",
    ]  # fmt: skip


def test_protocols_stand_in_one_order_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(found(), "theirs", spec("theirs", place=65))
    columns = ["crypten", "unknown", "masked+a", "theirs", "crypten-cached", "plaintext", "masked"]
    assert sorted(columns, key=order) == [
        "plaintext", "masked", "unknown", "crypten-cached", "theirs", "crypten", "masked+a",
    ]  # fmt: skip
    assert [is_private(name) for name in ("plaintext", "plaintext+x")] == [False, False]
    assert [is_private(name) for name in ("masked", "unknown")] == [True, True]


def spec(name: str, **more: Any) -> ProtocolSpec:
    arrangement = Arrangement(trust=Trust("nobody", "both parties alone"))
    return ProtocolSpec(name=name, module="nowhere", arrange=lambda _: arrangement, **more)


def test_a_broken_declaration_is_an_error_of_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(found(), "gone", "no.such.module:SPEC")
    monkeypatch.setitem(found(), "other", "pibench.mpc.masked.spec:SPEC")
    with pytest.raises(UsageError, match="'gone' cannot be loaded: ModuleNotFoundError"):
        spec_of("gone")
    with pytest.raises(UsageError, match="declares no protocol 'other'"):
        spec_of("other")
    assert spec_of("masked").name == "masked"
    assert order("masked") < order("unknown")


@pytest.mark.parametrize(
    ("devices", "each"), [("cpu", ["cpu", "cpu", "cpu"]), ("cuda:0,cuda:1", ["cuda:0", "cuda:1", "cuda:0"])]
)
def test_a_device_each(devices: str, each: list[str]) -> None:
    assert [device_of(devices, role) for role in ("server", "client", "dealer")] == each


PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "their-protocol"
version = "1.0"
[project.entry-points."pibench.protocols"]
echo = "their_protocol.spec:SPEC"
broken = "their_protocol.nothing:SPEC"
[tool.hatch.build.targets.wheel]
packages = ["their_protocol"]
"""
SPEC_OF_THEIRS = """
from dataclasses import dataclass
from pibench.mpc.spec import Arrangement, ProtocolSpec, Trust

@dataclass(frozen=True)
class Options:
    times: int = 1

SPEC = ProtocolSpec(
    name="echo", module="their_protocol.protocol", options=Options, cost="their_protocol.protocol:cost", place=5,
    arrange=lambda options: Arrangement(trust=Trust("their own", f"asks {options.times} times")),
)
"""
THEIRS = """
import torch
from pibench.lowering.reference import evaluate
from pibench.mpc.protocol import Cost, Protocol

class Echo(Protocol):
    name = "echo"

    def setup(self, weights):
        self.weights, self.times = weights, self.party.options.get("times", 1)

    def offline(self, inferences):
        pass

    def online(self, images):
        program, peer, batch = self.program, self.party.peer, self.party.batch
        logits = torch.empty(batch, *program.output.shape)
        with self.party.meter.op("other", "", "echo"):
            for _ in range(self.times):
                if self.party.is_server:
                    received = torch.empty(batch, *program.input_shape)
                    peer.recv_into(received.numpy())
                    peer.send(evaluate(program, self.weights, received).numpy())
                else:
                    peer.send(images.contiguous().numpy())
                    peer.recv_into(logits.numpy())
        return None if self.party.is_server else logits

def cost(program, op, batch, options):
    times = options.get("times", 1)
    asked = Cost(rounds=times, client_bytes=4 * times * batch * torch.Size(op.shape).numel())
    told = Cost(rounds=times, server_bytes=4 * times * batch * torch.Size(op.shape).numel())
    return asked if op is program.ops[0] else told if op is program.output else Cost()

PROTOCOL = Echo
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which somebody else's package was installed by pip."""
    source, target = tmp_path_factory.mktemp("theirs"), tmp_path_factory.mktemp("site")
    package = source / "their_protocol"
    package.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT)
    for name, text in (("__init__", ""), ("spec", SPEC_OF_THEIRS), ("protocol", THEIRS)):
        (package / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=100)
    return target


def pibench(folder: Path, installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed), *(entry for entry in sys.path if entry)])
    command = [sys.executable, "-m", "pibench", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


def test_a_package_of_somebody_elses_brings_a_protocol(tmp_path: Path, installed: Path) -> None:
    suite: dict[str, Any] = {
        "name": "theirs", "networks": ["digits-tiny"], "sessions": 1, "inferences": 2, "accuracy_images": 0,
        "protocols": ["plaintext", {"name": "echo", "options": {"times": 3}}],
    }  # fmt: skip
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(suite))
    done = pibench(tmp_path, installed, "run", "theirs.yaml", "--record", "r.json")
    assert done.returncode == 0, done.stderr + done.stdout
    case = next(c for c in json.loads((tmp_path / "r.json").read_text())["cases"] if c["protocol"] == "echo")
    assert case["trust"] == {"short": "their own", "line": "asks 3 times"}
    assert case["status"] == "done"
    counted = case["sessions"][0]["inferences"][-1]["client"]
    assert (counted["rounds"], counted["sent_bytes"]) == (6, case["declared"]["client_bytes"]) == (6, 3 * 64 * 4)
    columns = next(line for line in done.stdout.splitlines() if line.startswith("network  ")).split()
    assert columns.index("plaintext") < columns.index("echo"), done.stdout
    assert "all shown  their own" in done.stdout


def test_a_suite_is_refused_by_what_their_package_declares(tmp_path: Path, installed: Path) -> None:
    for protocols, said in (
        ([{"name": "echo", "options": {"times": "3"}}], "option times: input should be a valid integer"),
        (["ecko"], "no protocol is named 'ecko'; did you mean 'echo'?"),
        (["broken"], "the protocol 'broken' cannot be loaded: ModuleNotFoundError"),
    ):
        suite = {"name": "s", "networks": ["digits-tiny"], "protocols": protocols}
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite))
        done = pibench(tmp_path, installed, "validate", "s.yaml")
        assert (done.returncode, said in done.stderr) == (4, True), done.stderr
