"""The processes of a session, seen from the harness: started, listened to, and ended whatever happens.

Each has three pipes: control (its standard input, held open: its end is the end of the process), results (JSON lines)
and output (what it prints, of which the last lines are kept for the message of a failure).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pibench.errors import PartyError
from pibench.links.callers import printable
from pibench.mpc.spec import Engine
from pibench.session.events import MAX_LINE_BYTES, Event, read_event
from pibench.session.job import Job
from pibench.session.launch import Process, environment, environment_of, spawn, spawn_program

LAST_LINES = 4
KEPT_OUTPUT_BYTES = 16_384
READ_BYTES = 1 << 20
END_GRACE_S = 2.0

Launch = Callable[[int, Sequence[str], Mapping[str, str]], Process]  # results pipe, prefix, environment


@dataclass
class Child:
    """One process: what it said and how it ended."""

    job: Job
    process: Process
    results_fd: int
    partial: bytearray = field(default_factory=bytearray)
    output: deque[bytes] = field(default_factory=lambda: deque(maxlen=64))
    phase: str = "starting"
    error: Event | None = None
    done: Event | None = None
    ended: bool = False  # its results pipe is at its end

    @property
    def role(self) -> str:
        """server, client or dealer."""
        return self.job.role

    def tell(self, message: object) -> None:
        """Send one line over the control pipe; a process that is gone is noticed elsewhere."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            pass

    def last_lines(self) -> list[str]:
        """Return the last lines that it printed."""
        text = b"".join(self.output)[-KEPT_OUTPUT_BYTES:].decode("utf-8", "replace")
        return [printable(line) for line in text.splitlines() if line.strip()][-LAST_LINES:]

    @property
    def killed(self) -> bool:
        """Whether it died of SIGKILL, the kernel's where memory runs out (this program's own comes only at the end)."""
        return self.process.poll() == -signal.SIGKILL

    def reason(self) -> str:
        """Say in one sentence how it is or ended."""
        if self.error is not None:
            where = f"{self.error['where']}: " if self.error.get("where") else ""
            return f"{where}{self.error['what']} (in {self.phase})"
        if self.done is not None:
            return "finished"
        status = self.process.poll()
        if status is None:
            return f"still in {self.phase}"
        if status < 0:
            memory = " (the kernel kills so where memory runs out)" if -status == signal.SIGKILL else ""
            return f"killed by {signal.Signals(-status).name} in {self.phase}{memory}"
        return f"ended with status {status} in {self.phase}"


class Children:
    """The processes of one session; a context manager that leaves none behind."""

    def __init__(self, launch: Launch = spawn) -> None:
        self.all: list[Child] = []
        self._launch = launch
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(
        self, job: Job, prefix: Sequence[str] = (), variables: Mapping[str, str] | None = None,
        engine: Engine | None = None,
    ) -> Child:  # fmt: skip
        """Start one process (through `prefix`, such as a command that enters a namespace) and give it its job.

        It is a party of this package unless an `engine` says which program else.
        """
        read_fd, write_fd = os.pipe()
        job = dataclasses.replace(job, result_fd=write_fd, parent_pid=0 if prefix else os.getpid())
        try:
            if engine is None:
                process = self._launch(write_fd, prefix, environment(job.threads, variables or {}))
            else:
                apart = environment_of(engine, job.threads, variables or {})
                process = spawn_program([*prefix, *engine.command], write_fd, apart)
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        child = Child(job, process, read_fd)
        self.all.append(child)
        assert process.stdout is not None
        for fd in (read_fd, process.stdout.fileno()):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ, child)
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it died at once: its results pipe ends, which is where deaths are noticed
            process.stdin.write(job.to_json().encode() + b"\n")
            process.stdin.flush()
        return child

    def events(self, timeout_s: float) -> list[tuple[Child, Event]]:
        """Wait for something to happen; return what the processes reported."""
        found: list[tuple[Child, Event]] = []
        for key, _ in self._selector.select(timeout_s):
            child: Child = key.data
            data = _read(key.fd)
            if data is None:
                continue
            if not data:
                self._selector.unregister(key.fd)
                child.ended |= key.fd == child.results_fd
            elif key.fd == child.results_fd:
                found += [(child, event) for event in _lines(child, data)]
            else:
                child.output.append(data[-KEPT_OUTPUT_BYTES:])
        return found

    def end(self) -> None:
        """End every process and wait for it: asked first where there is time, then killed."""
        for child in self.all:
            _signal(child, signal.SIGKILL if child.done is None else signal.SIGTERM)
        for child in self.all:
            try:
                child.process.wait(END_GRACE_S)
            except subprocess.TimeoutExpired:
                _signal(child, signal.SIGKILL)
                child.process.wait()
        for child in self.all:
            _close(child)
        self.all.clear()
        self._selector.close()

    def settle(self, grace_s: float) -> None:
        """Give the others a moment to say how a failure looked to them."""
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and not all(child.ended for child in self.all):
            for child, event in self.events(0.1):
                note(child, event)
        for child in self.all:
            if child.ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(0.5)
        self.events(0.0)


def note(child: Child, event: Event) -> None:
    """Keep what an event says about the process itself."""
    match event["event"]:
        case "phase":
            index = f" {event['index']}" if "index" in event else ""
            child.phase = f"{event['phase']}{index}"
        case "error":
            child.error = event
        case "done":
            child.done = event


def _lines(child: Child, data: bytes) -> list[Event]:
    child.partial += data
    *whole, rest = bytes(child.partial).split(b"\n")
    child.partial = bytearray(rest)
    if len(rest) > MAX_LINE_BYTES:
        raise PartyError(f"the {child.role} reports a line of more than {MAX_LINE_BYTES >> 20} MiB")
    return [read_event(line, child.role) for line in whole if line.strip()]


def _read(fd: int) -> bytes | None:
    """Return what is there: nothing at the end of the pipe, None after a spurious wake-up."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return None


def _signal(child: Child, number: int) -> None:
    """Signal the process and whatever it started (it leads a group of its own)."""
    if child.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, number)


def _close(child: Child) -> None:
    os.close(child.results_fd)
    for stream in (child.process.stdin, child.process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
