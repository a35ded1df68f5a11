"""Run one function as two real processes, with a connected socket between them; for what has process-global state.

`run_two("test_protocol_crypten:party", payload)` imports the function in a fresh process, forks that into two, and
calls it in each with a `Side`; what the two calls return comes back as a pair. A process that fails, or is late, fails
the test with its last lines, and none is left behind.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
GRACE_S = 10.0  # for a process whose peer has failed


@dataclass
class Side:
    """What one of the two processes is given."""

    rank: int
    sock: socket.socket  # to the other process
    rendezvous: str  # host:port that is free, for process groups
    payload: Any


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def run_two(
    function: str, payload: Any = None, timeout_s: float = 90.0, preload: tuple[str, ...] = ()
) -> tuple[Any, Any]:
    """Call `module:function` in two processes; returns what rank 0 and rank 1 returned.

    `preload` names modules that take long to import: they are imported once, before the fork.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job").write_bytes(pickle.dumps((function, f"127.0.0.1:{free_port()}", payload, preload)))
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, __file__, name],
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # two processes share the machine
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that all of it can be ended together
            )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            _end(child)
        if code:
            logs = [f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(folder.glob("*log"))]
            raise AssertionError("\n".join([f"the two processes ended with {code}", *logs]))
        first, second = (pickle.loads((folder / f"{rank}.result").read_bytes()) for rank in (0, 1))
    return first, second


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # all gone
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _parent(folder: Path) -> int:
    """Import everything, become two, and see both to their end."""
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    function, rendezvous, payload, preload = pickle.loads((folder / "job").read_bytes())
    module, name = function.split(":")
    call = getattr(importlib.import_module(module), name)
    for extra in preload:
        importlib.import_module(extra)
    socks = socket.socketpair()
    pids = []
    for rank in (0, 1):
        if (pid := os.fork()) == 0:
            socks[1 - rank].close()
            os._exit(_child(call, Side(rank, socks[rank], rendezvous, payload), folder))
        pids.append(pid)
    for sock in socks:
        sock.close()
    return _watch(pids)


def _child(call: Callable[[Side], Any], side: Side, folder: Path) -> int:
    log = os.open(folder / f"{side.rank}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        result = call(side)
        (folder / f"{side.rank}.result").write_bytes(pickle.dumps(result))
        return 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _watch(pids: list[int]) -> int:
    """Wait for both; one that outlives the other's failure is ended after a while."""
    codes: dict[int, int] = {}
    deadline = float("inf")
    while len(codes) < len(pids):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            codes[pid] = os.waitstatus_to_exitcode(status)
            deadline = time.monotonic() + GRACE_S if codes[pid] else deadline
        elif time.monotonic() > deadline:
            for left in set(pids) - set(codes):
                os.kill(left, signal.SIGKILL)
            deadline = float("inf")
        else:
            time.sleep(0.01)
    return max(abs(code) for code in codes.values())


if __name__ == "__main__":
    sys.exit(_parent(Path(sys.argv[1])))
