"""How a party's process comes to be: started from nothing, or forked from a nursery that has imported torch already."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Protocol

from pibench import processes
from pibench.errors import PartyError
from pibench.mpc.spec import Engine

NURSERY_START_S = 300.0  # importing torch on a machine that is busy with other things
STATUS_UNKNOWN = -9  # of a party whose nursery was killed: it went with it


class Process(Protocol):
    """What the harness needs of a process; `subprocess.Popen` has it."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; subprocess.TimeoutExpired when it takes longer."""


def environment(threads: int, more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a party: threads fixed, output unbuffered, our modules found (processes.py)."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**processes.variables(), **dict.fromkeys(names, str(threads)), "PYTHONUNBUFFERED": "1", **more}


def environment_of(engine: Engine, threads: int, more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a party that is a program of its own: nothing that configures this Python."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**ours, **dict.fromkeys(names, str(threads)), **engine.environment, **more}


def spawn(result_fd: int, prefix: Sequence[str], variables: Mapping[str, str]) -> Process:
    """Start a party from nothing; it inherits `result_fd` under its number."""
    return spawn_program([*prefix, *processes.command("pibench.session.party")], result_fd, variables)


def spawn_program(command: Sequence[str], result_fd: int, variables: Mapping[str, str]) -> Process:
    """Start a program as a party; PartyError where there is no such program."""
    try:
        return _started(command, result_fd, variables)
    except OSError as error:
        raise PartyError(f"{command[0]} cannot be started: {error.strerror}", remedy="is it installed here?") from error


def _started(command: Sequence[str], result_fd: int, variables: Mapping[str, str]) -> Process:
    return subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(result_fd,),
        env=dict(variables), start_new_session=True,
    )  # fmt: skip


class Forked:
    """A party forked from a nursery: what a Popen would be, told by the nursery's messages."""

    def __init__(self, nursery: Nursery, pid: int, control: int, output: int) -> None:
        self.pid, self.returncode = pid, None
        self._nursery = nursery
        self.stdin: IO[bytes] | None = os.fdopen(control, "wb")
        self.stdout: IO[bytes] | None = os.fdopen(output, "rb", buffering=0)

    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        if self.returncode is None:
            self._nursery.listen(0.0)
            self.returncode = self._nursery.status(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end."""
        deadline = time.monotonic() + (timeout if timeout is not None else 1e9)
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("party", timeout or 0.0)
            self._nursery.listen(min(0.2, max(0.0, deadline - time.monotonic())))
        return status


class Nursery:
    """One process to fork parties from, for one place and number of threads."""

    def __init__(self, modules: Sequence[str], prefix: Sequence[str], variables: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        self._partial = b""
        self._messages: list[dict[str, Any]] = []
        self._ended: dict[int, int] = {}
        self.alive = True
        with theirs:
            self._process = subprocess.Popen(
                [*prefix, *processes.command("pibench.session.nursery", str(theirs.fileno()), *modules)],
                stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), env=dict(variables), start_new_session=True,
            )  # fmt: skip
        try:
            self._expect("ready", NURSERY_START_S)
        except BaseException:
            self.close()
            raise

    def fork(self, result_fd: int) -> Forked:
        """Fork one party that reports to `result_fd`."""
        control, ours = os.pipe()
        output, theirs = os.pipe()
        try:
            pid = self._forked(control, theirs, result_fd)
        except PartyError:
            self.alive = False
            os.close(ours)
            os.close(output)
            raise
        finally:
            os.close(control)
            os.close(theirs)
        return Forked(self, pid, ours, output)

    def _forked(self, control: int, output: int, result: int) -> int:
        try:
            socket.send_fds(self._socket, [b"fork"], [control, output, result])
        except OSError as error:
            raise PartyError(f"the process that parties are forked from is gone: {error.strerror}") from error
        return int(self._expect("pid", 10.0))

    def status(self, pid: int) -> int | None:
        """Return the exit status of a party that has ended."""
        return self._ended.get(pid, None if self.alive else STATUS_UNKNOWN)

    def listen(self, timeout_s: float) -> None:
        """Take in what the nursery says."""
        if not self.alive:
            return
        self._socket.settimeout(max(timeout_s, 1e-6))
        try:
            data = self._socket.recv(1 << 16)
        except (TimeoutError, BlockingIOError):
            return
        except OSError:
            data = b""
        if not data:
            self.alive = False
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "ended" in message:
                self._ended[message["ended"]] = message["status"]
            else:
                self._messages.append(message)

    def close(self) -> None:
        """End the nursery, and whatever was forked from it."""
        self._socket.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _expect(self, key: str, within_s: float) -> Any:
        deadline = time.monotonic() + within_s
        while self.alive and time.monotonic() < deadline:
            for message in self._messages:
                if key in message:
                    self._messages.remove(message)
                    return message[key]
            self.listen(0.5)
        raise PartyError("the process that parties are forked from did not answer", remedy="see its lines above")


class Nurseries:
    """The nurseries of a run, made on first use; a context manager that leaves none behind."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = tuple(modules)
        self._found: dict[tuple[object, ...], Nursery] = {}

    def __enter__(self) -> Nurseries:
        return self

    def __exit__(self, *_: object) -> None:
        for nursery in self._found.values():
            with contextlib.suppress(OSError):
                nursery.close()
        self._found.clear()

    def start(self, result_fd: int, prefix: Sequence[str], variables: Mapping[str, str]) -> Process:
        """Start a party where `prefix` puts it."""
        key = (*prefix, *sorted(variables.items()))
        nursery = self._found.get(key)
        if nursery is None or not nursery.alive:
            nursery = self._found[key] = Nursery(self._modules, prefix, variables)
        return nursery.fork(result_fd)
