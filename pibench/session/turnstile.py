"""The turnstile: lets two live sessions serve one inference at a time, in pairs of random order.

What disturbs the machine for longer than one inference (another job, a warm processor, a neighbour's load) then falls
on both sides of a comparison alike. The parties' half is pibench.session.turn.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from pibench.session.turn import FINISHED, GO

ROLES = ("server", "client")
POLL_S = 0.2
MAX_GREETING_BYTES = 200


@dataclass
class _Side:
    """One side: the connections of its present session, and what each party waits for."""

    parties: dict[str, socket.socket] = field(default_factory=dict)
    asks: dict[str, bytes] = field(default_factory=dict)
    gone: bool = False  # its command has ended: nobody will come any more

    @property
    def arrived(self) -> bool:
        """Whether both parties wait."""
        return all(role in self.asks for role in ROLES)

    @property
    def finished(self) -> bool:
        """Whether both parties have nothing left to serve."""
        return self.arrived and all(ask == FINISHED for ask in self.asks.values())


class Turnstile:
    """Serves parties of two sides from a thread of its own; a context manager that leaves nothing behind."""

    def __init__(self, sides: tuple[str, str] = ("base", "head"), seed: int = 0) -> None:
        self._sides = {name: _Side() for name in sides}
        self._chance = random.Random(seed)
        self._owed: list[str] = []  # who comes next in the pair that has begun
        self._running: str | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="pibench-turn-")
        self.address = str(Path(self._folder.name) / "socket")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.address)
        self._listener.listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.log: list[str] = []  # sides in the order in which they were let through

    def __enter__(self) -> Turnstile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()
        for side in self._sides.values():
            for connection in side.parties.values():
                connection.close()
        self._selector.close()
        self._folder.cleanup()

    def gone(self, name: str) -> None:
        """Hear that a side's command has ended, so that the other waits for it no longer."""
        with self._lock:
            self._sides[name].gone = True

    def _serve(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(POLL_S):
                if key.fileobj is self._listener:
                    self._greet(self._listener.accept()[0])
                else:
                    self._hear(key.data, key.fd)
            with self._lock:
                self._admit()

    def _greet(self, connection: socket.socket) -> None:
        connection.settimeout(5.0)
        try:
            name, _, role = _line(connection).partition(" ")
        except OSError:
            name = role = ""
        if name not in self._sides or role not in ROLES:
            connection.close()
            return
        self._drop(name, role)  # a session that died left its place
        self._sides[name].parties[role] = connection
        self._selector.register(connection, selectors.EVENT_READ, (name, role))

    def _hear(self, who: tuple[str, str], fd: int) -> None:
        name, role = who
        side = self._sides[name]
        connection = side.parties.get(role)
        if connection is None or connection.fileno() != fd:
            return
        try:
            ask = connection.recv(1)
        except OSError:
            ask = b""
        if ask:
            side.asks[role] = ask
        else:
            self._drop(name, role)

    def _drop(self, name: str, role: str) -> None:
        side = self._sides[name]
        connection = side.parties.pop(role, None)
        side.asks.pop(role, None)
        if connection is not None:
            self._selector.unregister(connection)
            connection.close()
        if self._running == name and not side.parties:
            self._running = None

    def _admit(self) -> None:
        """Let the next side through, once whoever was let through is back and nobody is still on the way."""
        if self._running is not None:
            if not self._sides[self._running].arrived:
                return
            self._running = None
        waiting = [name for name, side in self._sides.items() if not side.gone]
        if not waiting or not all(self._sides[name].arrived for name in waiting):
            return
        ready = [name for name in waiting if not self._sides[name].finished]
        if not ready:
            for name in waiting:
                self._release(name)
            self._owed.clear()
            return
        self._running = self._next(ready)
        self.log.append(self._running)
        self._release(self._running)

    def _next(self, ready: list[str]) -> str:
        if not self._owed:
            self._owed = self._chance.sample(sorted(self._sides), k=len(self._sides))
        while self._owed:
            name = self._owed.pop(0)
            if name in ready:
                return name
        return ready[0]

    def _release(self, name: str) -> None:
        side = self._sides[name]
        side.asks.clear()
        for role in list(side.parties):
            try:
                side.parties[role].sendall(GO)
            except OSError:
                self._drop(name, role)


def _line(connection: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n") and len(data) < MAX_GREETING_BYTES:
        if not (more := connection.recv(1)):
            break
        data += more
    return data.decode("utf-8", "replace").strip()


def variables(address: str, side: str) -> dict[str, str]:
    """Return the environment that sends a command's parties to the turnstile."""
    from pibench.session.turn import ADDRESS, SIDE

    return {**os.environ, ADDRESS: address, SIDE: side}
