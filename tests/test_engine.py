"""A party may be another program: it gets a job, reports events, and nothing of this interpreter is assumed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pibench.errors import PartyError, UsageError
from pibench.lowering.program import Flatten, Input, Linear, Program
from pibench.lowering.reference import evaluate
from pibench.mpc.protocol import protocol_class
from pibench.mpc.spec import Arrangement, Engine, ProtocolSpec, Trust, found
from pibench.session.events import read_event
from pibench.session.session import SessionPlan, run_session

SCRIPT = Path(__file__).parent / "party_in_another_program.py"
ALONE = (sys.executable, "-I", "-S", str(SCRIPT))  # an interpreter that finds no package, and reads no variable


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def register(*command: str, **environment: str) -> None:
        arrangement = Arrangement(trust=Trust("all shown", "nothing is secret"))
        made = ProtocolSpec(
            name="engine", engine=Engine(command=command, environment=environment), arrange=lambda _: arrangement
        )
        monkeypatch.setitem(found(), "engine", made)

    return register


def plan(folder: Path) -> tuple[SessionPlan, torch.Tensor]:
    program = Program((
        Input(name="input", inputs=(), shape=(1, 8, 8)),
        Flatten(name="flat", inputs=("input",), shape=(64,)),
        Linear(name="fc", inputs=("flat",), shape=(10,), weight="fw", bias="fb"),
    ))  # fmt: skip
    weights = {"fw": torch.randn(10, 64), "fb": torch.randn(10)}
    images = torch.rand(4, 1, 8, 8)
    save_file(weights, folder / "w.safetensors")
    save_file({"images": images}, folder / "i.safetensors")
    made = SessionPlan(
        protocol="engine", program=program.to_json(), masks=None, weights=str(folder / "w.safetensors"),
        images=str(folder / "i.safetensors"), warmups=1, inferences=3, deadline_s=60.0,
    )  # fmt: skip
    return made, evaluate(program, weights, images)


def test_a_script_outside_of_the_package_is_a_party(tmp_path: Path, engine: Callable[..., None]) -> None:
    engine(*ALONE)
    session_plan, reference = plan(tmp_path)
    result = run_session(session_plan)
    torch.testing.assert_close(torch.tensor(result.logits).flatten(0, 1), reference, atol=1e-4, rtol=1e-4)
    assert [tally["sent_bytes"] for tally in result.online["client"]] == [256] * 4
    assert result.devices == {"server": "cpu", "client": "cpu"}
    with pytest.raises(UsageError, match="runs in a program of its own"):
        protocol_class("engine")


def test_its_environment_is_its_own(
    tmp_path: Path, engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # of the interpreter that runs pibench, and no other
    report = f"import os; open({str(tmp_path / 'seen')!r}, 'a').write(repr(dict(os.environ)) + chr(10))"
    engine(sys.executable, "-c", f"{report}\nexec(open({str(SCRIPT)!r}).read())", THEIRS="yes")
    run_session(plan(tmp_path)[0])
    seen = [eval(line) for line in (tmp_path / "seen").read_text().splitlines()]  # what repr wrote
    assert len(seen) == 2
    for variables in seen:
        assert (variables["THEIRS"], variables["OMP_NUM_THREADS"]) == ("yes", "1")
        assert not [name for name in variables if name.startswith("PYTHON")]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("/no/such/program",), "/no/such/program cannot be started: No such file"),
        ((sys.executable, "-c", "print('out of luck'); raise SystemExit(5)"), "ended with status 5"),
        (
            (sys.executable, "-c", "import os, json; os.write(json.loads(input())['result_fd'], b'hello\\n')"),
            "reported a line that is not JSON: b'hello'",
        ),
    ],
)
def test_a_program_that_is_no_party_is_named(
    tmp_path: Path, engine: Callable[..., None], command: tuple[str, ...], said: str
) -> None:
    engine(*command)
    with pytest.raises(PartyError) as caught:
        run_session(plan(tmp_path)[0])
    assert said in str(caught.value)


def test_a_party_on_another_device_than_the_case_says_is_no_session(
    tmp_path: Path, engine: Callable[..., None]
) -> None:
    text = SCRIPT.read_text().replace('device="cpu"', 'device="cpu" if serves else "cuda:0"')
    (tmp_path / "liar.py").write_text(text)
    engine(sys.executable, str(tmp_path / "liar.py"))
    with pytest.raises(PartyError, match="the client's tensors were on cuda:0, and the case says cpu"):
        run_session(plan(tmp_path)[0])


TALLY: dict[str, Any] = {"time_s": 1.0, "wait_s": 0.0, "sent_bytes": 8, "received_bytes": 8, "rounds": 1, "parts": []}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ([], "should be a valid dictionary"),
        ({"event": "greeting"}, "does not match any of the expected tags"),
        ({"event": "listening", "address": ["h", 0]}, "greater than 0"),
        ({"event": "listening", "address": ["h", "7"]}, "valid integer"),
        ({"event": "setup", "tally": {**TALLY, "time_s": -1.0}}, "greater than or equal to 0"),
        ({"event": "setup", "tally": {**TALLY, "time_s": float("nan")}}, "finite number"),
        ({"event": "inference", "index": 0, "tally": {**TALLY, "rounds": True}}, "valid integer"),
        ({"event": "inference", "index": 0, "tally": TALLY, "logits": [["1"]]}, "valid number"),
        ({"event": "done", "peak_rss_bytes": 1, "file": "/etc/passwd"}, "not permitted"),
        ({"event": "error", "kind": "x" * 500, "what": "w"}, "at most 400 characters"),
        ({"event": "wire", "interface": {"received_bytes": "9"}}, "valid integer"),
    ],
)
def test_an_event_is_held_to_what_it_may_be(event: Any, said: str) -> None:
    with pytest.raises(PartyError, match="the server reported what is no event") as caught:
        read_event(json.dumps(event).encode(), "server")
    assert said in str(caught.value)


def test_logits_may_be_anything_but_finite_and_then_the_case_is_invalid() -> None:
    event = {"event": "inference", "index": 0, "tally": TALLY, "logits": [[float("nan"), float("inf")]]}
    assert read_event(json.dumps(event).encode(), "client")["logits"][0][1] == float("inf")
