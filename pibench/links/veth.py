"""Two namespaces joined by the kernel's virtual cable, with netem on both ends where the kernel has it.

Run as `python -m pibench.links.veth '{...}'`; it holds the namespaces until its standard input closes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from pibench import processes
from pibench.links import netns
from pibench.links.controlpipe import ControlPipe, say
from pibench.links.tun import ADDRESSES, DEVICE

MTU = 1500


def netem_command(link: dict[str, Any], delay_s: float | None = None) -> list[str]:
    """Return the command that puts half of a link on this end of the cable."""
    delay_s = (link.get("rtt_ms") or 0.0) / 2e3 if delay_s is None else delay_s
    command = ["tc", "qdisc", "replace", "dev", DEVICE, "root", "netem", "limit", "100000"]
    command += ["delay", f"{delay_s * 1e6:.0f}us"] if delay_s else []
    command += ["rate", f"{link['mbit_s'] * 1e6:.0f}bit"] if link.get("mbit_s") else []
    return command + (["loss", f"{link['loss_percent']:g}%"] if link.get("loss_percent") else [])


def _do(command: list[str], namespace: int | None = None) -> None:
    prefix = [] if namespace is None else ["nsenter", f"--net=/proc/{os.getpid()}/fd/{namespace}", "--"]
    done = subprocess.run([*prefix, *command], capture_output=True, text=True)
    if done.returncode:
        raise OSError(0, f"{' '.join(command[:2])}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")


def build() -> tuple[bool, list[int]]:
    """Make both namespaces and the cable; return whether in a user's, and their files, server first.

    This process ends up in the client's namespace, so that `ip link` can name it by the process.
    """
    user = netns.prepare()
    spaces = [netns.new_namespace(), netns.new_namespace()]
    _do(["ip", "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", str(os.getpid())], spaces[0])
    netns.configure(DEVICE, ADDRESSES[1], MTU)
    netns.tune_tcp()
    _do(processes.command("pibench.links.veth", "configure"), spaces[0])
    return user, spaces


def emulate(link: dict[str, Any], spaces: list[int], delay_s: float | None = None) -> None:
    """Put netem on both ends; raises OSError where the kernel has none."""
    for space in spaces:
        _do(netem_command(link, delay_s), space)


def main(argv: list[str]) -> int:
    """Build the cable, say so, and hold it."""
    if argv[1] == "configure":
        netns.configure(DEVICE, ADDRESSES[0], MTU)
        netns.tune_tcp()
        return 0
    netns.die_with_parent(signal.SIGKILL)
    link = json.loads(argv[1])
    try:
        user, spaces = build()
        if link.get("netem"):
            emulate(link, spaces)
    except OSError as error:
        say(error=error.strerror or str(error))
        return 1
    say(pid=os.getpid(), spaces=spaces, user=user, mtu=MTU, addresses=ADDRESSES)
    control = ControlPipe(sys.stdin.fileno())
    while (lines := control.lines()) is not None:
        for line in lines:
            emulate(link, spaces, float(line["delay_s"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
