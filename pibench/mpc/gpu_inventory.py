"""Devices beside the processor: which there are, what they hold, and what waits for them.

torch is imported where a card is asked for and nowhere else. Party processes are forked from one that has imported
torch and touched no card (a driver does not survive a fork), so what a harness wants to know of its cards is asked in a
process of its own, which ends with the answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from pibench.errors import UsageError

TIMEOUT_S = 120.0
REMEDY = "`pibench doctor` says what there is"


@dataclass(frozen=True)
class Gpu:
    """One card as torch sees it."""

    name: str
    capability: str  # compute capability, major.minor
    total_bytes: int
    free_bytes: int


def number_of(device: str) -> int:
    """Return the number of a card as a case names it: 0 for `cuda`."""
    return int(device.partition(":")[2] or 0)


def require(device: str) -> str:
    """Return the device; raises UsageError where torch finds none of that name."""
    if device == "cpu":
        return device
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number_of(device) >= there:
        raise _missing(device, there)
    return device


def _missing(device: str, there: int) -> UsageError:
    found = f"cards here: {there}" if there else "torch finds no card here"
    return UsageError(f"no device '{device}': {found}", remedy=REMEDY)


def synchroniser(device: str) -> Callable[[], None] | None:
    """Return what waits until all work on a device is done; None for the processor, where nothing is pending."""
    if device == "cpu":
        return None
    import torch

    return lambda: torch.cuda.synchronize(device)


def peak_bytes(device: str | None) -> int | None:
    """Return the most memory that this process held on a card so far, torch's reserve included; None elsewhere."""
    if device is None or not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_reserved(device)


def gpus() -> list[Gpu]:
    """Return the cards of this host, asked in a process of its own; empty where torch finds none, or cannot say."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pibench.mpc.gpu_inventory"], capture_output=True, text=True, timeout=TIMEOUT_S
        )
        return [Gpu(**card) for card in json.loads(done.stdout)]
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return []


def require_all(devices: str, found: list[Gpu] | None = None) -> None:
    """Raise UsageError where a case's devices (`cuda:0,cuda:1`) are not all there; asks in a process of its own."""
    if devices == "cpu":
        return
    found = gpus() if found is None else found
    for device in devices.split(","):
        if device != "cpu" and number_of(device) >= len(found):
            raise _missing(device, len(found))


def _said() -> list[dict[str, object]]:
    import torch

    if not torch.cuda.is_available():
        return []
    made = []
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        made.append(
            {"name": properties.name, "capability": f"{properties.major}.{properties.minor}",
             "total_bytes": total, "free_bytes": free}
        )  # fmt: skip
    return made


if __name__ == "__main__":
    print(json.dumps(_said()))
