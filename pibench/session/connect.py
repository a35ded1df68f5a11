"""How the processes of a session find and know each other.

On one host, each connection proves in both directions that its ends hold the session's one-time token (HMAC over two
fresh nonces), so another user of the machine who finds the port gets nowhere. The kind of connection is named by the
job (`connection: {kind: ...}`), so that two hosts can bring their own (mutual TLS): see `CONNECTORS`.
"""

from __future__ import annotations

import hmac
import importlib
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol as Interface

from pibench.errors import TransportError, UsageError
from pibench.links.callers import MAX_CALLERS, Callers, say
from pibench.links.transport import listen
from pibench.session.job import Job

Address = tuple[str, int]

# kind of connection -> module:function, a `Connector`
CONNECTORS: dict[str, str] = {
    "loopback": "pibench.session.connect:connect_loopback",
    "tls": "pibench.session.connect:connect_tls",
}

MAGIC = b"pibench-session\x01"
NONCE_BYTES = 32
ROLE_BYTES = 8
OFFLINE = "offline"  # what a second connection between the parties is for
CONNECT_S = 180.0  # for all to be there: on a busy machine imports take long, and the harness knows who has died
HANDSHAKE_S = 10.0  # a stranger who says nothing is sent away after this long


@dataclass
class Sockets:
    """A process's connections, by the role at the other end, or by what a second one to it is for."""

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
Wrap = Callable[[socket.socket], socket.socket]  # what makes a connection secure


def plain(sock: socket.socket) -> socket.socket:
    """Leave a connection as it is: on one host, the token is enough."""
    return sock


def connector(job: Job) -> Connector:
    """Return the connector that the job names."""
    kind = str(job.connection.get("kind", "loopback"))
    if kind not in CONNECTORS:
        raise UsageError(f"no kind of connection is named {kind!r}", remedy=f"choose one of {', '.join(CONNECTORS)}")
    module, _, name = CONNECTORS[kind].partition(":")
    found: Connector = getattr(importlib.import_module(module), name)
    return found


def connect_loopback(job: Job, helm: Helm) -> Callable[[], Sockets]:
    """Connect on one host: the session's token is all the proof there is.

    Listening begins at once; the returned function completes the connections. The server listens for the client, both
    parties for the dealer. Ports are the kernel's choice, so none is taken by another between choosing and binding.
    """
    return _connect(job, helm, plain, lambda _: plain)


def connect_tls(job: Job, helm: Helm) -> Callable[[], Sockets]:
    """Connect between hosts: the same, inside mutual TLS 1.3 with the pinned peer.

    A dealer on a host of its own is pinned by a key of its own: no party can stand in for it.
    """
    from pibench.links.tls import Identity, Wrapper

    ours = job.connection["identity"]

    def wrap_out(role: str) -> Wrap:
        asked = job.connection.get("dealer_identity", ours) if role == "dealer" else ours
        return Wrapper(Identity.from_json(asked), server=False)

    return _connect(job, helm, Wrapper(Identity.from_json(ours), server=True), wrap_out)


def _connect(job: Job, helm: Helm, wrap_in: Wrap, wrap_out: Callable[[str], Wrap]) -> Callable[[], Sockets]:
    awaited, dialled = [*job.listeners.get(job.role, ())], job.dialled_by(job.role)
    awaited += [OFFLINE] if job.beside and job.role == "server" else []
    place = str(job.connection.get("host", "127.0.0.1")), int(job.connection.get("port", 0))
    listener = listen(*place) if awaited else None
    if listener is not None:
        helm.announce(listener.getsockname()[:2])

    def complete() -> Sockets:
        token, deadline = job.token.encode(), time.monotonic() + max(job.timeout_s, CONNECT_S)
        known = helm.addresses() if dialled else {}
        sockets = {role: dial(known[role], token, job.role, deadline, wrap_out(role)) for role in dialled}
        if job.beside and job.role == "client":
            sockets[OFFLINE] = dial(known["server"], token, OFFLINE, deadline, wrap_out("server"))
        if listener is not None:
            with listener:
                sockets |= accept(listener, token, awaited, deadline, wrap_in)
        return Sockets(sockets)

    return complete


