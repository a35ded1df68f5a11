"""The record: one JSON file with everything that a run produced. Raw samples only; statistics are derived from it.

docs/record.md describes every field. The models are frozen; a run grows its record by making a new one
(`with_session`) and saving it after every session (pibench.records.files).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "pibench-record/1"

PartKey = tuple[str, str, str]  # kind, stage, site
Status = Literal["pending", "done", "failed", "skipped", "invalid"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Tally(_Model):
    """What one phase cost one party; `wait_s` (blocked on a peer) is part of `time_s`."""

    time_s: float = 0.0
    wait_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    rounds: int = 0


class Parts(_Model):
    """One party's online phase by part: arrays aligned with the session's `parts`; they add up to the totals."""

    time_s: tuple[float, ...] = ()
    wait_s: tuple[float, ...] = ()
    sent_bytes: tuple[int, ...] = ()
    rounds: tuple[int, ...] = ()


class PartyOnline(Tally):
    """One party's side of one inference."""

    parts: Parts = Parts()


class Inference(_Model):
    """One batch through the network: `online_s` is the larger of the two parties' times."""

    warmup: bool = False
    online_s: float
    server: PartyOnline
    client: PartyOnline


class Setup(_Model):
    """Connection, weight sharing, what is opened once a model."""

    server: Tally
    client: Tally


class Held(_Model):
    """What each party holds of one batch between its offline and its online phase."""

    server: int
    client: int


class Sustained(_Model):
    """A steady state: so many batches were answered in these seconds, offline work of the next beside each."""

    inferences: int
    seconds: float


class Offline(_Model):
    """All that needs no input, for `inferences` batches; `dealer` only where a third process deals."""

    server: Tally
    client: Tally
    dealer: Tally | None = None
    inferences: int
    held_bytes: Held | None = None  # of the material of one batch; null: not known, or nothing waits


class Correctness(_Model):
    """Private logits against plaintext ones, over `n` images: same class, and how far off the worst logit is."""

    max_abs_logit_error: float | None  # null: some logit is not a finite number
    agreeing: int
    ties: int = 0  # another class, but the plaintext's two best are closer than the tolerance can tell apart
    n: int
    spread: float | None = None  # of the plaintext logits, what the tolerance is a share of; null: it was absolute


class Accuracy(_Model):
    """Correctly classified images out of `n`."""

    correct: int
    n: int


class PeakRss(_Model):
    """Largest resident memory of each party process over the session."""

    server: int
    client: int


class WireWay(_Model):
    """One direction of the link, at the client's end: the kernel's count beside the parties' own."""

    interface_bytes: int  # with headers and acknowledgements
    packets: int
    payload_bytes: int  # of setup, offline and online; the dealer's too
    ratio: float | None  # interface to payload


class Wire(_Model):
    """The wire, checked (pibench.run.wirecheck)."""

    sent: WireWay
    received: WireWay


class Place(_Model):
    """Where one party's tensors were, what held its secret words, and the most memory that took on a card."""

    device: str | None = None  # null: it computes nothing
    backend: str | None = None  # null: the protocol's own matter
    peak_device_bytes: int | None = None  # null: it was on no card


class Places(_Model):
    """Of both parties."""

    server: Place
    client: Place


class Session(_Model):
    """A fresh pair of party processes that serves inferences: the unit of independence for statistics."""

    index: int  # among the case's sessions
    order: int  # among all sessions of the run, as they were run (interleaved, randomised)
    started_utc: str
    wall_s: float = 0.0  # start of the processes to their end
    setup: Setup
    offline: Offline
    parts: tuple[PartKey, ...] = ()
    inferences: tuple[Inference, ...]
    sustained: Sustained | None = None  # only where offline work went on beside the online phase
    correctness: Correctness
    accuracy: Accuracy | None = None  # of the private logits; null where labels or trained weights are missing
    peak_rss_bytes: PeakRss
    places: Places | None = None  # null: the record was made before this was written down
    wire: Wire | None = None  # only where the link has an interface of its own


class Link(_Model):
    """What lay between the parties; `how` it was made (pibench.links.link); `probe`: what was measured on it."""

    name: str = "loopback"
    rtt_ms: float = 0.0  # 0: none added
    mbit_s: float | None = None  # null: as fast as it goes
    loss_percent: float = 0.0
    how: str = "none"
    mtu: int | None = None
    trim_ms: float = 0.0  # the emulator's own delay, taken out
    probe: dict[str, Any] | None = None

    @property
    def nominal(self) -> str:
        """What was asked for, in words."""
        rate = f"{self.mbit_s:g} Mbit/s" if self.mbit_s else "unlimited"
        return f"{self.name} {self.rtt_ms:g} ms {rate} by {self.how}"


