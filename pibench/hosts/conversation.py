"""A framed conversation between two hosts on one thread: whoever has other things to do asks now and then.

Nothing is allocated before a length is checked, and nothing waits for a peer that does not read.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

from pibench.errors import TransportError
from pibench.links import frames
from pibench.links.transport import NOT_NOW

READ_BYTES = SLICE_BYTES = 1 << 18
SEND_S = 30.0  # a peer that takes nothing for so long is gone
PAUSE_S = 0.005
Message = dict[str, Any]


class Talk:
    """Messages over a connected (TLS) socket."""

    def __init__(self, sock: socket.socket, limit_bytes: int = frames.LARGE_BYTES) -> None:
        self._sock, self._limit_bytes = sock, limit_bytes
        self._arrived = bytearray()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if (
                hasattr(socket, name) and sock.family != socket.AF_UNIX
            ):  # a host that vanished is noticed within half a minute
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def fileno(self) -> int:
        """Return the socket, for a selector."""
        return self._sock.fileno()

    def send(self, message: Message) -> None:
        """Send one message, in slices: TLS tells of nothing moved before all that it was given is out."""
        data, deadline = memoryview(frames.encode(message, self._limit_bytes)), time.monotonic() + SEND_S
        while data:
            try:
                data = data[self._sock.send(data[:SLICE_BYTES]) :]
                deadline = time.monotonic() + SEND_S
            except NOT_NOW:
                if time.monotonic() > deadline:
                    raise TransportError(f"the other host took nothing for {SEND_S:.0f} s") from None
                time.sleep(PAUSE_S)
            except OSError as error:
                raise TransportError(f"the connection to the other host broke: {error}") from error

    def messages(self) -> list[Message]:
        """Return what has arrived; raises TransportError at the end of the connection."""
        self._read()
        found = []
        while len(self._arrived) >= frames.LENGTH.size:
            (size,) = frames.LENGTH.unpack_from(self._arrived)
            if size > self._limit_bytes:
                raise TransportError(f"the other host announces a frame of {size} bytes: this is no peer")
            end = frames.LENGTH.size + size
            if len(self._arrived) < end:
                break
            found.append(frames.decode(self._arrived[frames.LENGTH.size : end]))
            del self._arrived[:end]
        return found

    def next(self, timeout_s: float) -> Message:
        """Wait for one message, where only one can come."""
        deadline = time.monotonic() + timeout_s
        while True:
            if found := self.messages():
                return found[0]
            if time.monotonic() > deadline:
                raise TransportError(f"the other host said nothing for {timeout_s:.0f} s")
            time.sleep(PAUSE_S)

    def _read(self) -> None:
        """Take what is there, up to a frame and a bit."""
        while len(self._arrived) <= self._limit_bytes + frames.LENGTH.size:
            try:
                data = self._sock.recv(READ_BYTES)
            except NOT_NOW:
                return
            except OSError as error:
                raise TransportError(f"the connection to the other host broke: {error}") from error
            if not data:
                if self._arrived and self._whole():
                    return  # first what was said, then the end
                raise TransportError("the other host closed the connection")
            self._arrived += data

    def _whole(self) -> bool:
        """Whether a complete message waits."""
        if len(self._arrived) < frames.LENGTH.size:
            return False
        return len(self._arrived) >= frames.LENGTH.size + int(frames.LENGTH.unpack_from(self._arrived)[0])

    def hang_up(self) -> None:
        """End the connection from another thread: whoever talks learns that it broke."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()
