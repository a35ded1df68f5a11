"""A user-space wire: two network namespaces, a TUN device in each, and this process carrying packets between them.

Run as `python -m pibench.links.tun '{...}'`. It prints one line of JSON when the wire is up, and carries packets until
its standard input closes or its parent ends. Parties are started inside with `nsenter` (see link.py). The kernel's own
TCP runs over it, so everything above works unchanged, and interface counters are an independent count of the bytes.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pibench.links import netns
from pibench.links.controlpipe import ControlPipe, be_punctual, say
from pibench.links.emulation import DelayLine

DEVICE = "tw0"
ADDRESSES = ("10.77.0.1", "10.77.0.2")  # server, client
BURST = 64  # packets read before due ones are written
JUMBO_FROM_MBIT_S = 500.0


def mtu_for(mbit_s: float | None) -> int:
    """Return a packet size that a Python process can carry at this rate."""
    return 65_000 if mbit_s is None or mbit_s >= JUMBO_FROM_MBIT_S else 9_000


class Wire:
    """Two TUN files and the two delay lines between them."""

    def __init__(self, fds: Sequence[int], lines: Sequence[DelayLine[bytes]]) -> None:
        self.fds = tuple(fds)
        self.lines = tuple(lines)  # lines[i] carries what fds[i] sends

    def run(self, control: ControlPipe) -> None:
        """Carry packets until `control` ends; a line on it changes the delay."""
        watched: list[Any] = [*self.fds, control]
        while True:
            now = time.monotonic()
            timeout = min(line.wait_s(now) for line in self.lines)
            ready = select.select(watched, (), (), timeout)[0] if timeout > 0 else ()
            if control in ready:
                if (told := control.lines()) is None:
                    return
                for line in self.lines:
                    line.delay_s = float(told[-1]["delay_s"]) if told else line.delay_s
            for fd, line in zip(self.fds, self.lines, strict=True):
                self._read(fd, line)
            for fd, line in zip(reversed(self.fds), self.lines, strict=True):
                self._write(fd, line)

    def _read(self, fd: int, line: DelayLine[bytes]) -> None:
        with suppress(BlockingIOError):
            for _ in range(BURST):
                packet = os.read(fd, 65_536)
                line.push(time.monotonic(), packet, len(packet))

    def _write(self, fd: int, line: DelayLine[bytes]) -> None:
        while (packet := line.pop(time.monotonic())) is not None:
            with suppress(OSError):  # a device that is down, or a full queue: the packet is lost, as on a real wire
                os.write(fd, packet)


def build(mtu: int) -> tuple[bool, list[int], list[int]]:
    """Make both namespaces; return whether in a user's, their files and their devices' files, server first."""
    user = netns.prepare()
    spaces, fds = [], []
    for address in ADDRESSES:
        spaces.append(netns.new_namespace())
        fds.append(netns.open_tun(DEVICE))
        netns.configure(DEVICE, address, mtu)
        netns.tune_tcp()
    return user, spaces, fds


def main(argv: list[str]) -> int:
    """Build the wire, say so, carry packets, and report what was carried."""
    netns.die_with_parent(signal.SIGKILL)
    link = json.loads(argv[1])
    mtu = link.get("mtu") or mtu_for(link.get("mbit_s"))
    try:
        user, spaces, fds = build(mtu)
    except OSError as error:
        say(error=str(error))
        return 1
    mbit_s = link.get("mbit_s")
    lines: list[DelayLine[bytes]] = [
        DelayLine(
            delay_s=(link.get("rtt_ms") or 0.0) / 2e3,
            bytes_per_s=mbit_s * 125_000 if mbit_s else None,
            loss=(link.get("loss_percent") or 0.0) / 100,
            rng=random.Random(f"{link.get('seed', 0)}/{side}"),
        )
        for side in range(2)
    ]
    if mbit_s:
        be_punctual()
    say(pid=os.getpid(), spaces=spaces, user=user, mtu=mtu, addresses=ADDRESSES)
    Wire(fds, lines).run(ControlPipe(sys.stdin.fileno()))
    used = os.times()
    dropped, passed = ([getattr(line, name) for line in lines] for name in ("dropped", "passed_bytes"))
    say(cpu_s=used.user + used.system, dropped=dropped, passed_bytes=passed)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
