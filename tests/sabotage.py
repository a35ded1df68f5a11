"""A relay between the parties that can be told to cut, close, reset, truncate or corrupt what it carries."""

from __future__ import annotations

import os
import random
import socket
import threading
from contextlib import suppress
from typing import Any

from pibench.mpc.link import Link, LinkUp


class Saboteur(LinkUp):
    """Loopback through a relay that can be told to cut, close, reset, truncate or corrupt."""

    def __init__(self, link: Link, _: bool = False) -> None:
        super().__init__(link)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._order = ""
        self._at = 0
        self._pair: tuple[socket.socket, ...] = ()

    def route(self, dialler: str, role: str, address: Any) -> Any:
        """Put the relay between client and server."""
        if (dialler, role) != ("client", "server"):
            return address
        self._order, self._pair = "", ()
        threading.Thread(target=self._carry, args=(address,), daemon=True).start()
        return self._listener.getsockname()

    def strike(self, how: str, chance: random.Random) -> bool:
        """Give an order; it is obeyed with the next bytes."""
        if not self._pair:
            return False
        self._at = chance.randrange(1, 64)
        self._order = how
        return True

    def _carry(self, address: Any) -> None:
        with suppress(OSError):
            near, _ = self._listener.accept()
            far = socket.create_connection(address)
            self._pair = (near, far)
            threads = [
                threading.Thread(target=self._pump, args=ends, daemon=True) for ends in ((near, far), (far, near))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            near.close()
            far.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 14):
                match self._order:
                    case "cut":
                        continue  # it goes nowhere, and nobody is told
                    case "half-close":
                        target.shutdown(socket.SHUT_WR)
                        self._order = "cut"
                        continue
                    case "reset":
                        for sock in self._pair:
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                            sock.close()
                        return
                    case "truncate":
                        target.sendall(data[: max(0, len(data) - self._at)])
                        target.shutdown(socket.SHUT_WR)
                        self._order = "cut"
                        continue
                    case "insert":
                        data, self._order = data[: self._at] + os.urandom(self._at) + data[self._at :], ""
                    case "corrupt":
                        noise = bytes(255 ^ b for b in data[: 8 * self._at])
                        data, self._order = noise + data[8 * self._at :], ""
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> dict[str, Any]:
        """Stop listening."""
        self._listener.close()
        return {}
