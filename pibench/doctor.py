"""What this machine can do for a measurement, line by line, each with what to do about it. Nothing is changed.

A `fail` means that `pibench run` cannot work here; a `warn`, that its numbers will be noisier or some links missing.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import socket
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from pibench.errors import PibenchError
from pibench.numbers import seconds
from pibench.records import machine

Status = Literal["ok", "warn", "fail"]

MIN_CORES = 2
BUSY_LOAD = 0.5  # a core
LOW_MEMORY_BYTES = 4 << 30
LOW_DISK_BYTES = 1 << 30
TORCH_FROM, TORCH_BELOW = (2, 6), (2, 14)
SLOW_CLOCKS = {"hpet", "acpi_pm", "jiffies", "pit"}
COARSE_CLOCK_S = 1e-6
LATE_WAKEUP_S = 1e-3
CALM_GOVERNORS = {"performance", None}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    status: Status
    what: str
    remedy: str = ""


def examine(*, links: bool = True) -> list[Finding]:
    """Look at everything; `links` also tries each way of emulating a link (a few seconds)."""
    checks: list[Callable[[], Iterable[Finding]]] = [
        _python, _cores, _load, _governor, _threads, _torch, _crypten, _numba, _ports, _clock, _wakeup, _memory, _disk,
        _accelerator,
    ]  # fmt: skip
    found = [finding for check in checks for finding in check()]
    return found + list(_links()) if links else found


def _python() -> Iterable[Finding]:
    yield Finding("python", "ok", platform.python_version())  # an older one would not have come this far


def _cores() -> Iterable[Finding]:
    usable, there = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    quota = cgroup_cores()
    what = f"{usable} of {there}: {machine.cpu_model()}" + (f", quota {quota:g}" if quota is not None else "")
    effective = min(usable, quota) if quota is not None else usable
    if effective < MIN_CORES:
        yield Finding("cores", "warn", what, "two parties share one core: times are not those of two machines")
    else:
        yield Finding("cores", "ok", what)


def cgroup_cores(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Return how many cores the control group may use, None where nothing limits it."""
    try:
        quota, period = path.read_text("ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _load() -> Iterable[Finding]:
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    what = f"{load:.2f} over the last minute"
    if load > BUSY_LOAD * cores:
        yield Finding("load", "warn", what, "other work disturbs the parties: stop it, or use `pibench ab`")
    else:
        yield Finding("load", "ok", what)


def _governor() -> Iterable[Finding]:
    governor = machine.governor()
    if governor in CALM_GOVERNORS:
        yield Finding("frequency governor", "ok", governor or "not shown by this kernel (a virtual machine)")
    else:
        yield Finding("frequency governor", "warn", governor or "", "cpupower frequency-set -g performance")


def _threads() -> Iterable[Finding]:
    usable = len(os.sched_getaffinity(0))
    each = max(1, usable // 2)
    yield Finding("threads", "ok", f"suites set them for each party; up to {each} each without sharing a core")


def _torch() -> Iterable[Finding]:
    version = _version("torch")
    if version is None:
        yield Finding("torch", "fail", "not installed", "pip install 'torch>=2.6,<2.14'")
        return
    number = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    if TORCH_FROM <= number < TORCH_BELOW:
        yield Finding("torch", "ok", version)
    else:
        remedy = "pip install 'torch>=2.6,<2.14' (later ones do not fit the torchvision that CrypTen asks for)"
        yield Finding("torch", "warn", f"{version}: not one that pibench was tried with", remedy)


def _crypten() -> Iterable[Finding]:
    version = _version("crypten")
    if version is None:
        yield Finding("crypten", "fail", "not installed", "pip install crypten==0.4.1")
        return
    try:
        from pibench.mpc.crypten.compat import crypten

        crypten()
    except PibenchError as error:
        yield Finding("crypten", "fail", f"{version}: {error.what}", error.remedy)
    else:
        yield Finding("crypten", "ok", f"{version}, imports with this torch")


def _numba() -> Iterable[Finding]:
    version = _version("numba")
    try:
        from pibench import kernelcache

        importlib.import_module("pibench.mpc.backends.with_numpy")  # what every run imports
    except Exception as error:  # a numba that does not fit numpy raises more than ImportError
        remedy = "set NUMBA_CACHE_DIR to a folder of yours" if "cache" in str(error) else "pip install --upgrade numba"
        yield Finding("numba", "fail", f"{version or 'not installed'}: {error}", remedy)
    else:
        yield Finding("numba", "ok", f"{version}, keeps compiled kernels below {kernelcache.where()} (NUMBA_CACHE_DIR)")


def _ports() -> Iterable[Finding]:
    from pibench.session.session import free_port

    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 2):
            port = free_port()
    except (OSError, PibenchError) as error:
        yield Finding("ports", "fail", f"no connection over 127.0.0.1: {error}", "allow loopback connections")
    else:
        yield Finding("ports", "ok", f"loopback connects; {port} is free")


def _clock() -> Iterable[Finding]:
    resolution = clock_resolution_s()
    source = _read("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown source"
    what = f"{source}, ticks {resolution * 1e9:.0f} ns apart"
    if source in SLOW_CLOCKS or resolution > COARSE_CLOCK_S:
        yield Finding("clock", "warn", what, "boot with clocksource=tsc, or measure longer inferences")
    else:
        yield Finding("clock", "ok", what)


def clock_resolution_s(ticks: int = 200) -> float:
    """Return the smallest step seen between two readings of the clock that measures."""
    steps = []
    for _ in range(ticks):
        start = now = time.perf_counter()
        while now == start:
            now = time.perf_counter()
        steps.append(now - start)
    return min(steps)


def _wakeup() -> Iterable[Finding]:
    late = []
    for _ in range(20):
        start = time.perf_counter()
        time.sleep(0.001)
        late.append(time.perf_counter() - start - 0.001)
    typical = statistics.median(late)
    what = f"{seconds(typical)} late, at worst {seconds(max(late))}"
    if typical > LATE_WAKEUP_S:
        yield Finding("waking up", "warn", what, "the machine is busy or its timers are coarse: small delays blur")
    else:
        yield Finding("waking up", "ok", what)


def _memory() -> Iterable[Finding]:
    available = available_memory_bytes()
    what = f"{available / 2**30:.1f} GiB available of {machine.memory_bytes() / 2**30:.1f}"
    if available < LOW_MEMORY_BYTES:
        yield Finding("memory", "warn", what, "large networks will not fit; close something, or run smaller suites")
    else:
        yield Finding("memory", "ok", what)


def available_memory_bytes() -> int:
    """Return the memory that new processes can have without swapping."""
    text = _read("/proc/meminfo") or ""
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return machine.memory_bytes()


def _disk() -> Iterable[Finding]:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    what = f"{free / 2**30:.1f} GiB free in {here}"
    if not os.access(here, os.W_OK):
        yield Finding(
            "disk", "fail", f"{here} cannot be written to", "run in a folder of yours: records go to .pibench/"
        )
    elif free < LOW_DISK_BYTES:
        yield Finding("disk", "warn", what, "free some space: weights, material and records need room")
    else:
        yield Finding("disk", "ok", what)


def _accelerator() -> Iterable[Finding]:
    """Say which cards suites can name, with what decides how words are multiplied there."""
    import torch

    from pibench.mpc.gpu_inventory import gpus

    for number, card in enumerate(found := gpus()):
        room = f"{card.free_bytes / 2**30:.1f} of {card.total_bytes / 2**30:.1f} GiB free"
        what = f"cuda:{number}: {card.name}, capability {card.capability}, {room}, CUDA {torch.version.cuda}"
        yield Finding("accelerator", "ok", what)
    if not found:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield Finding("accelerator", "ok", f"none that torch ({built}) can use: suites run on the processor")


def _links() -> Iterable[Finding]:
    """Try each way of making a link, for real, and take it down again."""
    from pibench.links.link import Link, open_link

    remedies = {
        "netem": "needs the sch_netem kernel module, and root or user namespaces; `wire` and `paced` do without",
        "wire": "needs /dev/net/tun, and root or user namespaces; `paced` does without",
        "veth": "needs root or user namespaces; loopback does without",
        "paced": "this should work everywhere: please report it",
    }
    for how, remedy in remedies.items():
        wanted = Link(name="doctor", how=how) if how == "veth" else Link(name="doctor", rtt_ms=4.0, how=how)
        try:
            with open_link(wanted):
                yield Finding(f"link by {how}", "ok", "works")
        except (PibenchError, OSError) as error:
            said = getattr(error, "what", str(error)).splitlines()[0].rpartition(f"by {how}: ")[2]
            yield Finding(f"link by {how}", "fail" if how == "paced" else "warn", said, remedy)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text("ascii").strip()
    except (OSError, ValueError):
        return None
