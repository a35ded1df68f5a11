"""Pacing without privileges: a relay process between the parties' sockets that serialises and delays what it carries.

Run as `python -m pibench.links.relay '{...}'`: it listens on loopback, and carries every connection on to the server's
port. All connections share one line a direction, as they would share a cable. Chunks are stamped on arrival and handed
on when they are due; an end of file takes its turn in the queue. A full queue stops reading, so that the sender feels
back-pressure as from a full socket buffer. Loss is not emulated here: a stream socket hides it.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pibench.links import netns
from pibench.links.controlpipe import ControlPipe, be_punctual, say
from pibench.links.emulation import DelayLine

CHUNK_BYTES = 1 << 16
READS = 16  # chunks read before due ones are written
ROLES = ("server", "client")  # each has a port of the relay's that leads to it
QUEUE_BYTES = 1 << 24


@dataclass
class Half:
    """One direction of one connection: what was read from `source` goes to `target`."""

    source: socket.socket
    target: socket.socket
    line: DelayLine[tuple[Half, bytes]]
    pending: bytearray = field(default_factory=bytearray)  # due, but the target's buffer is full
    ended: bool = False  # the source has closed its side
    closing: bool = False  # that end is due
    done: bool = False  # and was handed on

    @property
    def hungry(self) -> bool:
        """Whether there is more to read, and room for it."""
        return not (self.ended or self.line.full or len(self.pending) > QUEUE_BYTES)

    def read(self) -> None:
        """Queue what has arrived."""
        for _ in range(READS):
            if not self.hungry:
                return
            try:
                data = self.source.recv(CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self.line.push(time.monotonic(), (self, data), len(data))
            self.ended = not data

    def write(self) -> None:
        """Hand on what is due."""
        try:
            while self.pending:
                del self.pending[: self.target.send(self.pending)]
        except BlockingIOError:
            return
        except OSError:
            self.pending.clear()
            self.closing = True
        if self.closing and not self.done:
            self.done = True
            with suppress(OSError):
                self.target.shutdown(socket.SHUT_WR)


class Relay:
    """What connects to the port of a role is carried on to the address that the harness named for it."""

    def __init__(self, delay_s: float, mbit_s: float | None) -> None:
        self._listeners = {role: socket.create_server(("127.0.0.1", 0)) for role in ROLES}
        self._targets: dict[str, tuple[str, int]] = {}
        rate = mbit_s * 125_000 if mbit_s else None
        self.lines: list[DelayLine[tuple[Half, bytes]]] = [
            DelayLine(delay_s=delay_s, bytes_per_s=rate, limit_bytes=QUEUE_BYTES) for _ in ROLES
        ]  # lines[0] leads to the server
        self._halves: list[Half] = []
        for listener in self._listeners.values():
            listener.setblocking(False)

    @property
    def ports(self) -> dict[str, int]:
        """Where to dial for each role."""
        return {role: listener.getsockname()[1] for role, listener in self._listeners.items()}

    def run(self, control: ControlPipe) -> None:
        """Carry until `control` ends."""
        while True:
            readable = self._wait(control)
            if control in readable and not self._obey(control):
                return
            for role, listener in self._listeners.items():
                if listener in readable:
                    self._accept(role, listener)
            for half in self._halves:
                if half.source in readable:
                    half.read()
            self._deliver()
            self._reap()

    def _wait(self, control: ControlPipe) -> set[Any]:
        """Sleep until something can be read, written or delivered."""
        now = time.monotonic()
        wait_s = min(line.wait_s(now) for line in self.lines)
        with selectors.SelectSelector() as selector:  # its timeout is not cut to whole milliseconds
            sources: list[Any] = [control, *self._listeners.values()]
            for source in sources:
                selector.register(source, selectors.EVENT_READ)
            for sock, events in self._interest().items():
                selector.register(sock, events)
            return {key.fileobj for key, _ in selector.select(wait_s)}

    def _interest(self) -> dict[socket.socket, int]:
        events: dict[socket.socket, int] = {}
        for half in self._halves:
            if half.hungry:
                events[half.source] = events.get(half.source, 0) | selectors.EVENT_READ
            if half.pending:
                events[half.target] = events.get(half.target, 0) | selectors.EVENT_WRITE
        return events

    def _accept(self, role: str, listener: socket.socket) -> None:
        with suppress(OSError):
            near, _ = listener.accept()
            try:
                far = socket.create_connection(self._targets[role], timeout=5.0)
            except (OSError, KeyError):
                near.close()  # what a client of a server that is not there sees
                return
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
            there = self.lines[ROLES.index(role)]
            back = self.lines[1 - ROLES.index(role)]
            self._halves += [Half(near, far, there), Half(far, near, back)]

    def _deliver(self) -> None:
        for line in self.lines:
            while (item := line.pop(time.monotonic())) is not None:
                half, data = item
                half.pending += data
                half.closing = half.closing or not data
                half.write()
        for half in self._halves:
            if half.pending:
                half.write()

    def _reap(self) -> None:
        for near, far in list(zip(self._halves[::2], self._halves[1::2], strict=True)):
            if near.done and far.done:
                near.source.close()
                far.source.close()
                self._halves.remove(near)
                self._halves.remove(far)

    def _obey(self, control: ControlPipe) -> bool:
        told = control.lines()
        for order in told or ():
            if "target" in order:
                self._targets[order["role"]] = (order["target"][0], int(order["target"][1]))
            for line in self.lines:
                line.delay_s = float(order.get("delay_s", line.delay_s))
        return told is not None


def main(argv: list[str]) -> int:
    """Listen, say where, relay until told to stop."""
    netns.die_with_parent(signal.SIGKILL)
    link = json.loads(argv[1])
    relay = Relay((link.get("rtt_ms") or 0.0) / 2e3, link.get("mbit_s"))
    be_punctual()
    say(ports=relay.ports)
    relay.run(ControlPipe(sys.stdin.fileno()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
