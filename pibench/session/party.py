"""One process of a session: `python -m pibench.session.party` with a job on standard input.

Standard input is the control pipe: the job, then where the others listen; its end means that the harness is gone, and
so is this process. Results go as JSON lines to a pipe of their own, so that nothing printed can be taken for one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from pibench.errors import EXIT_FAILED, EXIT_INTERNAL, EXIT_OK, PibenchError, TransportError, UsageError
from pibench.session.turn import Turn

if TYPE_CHECKING:
    from torch import Tensor

    from pibench.links.meter import Meter, Tally
    from pibench.links.transport import Channel
    from pibench.lowering.program import Program
    from pibench.mpc.protocol import Party, Protocol
    from pibench.session.connect import Address, Sockets
    from pibench.session.job import Job

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
PR_SET_PDEATHSIG = 1


class Control:
    """The control pipe, read by a thread: lines for who asks, and the end of this process at its end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._stream = stream
        threading.Thread(target=self._watch, daemon=True).start()

    def line(self) -> bytes:
        """Wait for the next line."""
        return self._lines.get()

    def _watch(self) -> None:
        for line in self._stream:
            self._lines.put(line)
        os._exit(EXIT_FAILED)  # the harness is gone: nobody is left to report to


class Reports:
    """The pipe to the harness, and what the connector asks of it."""

    def __init__(self, fd: int, control: Control) -> None:
        self._file = os.fdopen(fd, "w", encoding="utf-8")
        self._control = control

    def say(self, event: str, **values: Any) -> None:
        """Report one event."""
        self._file.write(json.dumps({"event": event, **values}) + "\n")
        self._file.flush()

    def announce(self, address: Address) -> None:
        """Tell the harness where this process listens."""
        self.say("listening", address=list(address))

    def addresses(self) -> dict[str, Address]:
        """Wait for the harness to say where the others listen."""
        return {role: (host, port) for role, (host, port) in json.loads(self._control.line()).items()}


def main(results_fd: int | None = None) -> int:
    """Do the job on standard input; returns the exit status. `results_fd` goes before the job's (a forked party)."""
    die_with_parent()
    control = Control(sys.stdin.buffer)
    from pibench.session.job import Job

    job = Job.from_json(control.line())
    if results_fd is None and job.parent_pid and os.getppid() != job.parent_pid:
        return EXIT_FAILED
    reports = Reports(job.result_fd if results_fd is None else results_fd, control)
    try:
        _serve(job, reports)
    except PibenchError as error:
        reports.say("error", kind=type(error).__name__, what=error.what, where=error.where, remedy=error.remedy)
        return EXIT_FAILED
    except Exception as error:  # reported to the harness with its kind, whatever it is
        traceback.print_exc()
        sys.stderr.flush()
        reports.say("error", kind=type(error).__name__, what=f"{type(error).__name__}: {error}", where="", remedy="")
        return EXIT_INTERNAL
    return EXIT_OK


