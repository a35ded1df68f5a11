"""Run one function as two real processes, with a connected socket between them; for what has process-global state.

`run_two("test_protocol_crypten:party", payload)` imports the function in two fresh processes and calls it with a
`Side`; what the two calls return comes back as a pair. A process that fails, or is late, fails the test with its
last lines, and none is left behind.
"""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent


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


def run_two(function: str, payload: Any = None, timeout_s: float = 90.0) -> tuple[Any, Any]:
    """Call `module:function` in two processes; returns what rank 0 and rank 1 returned."""
    left, right = socket.socketpair()
    rendezvous = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        children = [
            _start(function, rank, sock, rendezvous, payload, Path(folder)) for rank, sock in enumerate((left, right))
        ]
        left.close()
        right.close()
        try:
            codes = [child.wait(timeout_s) for child in children]
        except subprocess.TimeoutExpired:
            codes = [-1, -1]
        finally:
            for child in children:
                child.kill()
                child.wait()
        if any(codes):
            lines = [(Path(folder) / f"{rank}.log").read_text()[-3000:] for rank in (0, 1)]
            raise AssertionError(
                f"the two processes ended with {codes}\n--- rank 0\n{lines[0]}\n--- rank 1\n{lines[1]}"
            )
        first, second = (pickle.loads((Path(folder) / f"{rank}.result").read_bytes()) for rank in (0, 1))
    return first, second


def _start(
    function: str, rank: int, sock: socket.socket, rendezvous: str, payload: Any, folder: Path
) -> subprocess.Popen[bytes]:
    job = folder / f"{rank}.job"
    job.write_bytes(pickle.dumps((function, rank, sock.fileno(), rendezvous, payload)))
    with (folder / f"{rank}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, __file__, str(job)],
            pass_fds=[sock.fileno()],
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # two processes share the machine
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _child(job: Path) -> None:
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    function, rank, fd, rendezvous, payload = pickle.loads(job.read_bytes())
    module, name = function.split(":")
    side = Side(rank, socket.socket(fileno=fd), rendezvous, payload)
    result = getattr(importlib.import_module(module), name)(side)
    job.with_suffix(".result").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    _child(Path(sys.argv[1]))
