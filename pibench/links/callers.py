"""Callers at a listener: each is questioned in a thread of its own, for a while and no longer, and keeps nobody out.

Where as many are being questioned as may be, the newest takes the place of the oldest from the address that holds most
places, so that silent strangers neither delay nor exclude a peer who knows what to say. Whoever opens a listener closes
its callers with it: `close` waits for their threads.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pibench.errors import PibenchError

MAX_CALLERS = 64  # questioned at the same time
LOOK_S = 0.2  # how often somebody looks for callers whose time is up
JOIN_S = 10.0
LOG_CHARACTERS = 1000

Log = Callable[[str], None]


def say(text: str) -> None:
    """Write one line to standard error; never fails, and never lets a stranger's text control the terminal."""
    with suppress(Exception):  # closed, full or gone: a line less
        print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return a text on one line, of bounded length, its control characters escaped."""
    shown = text[:LOG_CHARACTERS] + ("..." if len(text) > LOG_CHARACTERS else "")
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in shown)


@dataclass(eq=False)
class _Caller:
    """One caller: a second handle on its connection (TLS takes the first one over), and what became of it."""

    handle: socket.socket
    address: tuple[str, int]
    since: float = field(default_factory=time.monotonic)
    why: str = ""  # it was hung up on

    def hang_up(self, why: str) -> None:
        self.why = self.why or why
        with suppress(OSError):
            self.handle.shutdown(socket.SHUT_RDWR)  # wakes up whoever reads from it


class Callers:
    """Accepts callers; `question` proves who one is (or raises), `welcome` takes what that returned.

    Both run in the caller's own thread; only the first is limited, to `within_s` and `most` at the same time.
    """

    def __init__(
        self, listener: socket.socket, question: Callable[[socket.socket], Any], welcome: Callable[[Any, str], None], *,
        within_s: float, most: int = MAX_CALLERS, log: Log = say,
    ) -> None:  # fmt: skip
        self._listener, self._question, self._welcome = listener, question, welcome
        self._within_s, self._most, self._log = within_s, most, log
        self._lock = threading.Lock()
        self._asked: dict[_Caller, None] = {}  # being questioned, in the order in which they came
        self._threads: list[threading.Thread] = []  # of all who came and may not have gone
        self._closed = False

    def serve(self) -> None:
        """Accept callers until the listener is closed."""
        self._listener.settimeout(LOOK_S)
        while not self._closed:
            try:
                sock, address = self._listener.accept()
            except TimeoutError:
                self._hang_up_on_the_late()
                continue
            except OSError as error:
                if self._closed or self._listener.fileno() < 0:
                    return
                self._log(f"cannot accept a caller: {error}")  # no file left for it, say
                time.sleep(LOOK_S)
                continue
            self._hang_up_on_the_late()
            self._receive(sock, (str(address[0]), int(address[1])))

    def close(self) -> None:
        """Accept nobody any more, hang up on those who have proven nothing yet, and wait for everybody's thread."""
        with self._lock:
            self._closed = True
            for caller in self._asked:
                caller.hang_up("nobody listens any more")
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes up whoever accepts
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(JOIN_S)

    def _receive(self, sock: socket.socket, address: tuple[str, int]) -> None:
        caller = _Caller(socket.socket(fileno=os.dup(sock.fileno())), address)
        thread = threading.Thread(target=self._meet, args=(sock, caller), daemon=True)
        with self._lock:
            if self._closed:
                sock.close()
                caller.handle.close()
                return
            if len(self._asked) >= self._most:
                self._whom_to_drop().hang_up("too many callers at a time")
            self._asked[caller] = None
            self._threads = [*(known for known in self._threads if known.is_alive()), thread]
            thread.start()

    def _whom_to_drop(self) -> _Caller:
        """Return the oldest caller from the address that holds most places, of those not hung up on already."""
        there = [caller for caller in self._asked if not caller.why] or list(self._asked)
        held = Counter(caller.address[0] for caller in there)
        return max(there, key=lambda caller: (held[caller.address[0]], -caller.since))

    def _hang_up_on_the_late(self) -> None:
        with self._lock:
            for caller in self._asked:
                if time.monotonic() - caller.since > self._within_s:
                    caller.hang_up(f"timed out: it did not prove itself within {self._within_s:g} s")

    def _meet(self, sock: socket.socket, caller: _Caller) -> None:
        """Question a caller and, if it passes, welcome it; whatever a stranger makes of that is logged."""
        name = f"{caller.address[0]}:{caller.address[1]}"
        try:
            sock.settimeout(self._within_s)
            found = self._question(sock)
            with self._lock:
                self._asked.pop(caller)  # from here on nobody hangs up on it
            self._welcome(found, name)
        except Exception as error:
            why = error.what if isinstance(error, PibenchError) else str(error) or "silence"
            self._log(f"refused {name}: {caller.why or why}")
            with suppress(OSError):
                sock.close()
        finally:
            with self._lock:
                self._asked.pop(caller, None)
            caller.handle.close()
