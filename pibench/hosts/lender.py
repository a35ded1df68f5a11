"""`pibench party --listen`: lends this host's side of sessions to one pinned caller at a time.

Callers are greeted in threads of their own with a deadline, so that strangers neither delay nor disturb a session in
progress; each refusal is logged with its reason. A caller sends a card; the weights are this host's own checkpoints.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pibench.errors import PibenchError, TransportError, UsageError
from pibench.hosts.conversation import Talk
from pibench.hosts.hosts import accepted, greeted, hello
from pibench.library import find_documents
from pibench.links.callers import Callers, Log, say
from pibench.links.tls import Identity, Wrapper
from pibench.links.transport import listen
from pibench.session.children import Child, Children, note
from pibench.session.connect import HANDSHAKE_S, Address

POLL_S = 0.02
END_S = 2.0
MOST_IMAGES = 100_000
ASKED = {"card": str, "images": int, "seed": int, "merge": bool, "program": str}


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
    sessions: int = 0
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _ready: dict[tuple[str, int, int, bool], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._wrap = Wrapper(self.identity, server=True)
        self._folder = Path(tempfile.mkdtemp(prefix="pibench-party-"))
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

    def serve(self) -> None:
        """Accept callers until the listener is closed."""
        self._callers.serve()

    def close(self) -> None:
        """Accept no more callers, end the session that runs, and remove what was prepared."""
        if self._talk is not None:
            self._talk.hang_up()
        self._callers.close()
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

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
        prepared = self._prepared(values.get("remote"))
        if prepared.program.sha256 != values["remote"]["program"]:
            raise UsageError(
                "that program is not what this host makes of the card", remedy="same version, same checkpoint"
            )
        job = accepted(
            {**values, "program": prepared.ops},
            {"kind": "tls", "host": self.place[0], "port": self.data_port, "identity": self.identity.to_json()},
            {"weights": str(prepared.weights_path), "masks": str(prepared.masks_path) if prepared.masks_path else None},
        )
        self.sessions += 1
        self.log(f"session {self.sessions} for {caller}: {prepared.network.card}, {job.protocol}")
        with Children() as children:
            child = children.start(job)
            how = "ended"
            try:
                _carry(talk, children, child)
            except TransportError as error:  # the caller is gone, and with it the session
                how = "ended" if child.done else f"broken off ({error.what})"
            self.log(f"session {self.sessions} {how}: {child.reason()}")

    def _prepared(self, asked: Any) -> Any:
        """Return the network of the caller's card, with this host's weights; once a card and seed."""
        from pibench.networks.card import load_card
        from pibench.run.prepare import Needs, prepare_card

        if not isinstance(asked, dict) or any(not isinstance(asked.get(name), kind) for name, kind in ASKED.items()):
            raise UsageError("the job does not say which network it wants")
        key = (asked["card"], asked["images"], asked["seed"], asked["merge"])
        if key not in self._ready:
            if not 0 < asked["images"] <= MOST_IMAGES:
                raise UsageError(f"the job wants {asked['images']} images, this host goes up to {MOST_IMAGES}")
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            for known in find_documents("networks"):  # a card may name another one as its teacher
                (folder / known.name).symlink_to(known.resolve())
            path = folder / f"{_card_name(asked['card'])}.yaml"
            path.unlink(missing_ok=True)
            path.write_text(asked["card"], encoding="utf-8")
            needs = Needs(images=asked["images"], plain_images=0, seed=asked["seed"], merge=asked["merge"])
            self._ready[key] = prepare_card(load_card(path), folder, needs, self.log)
        return self._ready[key]


def _card_name(text: str) -> str:
    """Return the name that a card's text gives; what is no plain word becomes one that the card check refuses."""
    line = next((line for line in text.splitlines() if line.startswith("name:")), "")
    name = line.partition(":")[2].split("#")[0].strip().strip("\"'")
    return name if name and all(c.isalnum() or c in "._-" for c in name) and not name.startswith(".") else "unnamed"


def _carry(talk: Talk, children: Children, child: Child) -> None:
    """Carry events there and lines back until the process has ended or the caller is gone."""
    while not child.ended:
        for _, event in children.events(POLL_S):
            note(child, event)
            talk.send(event)
        _send_output(talk, child)
        for message in talk.messages():
            if "tell" in message:
                child.tell(message["tell"])
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
