"""Two real processes: what they report adds up, and nothing is left behind whatever happens to them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pibench.errors import PartyError
from pibench.lowering.program import Conv, Flatten, Input, Linear, Program, Relu
from pibench.lowering.reference import evaluate
from pibench.mpc.spec import found
from pibench.session.launch import Nurseries
from pibench.session.session import SessionPlan, SessionResult, free_port
from pibench.session.session import run_session as run_session_with

pytestmark = pytest.mark.timeout(180)  # seconds on a calm machine, far more on a busy one

Run = Callable[[SessionPlan], SessionResult]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(found(), "fake", "fake_protocol:SPEC")


@pytest.fixture(scope="module")
def nurseries() -> Iterator[Nurseries]:
    """Parties forked from a process that has imported torch: sessions of a fraction of a second."""
    with Nurseries(["fake_protocol"]) as found:
        yield found


@pytest.fixture
def run_session(nurseries: Nurseries) -> Run:
    return lambda session_plan: run_session_with(session_plan, launch=nurseries.start)


def small_program() -> tuple[Program, dict[str, torch.Tensor]]:
    ops = (
        Input(name="input", inputs=(), shape=(1, 8, 8)),
        Conv(
            name="conv",
            inputs=("input",),
            shape=(2, 8, 8),
            weight="w",
            bias=None,
            kernel=(3, 3),
            padding=(1, 1),
            stage="stem",
        ),
        Relu(name="relu", inputs=("conv",), shape=(2, 8, 8), stage="S1"),
        Flatten(name="flat", inputs=("relu",), shape=(128,)),
        Linear(name="fc", inputs=("flat",), shape=(10,), weight="fw", bias="fb", stage="head"),
    )
    torch.manual_seed(0)
    weights = {"w": torch.randn(2, 1, 3, 3), "fw": torch.randn(10, 128) / 10, "fb": torch.randn(10)}
    return Program(ops), weights


def plan(folder: Path, inferences: int = 2, **changes: Any) -> tuple[SessionPlan, torch.Tensor]:
    program, weights = small_program()
    batch = changes.get("batch", 1)
    images = torch.rand((1 + inferences) * batch, 1, 8, 8)
    save_file(weights, folder / "weights.safetensors")
    save_file({"images": images}, folder / "images.safetensors")
    settings: dict[str, Any] = {
        "protocol": "fake", "program": program.to_json(), "masks": None, "inferences": inferences,
        "weights": str(folder / "weights.safetensors"), "images": str(folder / "images.safetensors"),
        "timeout_s": 20.0, "deadline_s": 40.0,
    }  # fmt: skip
    return SessionPlan(**{**settings, **changes}), evaluate(program, weights, images)


def gone(pid: int) -> bool:
    """Whether no process of that id runs (a zombie of somebody else's counts as gone)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"


def wait_gone(pids: list[int], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if all(gone(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_reports_of_both_parties_add_up_and_logits_are_the_networks(
    tmp_path: Path, pids: list[int], run_session: Run
) -> None:
    session_plan, reference = plan(tmp_path, inferences=3, batch=2, offline_chunk=3)
    result = run_session(session_plan)
    assert torch.allclose(torch.tensor(result.logits).flatten(0, 1), reference, atol=1e-5)
    assert [len(result.online[role]) for role in ("server", "client")] == [4, 4]
    assert sum(tally["sent_bytes"] for tally in result.offline["client"]) == 8 * 4
    for role in ("server", "client"):
        for tally in [result.setup[role], *result.offline[role], *result.online[role]]:
            for name in ("time_s", "wait_s", "sent_bytes", "received_bytes", "rounds"):
                assert sum(part[name] for part in tally["parts"]) == pytest.approx(tally[name])
        assert result.peak_rss_bytes[role] > 50 << 20
    first = result.online["client"][0]
    assert (first["sent_bytes"], first["received_bytes"], first["rounds"]) == (2 * 64 * 4, 2 * 10 * 4, 2)
    assert result.online["server"][0]["sent_bytes"] == first["received_bytes"]
    assert wait_gone(pids)


@pytest.mark.parametrize(
    ("fault", "blamed", "said"),
    [
        ({"role": "server", "phase": "setup", "how": "raise"}, "server", "ValueError: planted (in setup)"),
        ({"role": "client", "phase": "online", "how": "kill"}, "client", "killed by SIGKILL in online 0"),
        ({"role": "server", "phase": "offline", "how": "exit"}, "server", "ended with status 7 in offline"),
    ],
)
def test_one_partys_end_ends_the_session_with_both_reasons(
    tmp_path: Path, pids: list[int], run_session: Run, fault: dict[str, str], blamed: str, said: str
) -> None:
    session_plan, _ = plan(tmp_path, options={"misbehave": fault})
    with pytest.raises(PartyError) as caught:
        run_session(session_plan)
    message = str(caught.value)
    assert caught.value.exit_status == 2
    assert message.startswith(f"{blamed}: {said}")
    last = "ValueError: planted" if fault["how"] == "raise" else f"{blamed} is about to {fault['how']}"
    assert f"{blamed} | {last}" in message
    other = "client" if blamed == "server" else "server"
    assert f"{other}: " in message
    assert wait_gone(pids)


def test_a_stalled_party_is_noticed_by_its_peer(tmp_path: Path, pids: list[int], run_session: Run) -> None:
    fault = {"role": "server", "phase": "online", "how": "stop"}
    session_plan, _ = plan(tmp_path, options={"misbehave": fault}, timeout_s=1.5)
    with pytest.raises(PartyError, match="client: the peer said nothing"):
        run_session(session_plan)
    assert wait_gone(pids)


def test_the_deadline_ends_a_session(tmp_path: Path, pids: list[int], run_session: Run) -> None:
    fault = {"role": "client", "phase": "online", "how": "hang"}
    session_plan, _ = plan(tmp_path, options={"misbehave": fault}, deadline_s=3.0)
    with pytest.raises(PartyError, match="not done after 3 s"):
        run_session(session_plan)
    assert wait_gone(pids)


def test_a_session_may_start_its_parties_from_nothing(tmp_path: Path, pids: list[int]) -> None:
    session_plan, reference = plan(tmp_path)
    result = run_session_with(session_plan)
    assert torch.allclose(torch.tensor(result.logits).flatten(0, 1), reference, atol=1e-5)
    assert wait_gone(pids)


@pytest.mark.parametrize("gone", [False, True], ids=["while it dies", "when it is gone"])
def test_a_killed_nursery_is_replaced(tmp_path: Path, pids: list[int], gone: bool) -> None:
    session_plan, _ = plan(tmp_path)
    with Nurseries(["fake_protocol"]) as own:
        run_session_with(session_plan, launch=own.start)
        (nursery,) = own._found.values()
        nursery._process.kill()
        if gone:  # then the system says so, and not the nursery's silence
            nursery._process.wait()
        with pytest.raises(PartyError):
            run_session_with(session_plan, launch=own.start)
        run_session_with(session_plan, launch=own.start)
        assert list(own._found.values()) != [nursery]
    assert wait_gone(pids)


def test_kills_at_random_moments_leave_nothing(tmp_path: Path, pids: list[int], run_session: Run) -> None:
    chance = random.Random(5)
    for victim in (0, 1, 0):
        pids.clear()
        session_plan, _ = plan(tmp_path, inferences=400, options={"delay_s": 0.02})
        moment = chance.uniform(0.0, 1.0)

        def strike(victim: int = victim, moment: float = moment) -> None:
            while len(pids) < 2:
                time.sleep(0.01)
            time.sleep(moment)
            os.kill(pids[victim], signal.SIGKILL)

        killer = threading.Thread(target=strike)
        killer.start()
        start = time.monotonic()
        with pytest.raises(PartyError, match=f"^{('server', 'client')[victim]}: killed by SIGKILL"):
            run_session(session_plan)
        killer.join()
        assert time.monotonic() - start < moment + 25  # a busy machine; the promise is 30 s
        assert wait_gone(pids)


HARNESS = """
import signal
import sys
from pathlib import Path
import test_session as t
from pibench.session import children
from pibench.mpc.spec import found
found()["fake"] = "fake_protocol:SPEC"
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
start = children.Children.start
def spy(self, *args):
    child = start(self, *args)
    print(child.process.pid, flush=True)
    return child
children.Children.start = spy
settings = {"inferences": 1000, "options": {"delay_s": 0.02}}
with t.Nurseries(["fake_protocol"] if sys.argv[2] == "forked" else []) as nurseries:
    launch = nurseries.start if sys.argv[2] == "forked" else children.spawn
    t.run_session_with(t.plan(Path(sys.argv[1]), **settings)[0], launch=launch)
"""


@pytest.mark.parametrize(
    ("how", "launch"), [(signal.SIGKILL, "forked"), (signal.SIGINT, "forked"), (signal.SIGKILL, "spawned")]
)
def test_the_parties_do_not_outlive_the_harness(tmp_path: Path, how: signal.Signals, launch: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, str(tmp_path), launch], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment, text=True,
    )  # fmt: skip
    assert harness.stdout is not None
    parties = [int(harness.stdout.readline()) for _ in range(2)]
    time.sleep(2.5)
    assert not any(gone(pid) for pid in parties)
    harness.send_signal(how)
    assert wait_gone(parties, 8.0)
    harness.wait(10)
    harness.stdout.close()


def test_a_free_port_can_be_bound() -> None:
    assert 18_000 <= free_port() < 32_000
