"""Two parties of a test, each a thread with one end of a socket pair."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from pibench.errors import PibenchError
from pibench.links.meter import Meter
from pibench.links.transport import DEFAULT_TIMEOUT_S, Channel


def channel_pair(meters: tuple[Meter, Meter], timeout_s: float = DEFAULT_TIMEOUT_S) -> tuple[Channel, Channel]:
    """Return two connected channels in one process."""
    left, right = socket.socketpair()
    return Channel(left, meters[0], timeout_s), Channel(right, meters[1], timeout_s)


def both(left: Callable[[Channel], Any], right: Callable[[Channel], Any]) -> tuple[list[Any], list[Meter]]:
    """Run two parties over a socket pair; the first error of either is raised here."""
    results: list[Any] = [None, None]
    meters = [Meter(), Meter()]

    def run(rank: int, sock: socket.socket, work: Callable[[Channel], Any]) -> None:
        channel = Channel(sock, meters[rank], timeout_s=20.0)
        try:
            results[rank] = work(channel)
        except PibenchError as error:
            results[rank] = error
        finally:
            channel.close()

    pairs = zip(socket.socketpair(), (left, right), strict=True)
    threads = [threading.Thread(target=run, args=(k, sock, work)) for k, (sock, work) in enumerate(pairs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, meters
