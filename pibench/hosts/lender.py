"""`pibench party --listen`: lends this host's side of sessions to one pinned caller at a time.

Callers are greeted in threads of their own with a deadline, so that strangers neither delay nor disturb a session in
progress; each refusal is logged with its reason. A caller sends a card, or the name of a module; both are compared with
what this host lends, and the weights are its own.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pibench.errors import PibenchError, TransportError, UsageError
from pibench.hosts.asked import Wanted, wanted
from pibench.hosts.conversation import Talk
from pibench.hosts.hosts import Elsewhere, accepted, greeted, hello
from pibench.hosts.lent import LentNetworks
from pibench.links.callers import Callers, Log, say
from pibench.links.tls import Identity, Wrapper
from pibench.links.transport import listen
from pibench.mpc.spec import spec_of
from pibench.records.store import release_scratch, scratch_folder
from pibench.run.settings import OwnModel
from pibench.session.children import Child, Children, note
from pibench.session.connect import HANDSHAKE_S, Address
from pibench.session.job import Job

POLL_S = 0.02
END_S = 2.0
DEADLINE_S = 3600.0


def log_line(text: str) -> None:
    """Write one line of the log."""
    say(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + text)


@dataclass
class Lender:
    """Waits for callers, and runs one session's server at a time."""

    place: Address
    data_port: int
    identity: Identity
    log: Log = log_line
    cards: tuple[str, ...] = ()  # names or patterns of this host's own cards that callers may use
    models: tuple[OwnModel, ...] = ()  # modules of this host's own, likewise
    dealer: Elsewhere | None = None  # whose deals this host's servers take, from a host of its own
    deadline_s: float = DEADLINE_S  # of one session
    sessions: int = 0
    _busy: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._wrap = Wrapper(self.identity, server=True)
        self._folder = scratch_folder()
        self._lent = LentNetworks(self.cards, self._folder, lambda text: self.log(text), self.models)
        self._socket = listen(*self.place)
        self._callers = Callers(
            self._socket, self._question, self._admit, within_s=HANDSHAKE_S,
            log=lambda text: self.log(text),
        )  # fmt: skip
        self._talk: Talk | None = None  # of the session that runs

    @property
    def address(self) -> Address:
        """Where this host listens."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    @property
    def lent(self) -> list[str]:
        """Names of the cards and modules that callers may use."""
        return [*self._lent.cards(), *self._lent.models]

    def serve(self) -> None:
        """Accept callers until the listener is closed."""
        self._callers.serve()

    def close(self) -> None:
        """Accept no more callers, end the session that runs, and remove what was prepared."""
        if self._talk is not None:
            self._talk.hang_up()
        self._callers.close()
        self._socket.close()
        release_scratch(self._folder)

    def _question(self, sock: Any) -> tuple[Talk, dict[str, Any]]:
        """Return the connection to a pinned caller of the same version and its request; all within HANDSHAKE_S."""
        deadline = time.monotonic() + HANDSHAKE_S
        try:
            sock = self._wrap(sock)
            talk = Talk(sock)
            theirs = talk.next(deadline - time.monotonic())
            talk.send(hello())
            greeted(theirs)
            return talk, talk.next(deadline - time.monotonic())
        except BaseException:
            sock.close()
            raise

    def _admit(self, asked: tuple[Talk, dict[str, Any]], caller: str) -> None:
        """Run the caller's session, if nobody else's runs."""
        talk, request = asked
        if not self._busy.acquire(blocking=False):
            self.log(f"refused {caller}: busy")
            _tell(talk, {"refused": "it is busy with another session", "remedy": "try again later"})
            talk.close()
            return
        self._talk = talk
        try:
            self._session(talk, request, caller)
        except (PibenchError, OSError) as error:
            why = str(getattr(error, "what", error))
            self.log(f"refused {caller}: {why}")
            _tell(talk, {"refused": why, "remedy": getattr(error, "remedy", "")})
        finally:
            self._talk = None
            self._busy.release()
            talk.close()

    def _session(self, talk: Talk, request: dict[str, Any], caller: str) -> None:
        values = request.get("job")
        if not isinstance(values, dict):
            raise UsageError("this is no job")
        job, what = self._job(values)
        self.sessions += 1
        self.log(f"session {self.sessions} for {caller}: {what}, {job.protocol}")
        with Children() as children:
            child = children.start(job, engine=spec_of(job.protocol).engine if job.role == "server" else None)
            how = "ended"
            try:
                _carry(talk, children, child, time.monotonic() + self.deadline_s, self._told)
            except TransportError as error:  # the caller is gone, and with it the session
                how = "ended" if child.done else f"broken off ({error.what})"
            self.log(f"session {self.sessions} {how}: {child.reason()}")

    def _job(self, values: dict[str, Any]) -> tuple[Job, str]:
        """Return what the caller asks for, ready to run, and its network's name."""
        job = accepted(values, self._here(), {})  # all of it is checked before anything is prepared
        if job.dealer_listens and self.dealer is None:
            raise UsageError("this host knows no dealer", remedy="start it with --dealer HOST --trust-dealer FILE")
        asked = wanted(job.remote)
        prepared = self._prepared(asked)
        if prepared.program.sha256 != asked.program:
            raise UsageError(
                f"that program is not what this host makes of the {'card' if asked.card else 'module'}",
                remedy="same version, same checkpoint",
            )
        masks = str(prepared.masks_path) if prepared.masks_path else None
        job = dataclasses.replace(job, program=prepared.ops, weights=str(prepared.weights_path), masks=masks)
        return job, str(prepared.network.card)

    def _here(self) -> dict[str, Any]:
        """Return where this host's processes listen, and whom they trust."""
        here = {"kind": "tls", "host": self.place[0], "port": self.data_port, "identity": self.identity.to_json()}
        return here if self.dealer is None else {**here, "dealer_identity": self.dealer.identity.to_json()}

    def _told(self, line: Any) -> Any:
        """Return what a process is told of the addresses that it dials: the host is this one's own business."""
        if not isinstance(line, dict) or set(line) != {"dealer"} or self.dealer is None:
            raise TransportError("the caller says what this session has no use for")
        _, port = line["dealer"] if isinstance(line["dealer"], list) and len(line["dealer"]) == 2 else (None, None)
        if not isinstance(port, int) or not 0 < port < 65536:
            raise TransportError("the caller names a port that there is not")
        return {"dealer": [self.dealer.address[0], port]}

    def _prepared(self, asked: Wanted) -> Any:
        """Return the network that the caller means, with this host's weights."""
        return self._lent.prepared(asked)


def _carry(talk: Talk, children: Children, child: Child, deadline: float, told: Callable[[Any], Any]) -> None:
    """Carry events there and lines back until the process has ended, the caller is gone, or time is up."""
    while not child.ended:
        if time.monotonic() > deadline:
            raise TransportError("it took longer than this host lends a session")
        for _, event in children.events(POLL_S):
            note(child, event)
            talk.send(event)
        _send_output(talk, child)
        for message in talk.messages():
            if "tell" in message:
                child.tell(told(message["tell"]))
    children.settle(END_S)
    _send_output(talk, child)
    talk.send({"ended": child.process.wait(END_S)})


def _send_output(talk: Talk, child: Child) -> None:
    while child.output:
        talk.send({"output": child.output.popleft().decode("utf-8", "replace").rstrip("\n")})


def _tell(talk: Talk, message: dict[str, Any]) -> None:
    with suppress(TransportError):
        talk.send(message)


def default_data_port(place: Address) -> int:
    """Return the port of the parties' own connection: the next one, unless the kernel chooses."""
    return place[1] + 1 if place[1] else 0
