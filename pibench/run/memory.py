"""Will it fit? A case's memory on this host, estimated from what its protocol declares, before anything is started.

The estimate counts the processes themselves, weights in the ring, and what the protocol holds for its batches; it is
within a factor of 1.5 of what was measured (docs/architecture.md). A case above what is free would end in the kernel's
killing some process or other.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from pibench.errors import PartyError

PROCESS_BYTES = 150 << 20  # of one party's own, beside what it shares with the process it was forked from
PARTIES = 3
RING_COPIES = 3 * 8  # bytes a weight: the ring's word at each party, and one form of it for the product


def estimate_bytes(held: int, parameters: int) -> int:
    """Return what a session takes on this host; `held`: what its protocol estimates for material (Protocol)."""
    return PARTIES * PROCESS_BYTES + RING_COPIES * parameters + held


def free_bytes(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what is free: of the machine, and of this control group; None where nobody says."""
    found: list[int] = []
    with suppress(OSError):
        if match := re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text("ascii"), re.MULTILINE):
            found.append(int(match[1]) << 10)
    with suppress(OSError, ValueError):
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(found) if found else None


def refuse_what_will_not_fit(held: int, parameters: int, batches: int, free: int | None = None) -> None:
    """Raise PartyError for a session that needs more than is free."""
    free = free_bytes() if free is None else free
    needed = estimate_bytes(held, parameters)
    if free is None or needed <= free:
        return
    raise PartyError(
        f"it needs about {needed / 1e9:.1f} GB ({held / 1e9:.1f} GB of material and working memory for {batches} "
        f"batches), {free / 1e9:.1f} GB are free",
        remedy="a smaller offline_chunk keeps less material at a time; so does a smaller batch",
    )
