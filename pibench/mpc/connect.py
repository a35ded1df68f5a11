"""How the processes of a session find and know each other.

On one host, each connection proves in both directions that its ends hold the session's one-time token (HMAC over two
fresh nonces), so another user of the machine who finds the port gets nowhere. The kind of connection is named by the
job (`connection: {kind: ...}`), so that two hosts can bring their own (mutual TLS): see `CONNECTORS`.
"""

from __future__ import annotations

import hmac
import importlib
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol as Interface

from pibench.errors import TransportError, UsageError
from pibench.mpc.job import Job

Address = tuple[str, int]

# kind of connection -> module:function, a `Connector`
CONNECTORS: dict[str, str] = {"loopback": "pibench.mpc.connect:connect_loopback"}

MAGIC = b"pibench-session\x01"
NONCE_BYTES = 32
ROLE_BYTES = 8
HANDSHAKE_S = 10.0  # a stranger who says nothing is sent away after this long
BACKLOG = 16


@dataclass
class Sockets:
    """A process's connections, by the role at the other end."""

    by_role: dict[str, socket.socket]

    def __getitem__(self, role: str) -> socket.socket:
        return self.by_role[role]


class Helm(Interface):
    """What a connector may ask of the process it runs in."""

    def announce(self, address: Address) -> None:
        """Tell the harness where this process listens."""

    def addresses(self) -> dict[str, Address]:
        """Wait for the harness to say where the others listen."""


Connector = Callable[[Job, Helm], Callable[[], Sockets]]


def connector(job: Job) -> Connector:
    """Return the connector that the job names."""
    kind = str(job.connection.get("kind", "loopback"))
    if kind not in CONNECTORS:
        raise UsageError(f"no kind of connection is named {kind!r}", remedy=f"choose one of {', '.join(CONNECTORS)}")
    module, _, name = CONNECTORS[kind].partition(":")
    found: Connector = getattr(importlib.import_module(module), name)
    return found


def connect_loopback(job: Job, helm: Helm) -> Callable[[], Sockets]:
    """Listen at once where this role listens; the returned function completes the connections.

    The server listens for the client, and both parties for the dealer; ports are the kernel's choice, so none is
    ever taken by another between choosing and binding.
    """
    awaited = {"server": ["client"], "client": [], "dealer": []}[job.role]
    awaited += ["dealer"] if job.dealer and job.role != "dealer" else []
    dialled = {"server": [], "client": ["server"], "dealer": ["server", "client"]}[job.role]
    listener = listen(str(job.connection.get("host", "127.0.0.1"))) if awaited else None
    if listener is not None:
        helm.announce(listener.getsockname()[:2])

    def complete() -> Sockets:
        token, deadline = job.token.encode(), time.monotonic() + job.timeout_s
        known = helm.addresses() if dialled else {}
        sockets = {role: dial(known[role], token, job.role, deadline) for role in dialled}
        if listener is not None:
            with listener:
                sockets |= accept(listener, token, awaited, deadline)
        return Sockets(sockets)

    return complete


def listen(host: str) -> socket.socket:
    """Return a socket that listens on a port of the kernel's choice."""
    listener = socket.socket()
    try:
        listener.bind((host, 0))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise TransportError(f"cannot listen on {host}: {error.strerror}") from error
    return listener


def dial(address: Address, token: bytes, role: str, deadline: float) -> socket.socket:
    """Connect, and let both ends prove that they hold the token."""
    try:
        sock = socket.create_connection(address, timeout=_left(deadline))
    except OSError as error:
        raise TransportError(f"cannot connect to {address[0]}:{address[1]}: {error}") from error
    try:
        sock.settimeout(_left(deadline))
        mine = secrets.token_bytes(NONCE_BYTES)
        sock.sendall(MAGIC + role.encode().ljust(ROLE_BYTES) + mine)
        reply = _read(sock, 2 * NONCE_BYTES)
        theirs, proof = reply[:NONCE_BYTES], reply[NONCE_BYTES:]
        if not hmac.compare_digest(proof, _proof(token, b"accept", role, mine, theirs)):
            raise TransportError("whoever listens there does not hold this session's token")
        sock.sendall(_proof(token, b"dial", role, mine, theirs))
        return sock
    except OSError as error:
        sock.close()
        raise TransportError(f"the handshake failed: {error or 'timed out'}") from error
    except TransportError:
        sock.close()
        raise


def accept(listener: socket.socket, token: bytes, wanted: Iterable[str], deadline: float) -> dict[str, socket.socket]:
    """Accept one proven connection from each wanted role; strangers are sent away and do no harm."""
    missing, found = set(wanted), {}
    while missing:
        listener.settimeout(_left(deadline))
        try:
            sock, _ = listener.accept()
        except TimeoutError as error:
            raise TransportError(f"the {' and the '.join(sorted(missing))} did not connect in time") from error
        sock.settimeout(min(HANDSHAKE_S, _left(deadline)))
        role = _greet(sock, token, missing)
        if role is None:
            sock.close()
        else:
            found[role] = sock
            missing.remove(role)
    return found


def _greet(sock: socket.socket, token: bytes, missing: set[str]) -> str | None:
    """Return the proven role at the other end, or None for a stranger."""
    try:
        hello = _read(sock, len(MAGIC) + ROLE_BYTES + NONCE_BYTES)
        role = hello[len(MAGIC) : len(MAGIC) + ROLE_BYTES].decode("ascii", "replace").strip()
        if not hello.startswith(MAGIC) or role not in missing:
            return None
        mine, theirs = secrets.token_bytes(NONCE_BYTES), hello[-NONCE_BYTES:]
        sock.sendall(mine + _proof(token, b"accept", role, theirs, mine))
        given = _read(sock, NONCE_BYTES)
        return role if hmac.compare_digest(given, _proof(token, b"dial", role, theirs, mine)) else None
    except (OSError, TransportError):
        return None


def _proof(token: bytes, side: bytes, role: str, dialler: bytes, acceptor: bytes) -> bytes:
    return hmac.digest(token, MAGIC + side + role.encode().ljust(ROLE_BYTES) + dialler + acceptor, "sha256")


def _read(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise TransportError("the other end closed the connection in the handshake")
        data += chunk
    return bytes(data)


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
