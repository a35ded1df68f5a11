"""Taking turns: two sessions live side by side, and serve one inference at a time between them (`pibench ab`).

A turnstile listens on a Unix socket that `PIBENCH_TURNSTILE` names; `PIBENCH_TURNSTILE_SIDE` says whose session this
is. Both parties of a session ask before each inference and once after the last; whoever is waiting uses no processor.
"""

from __future__ import annotations

import os
import socket

from pibench.errors import TransportError

ADDRESS, SIDE = "PIBENCH_TURNSTILE", "PIBENCH_TURNSTILE_SIDE"
READY, FINISHED, GO = b"R", b"E", b"G"
CONNECT_TIMEOUT_S = 30.0


class Turn:
    """One party's place in the queue; without a turnstile it is always its turn."""

    def __init__(self, role: str) -> None:
        self._socket: socket.socket | None = None
        address = os.environ.get(ADDRESS, "")
        if not address or role not in ("server", "client"):
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_TIMEOUT_S)
        try:
            self._socket.connect(address)
            self._socket.sendall(f"{os.environ.get(SIDE, 'base')} {role}\n".encode())
        except OSError as error:
            raise TransportError(f"the turnstile does not answer: {error}", where=address) from error
        self._socket.settimeout(None)  # the other side's inference takes as long as it takes

    @property
    def shared(self) -> bool:
        """Whether another session takes turns with this one."""
        return self._socket is not None

    def take(self) -> None:
        """Wait until this session may serve an inference; asking again means that the last one is over."""
        self._ask(READY)

    def leave(self) -> None:
        """Say that there is nothing left to serve; returns when the other side has nothing left either."""
        self._ask(FINISHED)
        if self._socket is not None:
            self._socket.close()

    def _ask(self, what: bytes) -> None:
        if self._socket is None:
            return
        self._socket.sendall(what)
        if self._socket.recv(1) != GO:
            raise TransportError("the turnstile is gone", remedy="`pibench ab` was ended")
