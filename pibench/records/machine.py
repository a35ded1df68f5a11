"""What ran where: machine and versions. Gathered once a run, without changing anything."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

from pibench.records.record import Machine

PACKAGES = ("torch", "crypten", "numpy", "numba")


def machine() -> Machine:
    """Describe this machine; `key` is equal where times may be compared: same processor, cores, memory and system."""
    cpu, cores, memory = cpu_model(), len(os.sched_getaffinity(0)), memory_bytes()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    identity = f"{cpu}|{cores}|{round(memory / 2**30)}|{platform.system()} {platform.machine()}"
    return Machine(
        key=hashlib.sha256(identity.encode()).hexdigest()[:12], cpu=cpu, cores=cores, memory_bytes=memory, os=system,
        governor=governor(), load_1min=round(os.getloadavg()[0], 2),
    )  # fmt: skip


def cpu_model() -> str:
    """Return the processor's name as the kernel knows it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.lower().startswith(("model name", "cpu model", "hardware")):
                return " ".join(line.split(":", 1)[1].split())
    return platform.processor() or platform.machine()


def memory_bytes() -> int:
    """Return the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def governor() -> str | None:
    """Return the frequency governor of the first core, or None where the kernel shows none (virtual machines)."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text("ascii").strip()
    except OSError:
        return None


def versions() -> dict[str, str | None]:
    """Return the versions of what decides a measurement, without importing it."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