def die_with_parent() -> None:
    """Ask the kernel to end this process with its parent, even one that is killed outright."""
    with contextlib.suppress(OSError, AttributeError):  # elsewhere than on Linux the control pipe does it
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def keep_freed_memory() -> None:
    """Let malloc keep what is freed (glibc; elsewhere nothing happens): large arrays come and go at every operation.

    By default each of them is mapped anew and its pages are cleared by the kernel one fault at a time, in the midst of
    what is measured.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest that it takes
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def _serve(job: Job, reports: Reports) -> None:
    """Connect (listening begins before the slow imports), then run the phases."""
    if job.cores:
        os.sched_setaffinity(0, job.cores)
    keep_freed_memory()
    from pibench.session.connect import connector

    complete = connector(job)(job, reports)
    reports.say("phase", phase="import")
    import torch

    torch.set_num_threads(job.threads)
    if job.role == "dealer":
        _deal(job, complete, reports)
        reports.say("done", peak_rss_bytes=peak_rss_bytes())
    else:
        where = _take_part(job, complete, reports)
        reports.say("done", peak_rss_bytes=peak_rss_bytes(), **where)


def _deal(job: Job, complete: Callable[[], Sockets], reports: Reports) -> None:
    """Run the dealer; what it returns is its tally."""
    import importlib

    dealer = importlib.import_module(job.module)
    sockets = complete()
    reports.say("phase", phase="dealing")
    tally = dealer.serve(job, sockets["server"], sockets["client"])
    reports.say("dealt", tally=tally)


def _take_part(job: Job, complete: Callable[[], Sockets], reports: Reports) -> dict[str, Any]:
    """Run one party: setup, then offline and online in turn; returns where its tensors were, and what held them."""
    from pibench.links.meter import Meter
    from pibench.mpc.gpu_inventory import peak_bytes
    from pibench.mpc.protocol import implementation

    cls = implementation(job.module)
    program, weights, images = _read_inputs(job)
    meter, aside = Meter(), Meter()
    reports.say("phase", phase="setup")
    with meter.phase() as setup, aside.phase() as setup_aside:
        party = _party(job, complete(), meter, aside)
        peer = party.peer
        _agree_and_probe(job, peer, program.sha256, reports)
        counted = _Counted(job.interface)
        runner = cls(program, party)
        runner.setup(weights)
    setup.include(setup_aside)
    reports.say("setup", tally=setup.to_json())
    counted.add(setup.total)
    run = _run_overlapped if job.beside else _run_batches
    try:
        run(job, runner, meter, images, reports, counted)
        peer.barrier()  # nobody hangs up on a peer who still works
        counted.report(reports)
        device = runner.device()
        return {"device": device, "backend": runner.backend_name(), "peak_device_bytes": peak_bytes(device)}
    finally:
        with contextlib.suppress(Exception):  # what matters has been reported
            runner.close()
        peer.close()


def _party(job: Job, sockets: Sockets, meter: Meter, aside: Meter) -> Party:
    """Return this side of the session; what goes on beside the online phase has channels and a meter of its own."""
    from pibench.links.transport import Channel
    from pibench.mpc.protocol import SERVER, Party
    from pibench.session.connect import OFFLINE

    offline = aside if job.beside else meter
    peer = Channel(sockets["client" if job.rank == SERVER else "server"], meter, job.timeout_s)
    dealer = Channel(sockets["dealer"], offline, job.timeout_s) if job.dealer else None
    party = Party(job.rank, peer, meter, dealer, job.device, job.batch, dict(job.options))
    if job.beside:
        party.beside = replace(party, peer=Channel(sockets[OFFLINE], offline, job.timeout_s), meter=offline)
    return party


def _agree_and_probe(job: Job, peer: Channel, program_sha256: str, reports: Reports) -> None:
    """Stop before anything depends on a secret if the parties would not run the same; measure the link if asked."""
    from pibench.links.probe import probe
    from pibench.session.handshake import agree, offer

    agree(
        peer,
        offer(
            protocol=job.protocol, program=program_sha256, options=job.options, batch=job.batch, batches=job.batches,
            offline_chunk=job.offline_chunk, probe=job.probe,
        ),
    )  # fmt: skip
    if job.probe:
        reports.say("probe", probe=probe(peer, leads=job.role == "client").to_json())


class _Counted:
    """What the kernel counts on the link's interface beside what this party counts."""

    def __init__(self, interface: str | None) -> None:
        self._interface = interface
        self._before = self._now()
        self._total = {"sent_bytes": 0, "received_bytes": 0, "rounds": 0}

    def add(self, tally: Tally) -> None:
        """Count a phase."""
        for name in self._total:
            self._total[name] += getattr(tally, name)

    def report(self, reports: Reports) -> None:
        """Report both counts, where there is an interface."""
        if after := self._now():
            interface = {name: count - self._before[name] for name, count in after.items()}
            reports.say("wire", interface=interface, **self._total)

    def _now(self) -> dict[str, int]:
        from pibench.links.netns import interface_bytes

        return interface_bytes(self._interface) if self._interface else {}


