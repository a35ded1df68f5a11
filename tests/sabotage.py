"""A relay between the parties that can be told to cut, close, reset, truncate or corrupt what it carries."""

from __future__ import annotations

import os
import random
import socket
from typing import Any

from relay import Relay

from pibench.links.link import Link


class Saboteur(Relay):
    """Loopback through a relay that can be told to cut, close, reset, truncate or corrupt."""

    def __init__(self, link: Link, _: bool = False) -> None:
        super().__init__(link)
        self._order = ""
        self._at = 0

    def route(self, dialler: str, role: str, address: Any) -> Any:
        """Put the relay between client and server, without an order."""
        if (dialler, role) == ("client", "server"):
            self._order = ""
        return super().route(dialler, role, address)

    def strike(self, how: str, chance: random.Random) -> bool:
        """Give an order; it is obeyed with the next bytes."""
        if not self.ends:
            return False
        self._at = chance.randrange(1, 64)
        self._order = how
        return True

    def pump(self, source: socket.socket, target: socket.socket) -> None:
        """Carry bytes on, or do to them what was ordered."""
        while data := source.recv(1 << 14):
            match self._order:
                case "cut":
                    continue  # it goes nowhere, and nobody is told
                case "half-close":
                    target.shutdown(socket.SHUT_WR)
                    self._order = "cut"
                    continue
                case "reset":
                    for sock in self.ends:
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
