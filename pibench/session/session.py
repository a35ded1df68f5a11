"""A session: a fresh pair of party processes (and a dealer where the protocol wants one) that serves inferences.

Whatever happens (a party's death, silence, Ctrl-C, an error here), every process is ended before this module returns.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pibench.errors import PartyError, UsageError
from pibench.links.link import PROFILES, LinkUp
from pibench.links.transport import DEFAULT_TIMEOUT_S
from pibench.mpc.spec import Arrangement, spec_of
from pibench.session.children import Child, Children, Launch, note
from pibench.session.events import Event
from pibench.session.job import RANKS, Job
from pibench.session.launch import spawn

POLL_S = 0.25
FAILURE_GRACE_S = 3.0  # for the survivors to say how a failure looked to them
# below the range from which kernels hand out ports of outgoing connections, so that nobody takes one by accident
RENDEZVOUS_PORTS = range(18_000, 32_000)


@dataclass(frozen=True, kw_only=True)
class SessionPlan:
    """All that a session needs: public program, where each party finds its own secret, and how to run."""

    protocol: str
    program: list[dict[str, Any]]
    masks: str | None
    weights: str
    images: str
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 1
    threads: int = 1
    pin: bool = False
    device: str = "cpu"
    warmups: int = 1
    inferences: int = 1
    offline_chunk: int | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    deadline_s: float = 3600.0
    remote: dict[str, Any] | None = None  # what another host must know to make the same of the same card
    probe: bool = False  # have the parties measure the link over their own connection
    link: LinkUp = field(default_factory=lambda: LinkUp(PROFILES["loopback"]))


@dataclass
class SessionResult:
    """What the processes reported, as they reported it."""

    started_utc: str
    wall_s: float = 0.0
    setup: dict[str, Event] = field(default_factory=dict)  # by role: tally
    offline: dict[str, list[Event]] = field(default_factory=dict)  # by role: tallies, one a chunk
    online: dict[str, list[Event]] = field(default_factory=dict)  # by role: tallies, one a batch
    logits: list[list[list[float]]] = field(default_factory=list)  # batch, image, class
    served_s: list[float] = field(default_factory=list)  # when the client had each batch's answer, where phases overlap
    held_bytes: dict[str, int] = field(default_factory=dict)  # by role: one batch's material, where it is known
    peak_rss_bytes: dict[str, int] = field(default_factory=dict)
    probe: dict[str, float] | None = None
    wire: Event | None = None  # what the client's interface counted
    devices: dict[str, str | None] = field(default_factory=dict)  # by role: where its tensors were, None if nowhere
    backends: dict[str, str | None] = field(default_factory=dict)  # by role: what held them
    peak_device_bytes: dict[str, int | None] = field(default_factory=dict)  # by role: on a card


Progress = Callable[[str, int], None]  # phase, batches finished


def run_session(plan: SessionPlan, progress: Progress | None = None, launch: Launch = spawn) -> SessionResult:
    """Run one session; raises PartyError with both parties' reasons and last lines if it fails."""
    spec, options = spec_of(plan.protocol), dict(plan.options)
    arrangement = spec.arrangement(options)
    if arrangement.own_wire:
        options["rendezvous"] = f"{plan.link.host('server')}:{free_port()}"
    result = SessionResult(started_utc=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))
    with Children(launch) as children:
        token = secrets.token_hex(32)
        for role in arrangement.roles:
            job = _job(plan, role, options, arrangement, token)
            engine = plan.link.engine(role) or (spec.engine if role != "dealer" else None)
            children.start(job, plan.link.prefix(role), plan.link.environment(), engine)
        start = time.monotonic()  # only now: the first start may have imported torch for all that follow
        _Conductor(children, plan, result, progress).run(start + plan.deadline_s)
    result.wall_s = time.monotonic() - start
    _check_devices(plan.device, result.devices)
    return result


def free_port() -> int:
    """Return a port that nobody listens on, for wires that want a number beforehand (gloo's rendezvous)."""
    for port in random.SystemRandom().sample(RENDEZVOUS_PORTS, 64):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PartyError("no free port between 18000 and 32000 on 127.0.0.1", remedy="see what listens there: `ss -ltn`")


def _job(plan: SessionPlan, role: str, options: dict[str, Any], arrangement: Arrangement, token: str) -> Job:
    """Return one role's job: the weights are named to the server alone, the images to the client alone."""
    spec = spec_of(plan.protocol)
    module = arrangement.dealer if role == "dealer" else spec.module
    return Job(
        role=role, protocol=plan.protocol, module=str(module), program=plan.program, masks=plan.masks,
        weights=plan.weights if role == "server" else None, images=plan.images if role == "client" else None,
        options=options, batch=plan.batch, threads=plan.threads, cores=_cores(plan, role),
        device=device_of(plan.device, role), warmups=plan.warmups, inferences=plan.inferences,
        offline_chunk=plan.offline_chunk, dealer=arrangement.dealer is not None, beside=arrangement.beside,
        dealer_listens=arrangement.dealer is not None and plan.link.dealer_listens,
        timeout_s=plan.timeout_s, token=token, connection=plan.link.connection(role),
        interface=plan.link.interface, probe=plan.probe, remote=plan.remote if role == "server" else None,
    )  # fmt: skip