def _run_batches(
    job: Job, runner: Protocol, meter: Any, images: Tensor | None, reports: Reports, counted: _Counted
) -> None:
    gc.collect()
    gc.freeze()  # what setup made stays; collecting it again in the middle of a batch would be noise
    chunk, turn = job.offline_chunk or job.batches, Turn(job.role)
    for index in range(job.batches):
        turn.take()
        if index % chunk == 0:
            counted.add(_offline(runner, meter, min(chunk, job.batches - index), reports))
        counted.add(_online(runner, meter, _images_of(job, images, index), index, reports))
    turn.leave()


def _run_overlapped(
    job: Job, runner: Protocol, meter: Any, images: Tensor | None, reports: Reports, counted: _Counted
) -> None:
    """Serve all batches while a thread makes material for the next ones; tells when each was served."""
    from pibench.session.overlap import Ahead

    if Turn(job.role).shared:
        raise UsageError("sessions that overlap take no turns with others", remedy="measure them by `pibench run`")
    gc.collect()
    gc.freeze()
    assert runner.party.beside is not None
    reports.say("phase", phase="offline")
    start, ahead = time.perf_counter(), Ahead(runner, runner.party.beside, job.batches, job.offline_chunk or 1)
    try:
        for index in range(job.batches):
            made = ahead.take()
            counted.add(made.total)
            reports.say("offline", tally=made.to_json(), batches=1, held_bytes=runner.held_bytes())
            batch = _images_of(job, images, index)
            counted.add(_online(runner, meter, batch, index, reports, since=start))
    except TransportError:
        if ahead.failure is not None:  # which this is but a consequence of
            raise ahead.failure from None
        raise


def _images_of(job: Job, images: Tensor | None, index: int) -> Tensor | None:
    return None if images is None else images[index * job.batch : (index + 1) * job.batch]


def _offline(runner: Protocol, meter: Any, batches: int, reports: Reports) -> Tally:
    reports.say("phase", phase="offline")
    runner.party.peer.barrier()
    with meter.phase() as tally:
        runner.offline(batches)
    reports.say("offline", tally=tally.to_json(), batches=batches, held_bytes=runner.held_bytes())
    total: Tally = tally.total
    return total


def _online(
    runner: Protocol, meter: Any, batch: Tensor | None, index: int, reports: Reports, since: float | None = None
) -> Tally:
    """One inference: from the barrier to the client's logits; no garbage collection inside."""
    reports.say("phase", phase="online", index=index)
    gc.collect()
    gc.disable()
    try:
        runner.party.peer.barrier()
        with meter.phase() as tally:
            logits = runner.online(batch)
    finally:
        gc.enable()
    runner.settle()
    answer: dict[str, Any] = {} if logits is None else {"logits": logits.tolist()}
    if since is not None:
        answer["at_s"] = time.perf_counter() - since
    reports.say("inference", index=index, tally=tally.to_json(), **answer)
    total: Tally = tally.total
    return total


def _read_inputs(job: Job) -> tuple[Program, dict[str, Tensor] | None, Tensor | None]:
    """Read the public program, and this party's own secret: weights on the server, images on the client."""
    from safetensors.torch import load_file

    from pibench.lowering.program import Program, load_masks

    weights = load_file(job.weights) if job.weights else None
    images = load_file(job.images)["images"] if job.images else None
    return Program.from_json(job.program, load_masks(job.masks)), weights, images


def peak_rss_bytes() -> int:
    """Return the largest resident memory so far (ru_maxrss would count the parent's, from before the exec)."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # libraries' exit handlers (gloo's threads) may hang or abort; everything is flushed and closed
