"""What emulator processes have in common: the control pipe, and waking up on time."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from pibench.links import netns


class ControlPipe:
    """Lines of JSON on a file that a selector watches; its end means: stop."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""

    def fileno(self) -> int:
        """Return the file, for a selector."""
        return self._fd

    def lines(self) -> list[dict[str, Any]] | None:
        """Return the complete lines that have arrived, or None at the end."""
        data = os.read(self._fd, 65_536)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


def say(**values: Any) -> None:
    """Print one line for the harness."""
    print(json.dumps(values), flush=True)


def be_punctual() -> None:
    """Wake up on time even when all cores compute, as far as the user may ask for that."""
    with suppress(OSError):
        netns.sharp_timers()
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
