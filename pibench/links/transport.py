"""One connection between two parties: single-hop exchange, exact accounting, a deadline on everything.

Framing: none on the data path. Both sides run the same program, so each knows how many bytes come next; a header
would only add bytes and a copy. What must not be trusted (handshake, control) is framed where it is used.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import sys
import time
from typing import Any

from pibench.errors import TransportError
from pibench.links.meter import Meter

DEFAULT_TIMEOUT_S = 60.0
BACKLOG = 16  # callers that may wait at a listener
SPIN_S = 200e-6
TLS_BYTES = 256 << 10  # handed to TLS at a time
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def listen(host: str, port: int = 0) -> socket.socket:
    """Return a socket that listens, on a port of the kernel's choice where none is named."""
    listener = socket.socket()
    try:
        if port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise TransportError(f"cannot listen on {host}: {error.strerror}") from error
    return listener


class Channel:
    """A connected stream socket to the peer, with payload counted where the buffer enters it.

    Rounds are links in the chain of dependent messages: what follows a message in the same direction waits for nobody
    and belongs to the same link.

    Buffers are anything with the buffer protocol (numpy arrays, bytearrays); `exchange` sends and receives at the same
    time, so that neither side can block the other with full socket buffers.
    """

    def __init__(self, sock: socket.socket, meter: Meter, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._sock, self._meter, self.timeout_s = sock, meter, timeout_s
        # TLS says that nothing was sent until all that it was given is out, which looks like a dead peer if it is much
        self._most_bytes = TLS_BYTES if isinstance(sock, ssl.SSLSocket) else sys.maxsize
        self._poll = select.poll()
        self._last = ""  # direction of the last payload
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)

    def send(self, data: Any) -> None:
        """Send all of `data`; one link in the chain of dependent messages."""
        view = memoryview(data).cast("B")
        self._run(view, None)
        self._meter.sent(len(view))
        self._link("out")

    def recv_into(self, into: Any) -> None:
        """Fill `into` from the peer's send; the same link, seen from the other side."""
        view = memoryview(into).cast("B")
        self._run(None, view)
        self._meter.received(len(view))
        self._link("in")

    def exchange(self, data: Any, into: Any) -> None:
        """Send `data` and fill `into` at the same time: one round."""
        out, back = memoryview(data).cast("B"), memoryview(into).cast("B")
        self._run(out, back)
        self._meter.sent(len(out))
        self._meter.received(len(back))
        self._link("both")

    def barrier(self) -> None:
        """Meet the peer; neither counted as payload nor as a round."""
        self._last = ""
        back = bytearray(1)
        self._run(memoryview(b"\x42"), memoryview(back))
        if back != b"\x42":
            raise TransportError("the peer is at another point of the program than this party")

    def move(self, out: Any = None, into: Any = None) -> None:
        """Send and fill what is neither payload nor a round: handshakes, probes, barriers."""
        self._run(
            memoryview(out).cast("B") if out is not None else None,
            memoryview(into).cast("B") if into is not None else None,
        )

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _link(self, direction: str) -> None:
        if direction != self._last or direction == "both":
            self._meter.round()
        self._last = direction

    def _run(self, out: memoryview | None, into: memoryview | None) -> None:
        """Move both buffers to their ends; time blocked goes to the meter as waiting."""
        sent = received = 0
        n_out, n_in = len(out) if out is not None else 0, len(into) if into is not None else 0
        deadline = time.monotonic() + self.timeout_s
        while sent < n_out or received < n_in:
            moved = 0
            if out is not None and sent < n_out:
                moved += (n := self._try_send(out[sent : sent + self._most_bytes]))
                sent += n
            if into is not None and received < n_in:
                moved += (n := self._try_recv(into[received:]))
                received += n
            if moved:
                deadline = time.monotonic() + self.timeout_s  # a slow link is no dead peer
            else:
                self._wait(received < n_in, sent < n_out, deadline)

    def _try_send(self, view: memoryview) -> int:
        try:
            return self._sock.send(view)
        except NOT_NOW:
            return 0
        except OSError as error:
            raise TransportError(f"the connection to the peer broke while sending: {error}") from error

    def _try_recv(self, view: memoryview) -> int:
        try:
            n = self._sock.recv_into(view)
        except NOT_NOW:
            return 0
        except OSError as error:
            raise TransportError(f"the connection to the peer broke while receiving: {error}") from error
        if n == 0:
            raise TransportError("the peer closed the connection")
        return n

    def _wait(self, readable: bool, writable: bool, deadline: float) -> None:
        events = (select.POLLIN if readable else 0) | (select.POLLOUT if writable else 0)
        start = time.perf_counter()
        self._poll.register(self._sock, events)
        left_s = max(0.0, deadline - time.monotonic())
        ready = self._spin(start + SPIN_S) or self._poll.poll(left_s * 1e3 if left_s < float("inf") else None)
        self._meter.waited(time.perf_counter() - start)
        if not ready:
            raise TransportError(
                f"the peer said nothing for {self.timeout_s:.0f} s",
                remedy="look at the peer's last lines; raise timeout_s in the suite for slow links",
            )

    def _spin(self, until: float) -> list[tuple[int, int]]:
        """Look again and again for a moment, letting others run in between: going to sleep and being woken costs more.

        A peer's turn in a conversation often takes less than that.
        """
        while not (ready := self._poll.poll(0)) and time.perf_counter() < until:
            os.sched_yield()
        return ready
