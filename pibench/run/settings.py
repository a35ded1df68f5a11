"""What a run will do, before it does anything: cases, settings, order. No torch here: a plan must come at once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pibench.errors import NothingSelected, UsageError
from pibench.run.selection import matches

if TYPE_CHECKING:
    from pibench.records.record import Case, Record, SuiteInfo

STARTED_AND_READY_S = 1.5  # a forked session that has served nothing yet
GUESS_INFERENCE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class CasePlan:
    """One cell of the suite: what runs, how, over what."""

    network: str  # a card's name, or package.module:factory
    protocol: str
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""  # sets two option sets of one protocol apart in the id
    link: Mapping[str, Any] = field(default_factory=lambda: {"name": "loopback", "how": "none"})
    device: str = "cpu"
    batch: int = 1
    threads: int = 1
    tolerance: float = 0.01

    @property
    def id(self) -> str:
        """<network>/<protocol>/<link>/<device>/b<batch>."""
        protocol = f"{self.protocol}+{self.label}" if self.label else self.protocol
        return f"{self.network}/{protocol}/{self.link['name']}/{self.device}/b{self.batch}"


@dataclass(frozen=True)
class Needs:
    """What the run wants of a network."""

    images: int  # for private inference
    plain_images: int  # for accuracy in plaintext
    seed: int
    merge: bool = True  # linear neighbours, where that takes fewer multiplications


@dataclass(frozen=True)
class OwnModel:
    """A user's network: `package.module:factory`, its input, and where its weights and images come from."""

    factory: str
    input_shape: tuple[int, ...]
    weights: Path | None = None
    dataset: str | None = None  # a name, or a folder of pictures in folders of classes
    normalise: tuple[float, ...] | None = None  # means and deviations instead of the data set's
    output: str | None = None  # which one, of a network that returns several
    label: str = ""  # what tables and figures call it
    method: str | None = None  # how its ReLUs were reduced

    @property
    def name(self) -> str:
        """What its cases are called."""
        return self.label or self.factory


@dataclass(frozen=True)
class CardSource:
    """A card, by name or path, and a checkpoint of the user's in place of its own."""

    card: str
    weights: Path | None = None


Source = CardSource | OwnModel


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A whole run."""

    suite: SuiteInfo
    cases: tuple[CasePlan, ...]
    sources: Mapping[str, Source]  # where each network named by a case comes from
    sessions: int = 3
    inferences: int = 5
    warmups: int = 1
    seed: int = 0
    pin: bool = False
    interleave: bool = True
    offline_chunk: int | None = None
    timeout_s: float = 60.0
    deadline_s: float = 3600.0
    accuracy_images: int = 1000
    merge: bool = True
    firm_s: float = 0.0  # that more sessions of cheap cases may take, until their intervals are narrow
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids = [case.id for case in self.cases]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise UsageError(f"the suite names a case twice: {twice[0]}", where=self.suite.path)

    @property
    def images(self) -> int:
        """How many images the largest case of all sessions takes."""
        largest = max((case.batch for case in self.cases), default=1)
        return self.sessions * (self.warmups + self.inferences) * largest

    def fingerprint(self, case: CasePlan, program_sha256: str, weights_sha256: str) -> str:
        """Return the hash of all that decides what a session of a case does."""
        own = dataclasses.asdict(case)
        del own["tolerance"]
        shared = [self.inferences, self.warmups, self.pin, self.offline_chunk]
        text = json.dumps([own, shared, program_sha256, weights_sha256], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def order(self) -> list[tuple[int, CasePlan]]:
        """Return (session index, case) in the order of running.

        Every case has its first session before any has its second, in an order drawn anew for each round, so that
        what changes on the machine during the run falls on all cases alike. Without interleaving, case after case.
        """
        if not self.interleave:
            return [(index, case) for case in self.cases for index in range(self.sessions)]
        chance, found = random.Random(self.seed), []
        for index in range(self.sessions):
            shuffled = list(self.cases)
            chance.shuffle(shuffled)
            found += [(index, case) for case in shuffled]
        return found


def select(cases: Iterable[CasePlan], expression: str | None) -> tuple[CasePlan, ...]:
    """Return the cases whose id fits a `-k` expression; NothingSelected where none does."""
    chosen = tuple(case for case in cases if expression is None or matches(expression, case.id))
    if not chosen:
        remedy = "`pibench run SUITE --dry-run` lists the cases" if expression else "the suite names no case"
        raise NothingSelected(f"no case is selected by {expression!r}" if expression else "no case", remedy=remedy)
    return chosen


def estimate_s(plan: RunPlan, records: Sequence[Record]) -> dict[str, tuple[float, bool]]:
    """Return for each case its expected time, and whether earlier runs say so (else it is a guess)."""
    known: dict[str, Case] = {}
    for record in records:  # oldest first: the newest counts
        known.update({case.id: case for case in record.cases if case.sessions})
    found = {}
    for case in plan.cases:
        served = plan.sessions * (plan.warmups + plan.inferences)
        earlier = known.get(case.id)
        if earlier is None:
            found[case.id] = (plan.sessions * STARTED_AND_READY_S + served * GUESS_INFERENCE_S, False)
            continue
        online = sum(i.online_s for s in earlier.sessions for i in s.inferences)
        count = sum(len(s.inferences) for s in earlier.sessions)
        rest = (sum(s.wall_s for s in earlier.sessions) - online) / len(earlier.sessions)
        found[case.id] = (plan.sessions * max(rest, 0.0) + served * online / max(count, 1), True)
    return found
