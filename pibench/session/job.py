"""A job: all that one party process is told, once, as one line of JSON on its standard input.

The server's job alone names the weights, the client's alone the images; the token is good for one session.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from pibench.errors import UsageError
from pibench.links.transport import DEFAULT_TIMEOUT_S

ROLES = ("server", "client", "dealer")
RANKS = {"server": 0, "client": 1, "dealer": 2}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process of a session does."""

    role: str
    protocol: str
    module: str  # what this process imports for the protocol: its `PROTOCOL`, or the dealer's `serve`
    program: list[dict[str, Any]]  # Program.to_json()
    masks: str | None = None  # safetensors file with the program's public masks
    weights: str | None = None  # safetensors file; the server's only
    images: str | None = None  # safetensors file, tensor "images" (warmups + inferences) * batch; the client's only
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 1
    threads: int = 1
    cores: tuple[int, ...] = ()  # pinned to these; empty: wherever the kernel likes
    device: str = "cpu"
    warmups: int = 1
    inferences: int = 1
    offline_chunk: int | None = None  # make material for this many batches at a time; None: for all at once
    dealer: bool = False  # a third process deals
    beside: bool = False  # offline work has a connection of its own, beside the online phase
    dealer_listens: bool = False  # and both parties dial it, since it is on a host of its own
    timeout_s: float = DEFAULT_TIMEOUT_S  # longest silence of a peer
    token: str = field(repr=False)
    connection: dict[str, Any] = field(default_factory=lambda: {"kind": "loopback", "host": "127.0.0.1"})
    interface: str | None = None  # where the kernel counts the link's traffic, if it does
    probe: bool = False  # measure the link over the parties' own connection
    remote: dict[str, Any] | None = None  # for another host: the card's text, and how much of its data (hosts.py)
    result_fd: int = -1
    parent_pid: int = 0

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UsageError(f"no role is named {self.role!r}", remedy=f"choose one of {', '.join(ROLES)}")

    @property
    def rank(self) -> int:
        """0 for the server, 1 for the client, 2 for the dealer."""
        return RANKS[self.role]

    @property
    def listeners(self) -> dict[str, tuple[str, ...]]:
        """Who listens in this session, and for whom: those dial."""
        if not self.dealer:
            return {"server": ("client",)}
        if self.dealer_listens:
            return {"server": ("client",), "dealer": ("server", "client")}
        return {"server": ("client", "dealer"), "client": ("dealer",)}

    def dialled_by(self, role: str) -> list[str]:
        """Whom a role dials, in this order."""
        return [listener for listener, callers in self.listeners.items() if role in callers]

    @property
    def batches(self) -> int:
        """How many batches the session serves, warm-ups included."""
        return self.warmups + self.inferences

    def to_json(self) -> str:
        """Return the job as one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> Job:
        """Read a job; raises UsageError for one that is malformed."""
        try:
            values = json.loads(line)
            values["cores"] = tuple(values.get("cores", ()))
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"the job is malformed: {error}") from error