class Network(_Model):
    """What was run: counts of the lowered program, and what is known of its accuracy."""

    card: str  # the card's name, or package.module:factory
    title: str = ""
    method: str = ""
    dataset: str | None = None
    sha256: str = ""  # of the card
    program_sha256: str = ""  # of the lowered program and its masks
    weights_sha256: str | None = None  # null: random weights
    relu_count: int = 0
    macs: int = 0
    macs_merged: int | None = None  # in the papers' counting
    macs_run: int | None = None  # of the program that ran: fewer than `macs` where linear neighbours were merged
    parameters: int = 0
    relu_rounds: int = 0
    published: tuple[dict[str, Any], ...] = ()
    checkpoint_accuracy: dict[str, Any] | None = None  # {accuracy (percent), n}: as the training measured it
    plain_accuracy: Accuracy | None = None  # of this lowered program in plaintext, on the first n test images
    note: str | None = None  # what is missing and why: no data set, random weights

    @property
    def macs_computed(self) -> int:
        """Multiplications of the program that ran (records made before merging hold none: `macs`)."""
        return self.macs_run or self.macs


class Declared(_Model):
    """Cost of one batch as the protocol declares it (pibench.mpc.protocol.Cost)."""

    rounds: int = 0
    server_bytes: int = 0
    client_bytes: int = 0
    offline_server_bytes: int = 0
    offline_client_bytes: int = 0
    dealer_bytes: int = 0
    offline_rounds: int = 0
    setup_server_bytes: int = 0
    setup_client_bytes: int = 0
    setup_rounds: int = 0


class Trust(_Model):
    """Whom a party trusts beside itself under a protocol with these options: a word or two, and one line."""

    short: str
    line: str


class Case(_Model):
    """One cell of the suite, with all of its sessions."""

    id: str  # <network>/<protocol>/<link>/<device>/b<batch>
    fingerprint: str = ""  # hash of all that decides what a session does: what --resume goes by
    network: Network
    protocol: str
    options: dict[str, Any] = Field(default_factory=dict)
    trust: Trust | None = None  # null: the record was made before this was written down
    link: Link = Link()
    device: str = "cpu"
    batch: int = 1
    threads: int = 1
    tolerance: float | None = None  # largest logit error of a valid case, as a share of the logits' spread
    status: Status = "pending"
    error: str | None = None
    declared: Declared | None = None
    sessions: tuple[Session, ...] = ()

    @property
    def setting(self) -> str:
        """What must be the same where times are compared, in words: threads and nominal link."""
        return f"{self.threads} thread{'s' if self.threads > 1 else ''} a party, {self.link.nominal}"

    @property
    def measured(self) -> tuple[tuple[Inference, ...], ...]:
        """Inferences after warm-up, session by session."""
        return tuple(tuple(i for i in s.inferences if not i.warmup) for s in self.sessions)


class SuiteInfo(_Model):
    """The suite as it was read: enough to run it again."""

    name: str
    path: str = ""
    sha256: str = ""
    text: str = ""


class Machine(_Model):
    """Where it ran; times are comparable between records of one `key` only."""

    key: str
    cpu: str = ""
    cores: int = 0
    memory_bytes: int = 0
    os: str = ""
    governor: str | None = None
    load_1min: float | None = None


class Git(_Model):
    """The working tree that ran, where there is one."""

    commit: str | None = None
    dirty: bool | None = None


class Record(_Model):
    """One run."""

    schema_: str = Field(SCHEMA, alias="schema")
    id: str
    created_utc: str
    finished: bool = False
    pibench_version: str
    command: tuple[str, ...] = ()
    seed: int = 0
    suite: SuiteInfo
    machine: Machine
    versions: dict[str, str | None] = Field(default_factory=dict)
    git: Git = Git()
    cases: tuple[Case, ...] = ()

    def case(self, case_id: str) -> Case:
        """Return the case of that id; KeyError where there is none."""
        for case in self.cases:
            if case.id == case_id:
                return case
        raise KeyError(case_id)

    def with_case(self, case: Case) -> Record:
        """Return this record with the case of that id replaced (or added at the end)."""
        cases = [case if old.id == case.id else old for old in self.cases]
        if all(old.id != case.id for old in self.cases):
            cases.append(case)
        return self.model_copy(update={"cases": tuple(cases)})

    def with_session(self, case_id: str, session: Session) -> Record:
        """Return this record with one more session of a case."""
        case = self.case(case_id)
        return self.with_case(case.model_copy(update={"sessions": (*case.sessions, session)}))
