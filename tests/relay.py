"""A relay between client and server on loopback; what becomes of the bytes that it carries is its user's affair."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

from pibench.links.link import Link, LinkUp


class Relay(LinkUp):
    """Loopback through a relay: `pump` carries one direction, `ends` are the sockets near the client and the server."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.ends: tuple[socket.socket, ...] = ()

    def route(self, dialler: str, role: str, address: Any) -> Any:
        """Put the relay between client and server."""
        if (dialler, role) != ("client", "server"):
            return address
        self.ends = ()
        threading.Thread(target=self._carry, args=(address,), daemon=True).start()
        return self._listener.getsockname()

    def pump(self, source: socket.socket, target: socket.socket) -> None:
        """Carry bytes from one socket to the other until there are no more; an OSError ends it."""
        raise NotImplementedError

    def _carry(self, address: Any) -> None:
        with suppress(OSError):
            near, _ = self._listener.accept()
            far = socket.create_connection(address)
            self.ends = (near, far)
            threads = [
                threading.Thread(target=self._pumped, args=ends, daemon=True) for ends in ((near, far), (far, near))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            near.close()
            far.close()

    def _pumped(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            self.pump(source, target)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> dict[str, Any]:
        """Stop listening."""
        self._listener.close()
        return {}
