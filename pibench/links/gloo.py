"""A process group of two over gloo, for protocols that bring torch's own wire.

Torch's store listens on every interface, to whoever finds its port. Here the server binds the listener itself, on the
link's address alone, and hands it over. Gloo proves nobody's identity all the same: docs/security.md.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import torch.distributed as dist

LOOPBACK = ("127.", "localhost")


def join(host: str, port: int, timeout_s: float, listener: socket.socket | None = None) -> None:
    """Join the group whose store is at this address: the server, rank 0, with the socket that listens there.

    The listener belongs to the store from here on. Raises RuntimeError or ValueError where there is no group in time.
    """
    if host.startswith(LOOPBACK):
        # whatever they say: gloo would listen on another interface, or on the host name's
        os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "GLOO_DEVICE_TRANSPORT": "TCP"}
    serves, timeout = listener is not None, timedelta(seconds=timeout_s)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, 2, is_master=serves, timeout=timeout, wait_for_workers=False,
        master_listen_fd=listener.detach() if listener is not None else None,
    )  # fmt: skip
    dist.init_process_group("gloo", store=store, rank=0 if serves else 1, world_size=2, timeout=timeout)
