"""Will it fit? A case's memory on this host, estimated from what its protocol declares, before anything is started.

The estimate counts the processes themselves, weights in the ring, and what the protocol holds for its batches; it is
within a factor of 1.5 of what was measured (docs/architecture.md). A case above what is free would end in the kernel's
killing some process or other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pibench.errors import PartyError, UsageError
from pibench.mpc.gpu_inventory import Gpu, gpus, number_of, require_all

PROCESS_BYTES = 150 << 20  # of one party's own, beside what it shares with the process it was forked from
PARTIES = 3
CONTEXT_BYTES = 600 << 20  # a process's own on a card, whatever it does there
CARD_COPIES = 2 * 8  # bytes a weight on a card: as limbs, and while both engines are compared
WORK_BYTES, WORKING_COPIES = 1 << 30, 3  # patches, products and sums (pibench.mpc.backends.torch_products)
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


def estimate_card_bytes(held: int, parameters: int) -> int:
    """Return what one party takes on a card: its half of the material, weights as limbs, patches and products."""
    return CONTEXT_BYTES + CARD_COPIES * parameters + held // 2 + WORKING_COPIES * WORK_BYTES


def refuse_missing_cards(devices: Iterable[str], found: list[Gpu] | None = None) -> None:
    """Raise UsageError where a run's cases name cards that are not there: before anything is prepared or trained."""
    asked = dict.fromkeys(devices)
    if set(asked) <= {"cpu"}:
        return
    found = gpus() if found is None else found
    for name in asked:
        try:
            require_all(name, found)
        except UsageError as error:
            others = "; `-k cpu` runs the cases that need none" if "cpu" in asked else ""
            raise UsageError(error.what, remedy=error.remedy + others) from error


def refuse_what_no_card_holds(
    devices: str, held: int, parameters: int, batches: int, found: list[Gpu] | None = None
) -> None:
    """Raise for a case on cards that are not there (UsageError) or have not enough free memory (PartyError)."""
    if devices == "cpu":
        return
    found = gpus() if found is None else found
    require_all(devices, found)
    named = devices.split(",")
    each = [named[0], named[-1]]  # the server's and the client's
    for device in dict.fromkeys(each):
        needed = each.count(device) * estimate_card_bytes(held, parameters)
        card = found[number_of(device)]
        if needed > card.free_bytes:
            raise PartyError(
                f"on {device} ({card.name}) it needs about {needed / 1e9:.1f} GB ({held / 1e9:.1f} GB of material and "
                f"working memory for {batches} batches), {card.free_bytes / 1e9:.1f} GB are free",
                remedy="a smaller offline_chunk keeps less material at a time; so does a smaller batch",
            )


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
