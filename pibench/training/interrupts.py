"""Ctrl-C and SIGTERM held back while something is half done. No torch here."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block has ended; the first of them then does what it would have done.

    Signals reach the main thread alone, so in other threads there is nothing to hold. If the block raises, its error
    goes first and the signals are dropped: the work ends either way.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: dict[int, None] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        noted[number] = None

    # a handler that was not installed from Python (None) could not be put back
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not None}
    try:
        for number in before:
            signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for held in noted:
        signal.raise_signal(held)
