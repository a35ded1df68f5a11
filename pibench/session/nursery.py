"""Where party processes are forked from: a process that has imported torch once, and knows no secret.

`python -m pibench.session.nursery FD MODULE...` imports the modules (`module:function` is called too), then waits on
the socket for requests that carry three files (control, output, results), forks a party for each, and reports its
pid and, when it ends, its status. A party is a process of its own as much as one that was started from nothing, a few
seconds sooner: importing torch takes longer than most sessions. It dies with its harness like every party.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterable

from pibench.session import party

MAX_REQUEST_BYTES = 4096
ALWAYS = ("torch", "safetensors.torch", "pibench.session.connect", "pibench.mpc.protocol", "pibench.links.transport")


def main(arguments: list[str]) -> int:
    """Serve until the harness is gone."""
    party.die_with_parent()
    requests = socket.socket(fileno=int(arguments[0]))
    _load((*ALWAYS, *arguments[1:]))
    gc.collect()
    gc.freeze()
    _say(requests, ready=os.getpid())
    return _serve(requests)


def _load(names: Iterable[str]) -> None:
    """Import modules; call `module:function`. On one thread: a pool of threads would not survive a fork."""
    import torch

    torch.set_num_threads(1)
    for name in names:
        module, _, function = name.partition(":")
        loaded = importlib.import_module(module)
        if function:
            getattr(loaded, function)()


def _serve(requests: socket.socket) -> int:
    children: dict[int, int] = {}  # pidfd -> pid
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is requests:
                    data, fds, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 3)
                    if not data:
                        return _end(children)
                    pid = _fork(requests, fds, children)
                    children[(pidfd := os.pidfd_open(pid))] = pid
                    selector.register(pidfd, selectors.EVENT_READ)
                    _say(requests, pid=pid)
                else:
                    selector.unregister(key.fd)
                    pid = children.pop(key.fd)
                    os.close(key.fd)
                    _say(requests, ended=pid, status=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _fork(requests: socket.socket, fds: list[int], children: dict[int, int]) -> int:
    """Fork one party; in the child this does not return."""
    nursery = os.getpid()
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(OSError):  # the child does the same; whoever is first
            os.setpgid(pid, pid)
        return pid
    status = 3
    try:
        os.setpgid(0, 0)
        party.die_with_parent()
        if os.getppid() != nursery:
            os._exit(2)
        requests.close()
        for inherited in children:
            os.close(inherited)
        status = _become_party(*fds)
    finally:
        os._exit(status)  # never back into the nursery's loop


def _become_party(control: int, output: int, results: int) -> int:
    """Put the files where a party expects them, and be one."""
    import numpy as np

    for source, target in ((control, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(control)
    os.close(output)
    np.random.seed()  # a fork inherits the state; two parties must not share it
    status = party.main(results_fd=results)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _end(children: dict[int, int]) -> int:
    """End what still runs: the harness is gone."""
    for pid in children.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return 0


def _say(requests: socket.socket, **values: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        requests.sendall(json.dumps(values).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
