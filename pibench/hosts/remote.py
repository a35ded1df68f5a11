"""Stands in for a process (the server's, a dealer's) that runs on another host: `python -m pibench.hosts.remote`.

To the harness it is a party like any other: a job on standard input, JSON lines on the results pipe, and the same end
(even the same signal) as the process over there. To the other host it is the caller.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, TextIO

from pibench.errors import EXIT_FAILED, EXIT_OK, PibenchError, TransportError
from pibench.hosts.conversation import Talk
from pibench.hosts.hosts import carried, greeted, hello
from pibench.links import netns
from pibench.links.controlpipe import ControlPipe
from pibench.links.tls import Identity, Wrapper
from pibench.session.job import Job

CALL_S = 15.0
READ_BYTES = 1 << 16
READY_S = 1800.0  # the other host may have to evaluate a network first


def main() -> int:
    """Carry the job over and everything back; returns the exit status of the process over there."""
    with suppress(OSError):
        netns.die_with_parent(signal.SIGKILL)
    control = ControlPipe(sys.stdin.fileno())
    while not (lines := control.lines()):
        if lines is None:
            return EXIT_FAILED
    job = Job.from_json(json.dumps(lines[0]))
    with os.fdopen(job.result_fd, "w", encoding="utf-8") as results:
        try:
            talk = call(job)
            for line in lines[1:]:
                talk.send({"tell": line})
            return _carry(talk, control, results)
        except PibenchError as error:
            _say(
                results,
                event="error",
                kind=type(error).__name__,
                what=error.what,
                where=error.where,
                remedy=error.remedy,
            )
            return EXIT_FAILED


def call(job: Job) -> Talk:
    """Call the other host, greet, and hand over the job."""
    values = carried(job)
    if job.role == "dealer":
        from pibench.hosts.dealing import structure_of

        values["remote"] = structure_of(job)
    host, port = job.connection["peer"]
    wrap = Wrapper(Identity.from_json(job.connection["identity"]), server=False)
    try:
        sock = socket.create_connection((host, port), timeout=CALL_S)
    except OSError as error:
        raise TransportError(
            f"nobody answers at {host}:{port}: {error}", remedy="start `pibench party --listen` there, open the port"
        ) from error
    talk = Talk(wrap(sock))
    talk.send(hello())
    greeted(talk.next(CALL_S))
    talk.send({"job": values})
    return talk


def _carry(talk: Talk, control: ControlPipe, results: TextIO) -> int:
    """Carry lines there and events back until the process over there has ended."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(talk, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select(1.0)}
            if control in ready:
                if (lines := control.lines()) is None:
                    return EXIT_FAILED  # the harness is gone; hanging up ends the process over there
                for line in lines:
                    talk.send({"tell": line})
            for message in talk.messages():
                if (status := _on(message, results)) is not None:
                    return status


def _on(message: dict[str, Any], results: TextIO) -> int | None:
    if "refused" in message:
        raise TransportError(
            f"the other host refuses the job: {message['refused']}", remedy=str(message.get("remedy", ""))
        )
    if "event" in message:
        _say(results, **message)
    if "output" in message:
        print(str(message["output"])[:READ_BYTES], flush=True)
    if "ended" not in message:
        return None
    if not isinstance(status := message["ended"], int) or not -64 <= status <= 255:
        raise TransportError("the other host says that its process ended in a way that there is not")
    return status


def _say(results: TextIO, **values: Any) -> None:
    results.write(json.dumps(values) + "\n")
    results.flush()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -status)
    os._exit(status if status != EXIT_OK else EXIT_OK)