def device_of(devices: str, role: str) -> str:
    """Return a role's device: `cuda:0,cuda:1` are the server's and the client's, one alone is everybody's."""
    named = devices.split(",")
    return named[min(RANKS[role], len(named) - 1)] if role != "dealer" else named[0]


def _check_devices(asked: str, found: Mapping[str, str | None]) -> None:
    """Refuse a session whose tensors were elsewhere than the case says: no record may name a device that was idle."""
    for role, where in found.items():
        wanted = device_of(asked, role)
        if where is not None and where != wanted and where.partition(":")[0] != wanted:
            raise PartyError(f"the {role}'s tensors were on {where}, and the case says {wanted}")


def _cores(plan: SessionPlan, role: str) -> tuple[int, ...]:
    """Return the cores of a role when pinning: as many as it has threads, the dealer unpinned."""
    if not plan.pin or role == "dealer":
        return ()
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2 * plan.threads:
        raise UsageError(
            f"pin: true with {plan.threads} threads a party needs {2 * plan.threads} cores, this machine lends "
            f"{len(usable)}",
            remedy="lower threads, or set pin: false",
        )
    return tuple(usable[RANKS[role] * plan.threads :][: plan.threads])


class _Conductor:
    """Listens to the processes until they are done, one fails, or time is up."""

    def __init__(self, children: Children, plan: SessionPlan, result: SessionResult, progress: Progress | None) -> None:
        self._children, self._plan, self._result, self._progress = children, plan, result, progress
        self._addresses: dict[str, list[Any]] = {}

    def run(self, deadline: float) -> None:
        """Return when every process is done; raise PartyError otherwise."""
        while not all(child.done for child in self._children.all):
            for child, event in self._children.events(POLL_S):
                self._on(child, event)
            if any(child.error or (child.ended and not child.done) for child in self._children.all):
                self._children.settle(FAILURE_GRACE_S)
                raise self._failure("")
            if time.monotonic() > deadline:
                raise self._failure(f"the session was not done after {self._plan.deadline_s:.0f} s")

    def _on(self, child: Child, event: Event) -> None:
        note(child, event)
        result = self._result
        match event["event"]:
            case "listening":
                self._listening(child, event["address"])
            case "setup":
                result.setup[child.role] = event["tally"]
            case "offline":
                result.offline.setdefault(child.role, []).append(event["tally"])
                if event.get("held_bytes") is not None:
                    result.held_bytes[child.role] = event["held_bytes"]
            case "dealt" if event["tally"]:
                result.offline.setdefault("dealer", []).append(event["tally"])
            case "inference":
                result.online.setdefault(child.role, []).append(event["tally"])
                if "logits" in event:
                    result.logits.append(event["logits"])
                    result.served_s += [event["at_s"]] if event.get("at_s") is not None else []
            case "probe":
                result.probe = event["probe"]
            case "wire" if child.role == "client":
                result.wire = event
            case "done":
                result.peak_rss_bytes[child.role] = event["peak_rss_bytes"]
                result.devices[child.role] = event.get("device")
                result.backends[child.role] = event.get("backend")
                result.peak_device_bytes[child.role] = event.get("peak_device_bytes")
        if self._progress is not None and child.role == "client":
            self._progress(child.phase, len(result.online.get("client", ())))

    def _listening(self, child: Child, address: list[Any]) -> None:
        """Once all who listen have said where, tell those who dial."""
        self._addresses[child.role] = address
        if self._addresses.keys() == child.job.listeners.keys():
            for other in self._children.all:
                if dialled := child.job.dialled_by(other.role):
                    other.tell({role: self._route(other.role, role) for role in dialled})

    def _route(self, dialler: str, role: str) -> tuple[str, int]:
        host, port = self._addresses[role]
        return self._plan.link.route(dialler, role, (host, port))

    def _failure(self, why: str) -> PartyError:
        """Put both parties' reasons and last lines into one message, the likely cause first."""
        children = sorted(self._children.all, key=_blame)
        reasons = [f"{child.role}: {child.reason()}" for child in children]
        lines = [f"  {child.role} | {line}" for child in children for line in child.last_lines()]
        remedies = [str(child.error["remedy"]) for child in children if child.error and child.error.get("remedy")]
        if any(child.killed for child in children):
            remedies.insert(0, "`dmesg` tells whether memory ran out; a smaller batch or offline_chunk takes less")
        what = "; ".join(([why] if why else []) + reasons)
        return PartyError("\n".join([what, *lines]), remedy=remedies[0] if remedies else "")


def _blame(child: Child) -> int:
    """Order of suspicion: killed, then failed by itself, then failed by its wire, then the rest."""
    if child.ended and child.done is None and child.error is None:
        return 0
    if child.error is not None:
        return 2 if child.error["kind"] == "TransportError" else 1
    return 3