def dial(address: Address, token: bytes, role: str, deadline: float, wrap: Wrap = plain) -> socket.socket:
    """Connect, and let both ends prove that they hold the token."""
    try:
        sock = socket.create_connection(address, timeout=_left(deadline))
    except OSError as error:
        raise TransportError(f"cannot connect to {address[0]}:{address[1]}: {error}") from error
    try:
        sock.settimeout(_left(deadline))
        sock = wrap(sock)
        mine = secrets.token_bytes(NONCE_BYTES)
        sock.sendall(MAGIC + role.encode().ljust(ROLE_BYTES) + mine)
        reply = _read(sock, 2 * NONCE_BYTES, deadline)
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


def accept(
    listener: socket.socket, token: bytes, wanted: Iterable[str], deadline: float, wrap: Wrap = plain
) -> dict[str, socket.socket]:
    """Accept one proven connection from each wanted role.

    Each caller is questioned in a thread of its own, so that silent strangers keep nobody waiting; none of these
    threads outlives the listener.
    """
    missing, found = set(wanted), {}
    proven: queue.Queue[tuple[str, socket.socket]] = queue.Queue()

    def question(sock: socket.socket) -> tuple[str, socket.socket]:
        deadline = time.monotonic() + HANDSHAKE_S
        sock = wrap(sock)
        try:
            return _greet(sock, token, deadline)
        except BaseException:
            sock.close()
            raise

    callers = Callers(listener, question, lambda known, _: proven.put(known), within_s=HANDSHAKE_S, most=MAX_CALLERS)
    accepting = threading.Thread(target=callers.serve, daemon=True)
    accepting.start()
    try:
        while missing:
            role, sock = proven.get(timeout=_left(deadline))
            if role in missing:
                found[role] = sock
                missing.remove(role)
            else:
                say(f"refused {sock.getpeername()}: nobody waits for another {role}")
                sock.close()
    except queue.Empty:
        for sock in found.values():
            sock.close()
        raise TransportError(f"the {' and the '.join(sorted(missing))} did not connect in time") from None
    finally:
        callers.close()
        accepting.join()
        while not proven.empty():
            proven.get()[1].close()
    return found


def _greet(sock: socket.socket, token: bytes, deadline: float) -> tuple[str, socket.socket]:
    """Return the proven role at the other end; raises TransportError for a stranger."""
    hello = _read(sock, len(MAGIC) + ROLE_BYTES + NONCE_BYTES, deadline)
    role = hello[len(MAGIC) : len(MAGIC) + ROLE_BYTES].decode("ascii", "replace").strip()
    if not hello.startswith(MAGIC):
        raise TransportError("it does not speak this version of pibench's protocol")
    mine, theirs = secrets.token_bytes(NONCE_BYTES), hello[-NONCE_BYTES:]
    sock.sendall(mine + _proof(token, b"accept", role, theirs, mine))
    if not hmac.compare_digest(_read(sock, NONCE_BYTES, deadline), _proof(token, b"dial", role, theirs, mine)):
        raise TransportError("it does not hold this session's token")
    return role, sock


def _proof(token: bytes, side: bytes, role: str, dialler: bytes, acceptor: bytes) -> bytes:
    return hmac.digest(token, MAGIC + side + role.encode().ljust(ROLE_BYTES) + dialler + acceptor, "sha256")


def _read(sock: socket.socket, size: int, deadline: float) -> bytes:
    """Read so many bytes by the deadline, in however small pieces they come; raises TimeoutError."""
    data = bytearray()
    while len(data) < size:
        sock.settimeout(_left(deadline))
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise TransportError("the other end closed the connection in the handshake")
        data += chunk
    return bytes(data)


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
