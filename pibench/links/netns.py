"""Anonymous network namespaces and TUN devices, by system call: nothing to clean up, because nothing has a name.

A namespace lives as long as a process or an open file refers to it, and a TUN device as long as its file is open, so
whatever ends the process that made them (a kill included) removes both. An ordinary user gets them inside a user
namespace, where the kernel allows those.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PR_SET_TIMERSLACK = 29

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFMTU, SIOCSIFTXQLEN = 0x8916, 0x891C, 0x8922, 0x8943
IFF_UP = 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def die_with_parent(signal_number: int) -> None:
    """Have the kernel end this process when its parent ends."""
    _call("prctl", PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def sharp_timers() -> None:
    """Let sleeps end on time instead of up to 50 microseconds late."""
    _call("prctl", PR_SET_TIMERSLACK, 1, 0, 0, 0)


def prepare() -> bool:
    """Become able to make network namespaces; True if that took a user namespace (this user is root in it)."""
    uid, gid = os.getuid(), os.getgid()
    try:
        _call("unshare", CLONE_NEWNET)
        return False
    except PermissionError:
        _call("unshare", CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    return True


def new_namespace() -> int:
    """Move this process into a fresh network namespace with `lo` up; return a file descriptor that holds it."""
    _call("unshare", CLONE_NEWNET)
    set_up("lo")
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def set_up(device: str) -> None:
    """Switch a device on."""
    name = device.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        flags = struct.unpack("16sH14x", fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sH14x", name, 0)))[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", name, flags | IFF_UP))


def configure(device: str, address: str, mtu: int | None = None, queue_packets: int = 10_000) -> None:
    """Give a device its IPv4 address (in a /24), its MTU and its queue, and switch it on."""
    name = device.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.0")):
            fcntl.ioctl(sock, request, struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(value)))
        if mtu is not None:
            fcntl.ioctl(sock, SIOCSIFMTU, struct.pack("16si12x", name, mtu))
        with suppress(PermissionError):  # a user's namespace has to do with the default
            fcntl.ioctl(sock, SIOCSIFTXQLEN, struct.pack("16si12x", name, queue_packets))
    set_up(device)


def open_tun(device: str) -> int:
    """Create a TUN device in the current namespace; it carries whole IP packets and goes when the file is closed."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH14x", device.encode(), IFF_TUN | IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd


def tune_tcp() -> None:
    """Make TCP in the current namespace a warm pipe: no slow start after a pause, no pacing, no probing of its own."""
    base = Path("/proc/sys/net/ipv4")
    for name, value in (
        ("tcp_slow_start_after_idle", "0"),
        ("tcp_congestion_control", "reno"),
        ("tcp_rmem", "4096 4194304 33554432"),
        ("tcp_wmem", "4096 4194304 33554432"),
    ):
        try:
            (base / name).write_text(value)
        except OSError:
            continue  # a kernel without the knob: the probe says what the link became


def interface_bytes(device: str) -> dict[str, int]:
    """Return what the kernel counted on a device of this process's namespace: received and sent bytes and packets."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == device:
            n = [int(word) for word in numbers.split()]
            return {"received_bytes": n[0], "received_packets": n[1], "sent_bytes": n[8], "sent_packets": n[9]}
    return {}
