"""The measures of a case: name, unit, direction, and whether a number is exact (counted) or statistical (timed).

One table, `MEASURES`; comparison, gate, history and exports know nothing about records beyond it, and a report's view
reads sessions by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pibench.errors import UsageError
from pibench.records.record import Accuracy, Case, Inference, Session
from pibench.records.stats import Estimate, median_interval
from pibench.records.warmup import without_warmup

Samples = list[list[float]]  # session by session
ONCE_AT_MOST_BYTES = 4096  # greetings and lengths; more is material


@dataclass(frozen=True)
class Answers:
    """How many answers a share is of, and how many of them stand on the edge between two classes."""

    n: int
    ties: int


@dataclass(frozen=True)
class Measure:
    """What is compared: `exact` measures are counted and equal in every inference, the others are samples."""

    name: str
    unit: str
    title: str
    read: Callable[[Case], Samples]
    exact: bool
    better: Literal["lower", "higher"] = "lower"
    gated: bool = True  # judged without being asked for
    tolerance: float = 0.0  # relative; absolute for `share`s
    sees: float = 0.05  # the relative change that a sample should be able to see (statistical measures)
    answers: Callable[[Case], Answers] | None = None  # of a share of answers, whose right ones may change by chance

    def worse(self, base: float, head: float) -> bool:
        """Whether `head` is worse than `base` at all."""
        return head > base if self.better == "lower" else head < base

    def samples(self, case: Case) -> Samples:
        """Return the case's values by session; empty where the case has none."""
        return [values for values in self.read(case) if values]

    def value(self, case: Case) -> float | None:
        """Return the one value of an exact measure: the worst seen, None where there is none."""
        values = [value for session in self.samples(case) for value in session]
        if not values:
            return None
        return max(values) if self.better == "lower" else min(values)

    def varies(self, case: Case) -> bool:
        """Whether an exact measure was not the same in every inference (then it is not exact, and that is said)."""
        return self.exact and len({value for session in self.samples(case) for value in session}) > 1


def _each(of: Callable[[Inference], float]) -> Callable[[Case], Samples]:
    return lambda case: [[of(inference) for inference in session] for session in case.measured]


def _session(of: Callable[[Session], float | None]) -> Callable[[Case], Samples]:
    return lambda case: [[value] for session in case.sessions if (value := of(session)) is not None]


def _network(of: Callable[[Case], float | None]) -> Callable[[Case], Samples]:
    return lambda case: [[value]] if (value := of(case)) is not None else []


def offline_sent(case: Case, session: Session) -> tuple[int, int]:
    """Return what all senders sent offline: bytes an inference (a batch), and bytes a session (greetings).

    Both are whole numbers. A session's own bytes are what is left over what the protocol declares a batch, where that
    is little; divided by the inferences they would make a count depend on how many there were.
    """
    total, batches, said = offline_total_bytes(session), max(1, session.offline.inferences), case.declared
    declared = said.offline_server_bytes + said.offline_client_bytes + said.dealer_bytes if said else 0
    once = total - declared * batches
    return (declared, once) if said and 0 <= once <= ONCE_AT_MOST_BYTES else divmod(total, batches)


def _offline(which: int) -> Callable[[Case], Samples]:
    return lambda case: [[float(offline_sent(case, session)[which])] for session in case.sessions]


def offline_total_bytes(session: Session) -> int:
    """Return what all senders sent offline, for all inferences of the session."""
    phase = session.offline
    return phase.server.sent_bytes + phase.client.sent_bytes + (phase.dealer.sent_bytes if phase.dealer else 0)


def offline_s(session: Session) -> float:
    """Return the slower party's time for one inference."""
    return max(session.offline.server.time_s, session.offline.client.time_s) / max(1, session.offline.inferences)


def setup_s(session: Session) -> float:
    """Return the slower party's time."""
    return max(session.setup.server.time_s, session.setup.client.time_s)


def agreeing(session: Session) -> int:
    """Return the images with the plaintext network's class; a tie within the tolerance is no disagreement."""
    return session.correctness.agreeing + session.correctness.ties


def private_accuracy(case: Case) -> Accuracy | None:
    """Return the right private answers of all sessions, of all that were scored; None where none was."""
    counted = [accuracy for accuracy, _ in _scored(case)]
    return Accuracy(correct=sum(a.correct for a in counted), n=sum(a.n for a in counted)) if counted else None


def steady(case: Case, measure: Measure) -> tuple[Samples, str]:
    """Return a case's samples of a measure without their warm-up, and the word that says so."""
    return without_warmup(measure.samples(case))


def estimate_of(case: Case, measure: Measure, seed: int = 0) -> Estimate | None:
    """Return a measure of a case with its interval (an exact one's is the value itself); None where there is none."""
    if measure.exact:
        value = measure.value(case)
        n = sum(len(session) for session in case.measured)
        return None if value is None else Estimate(value, value, value, len(case.sessions), n)
    sessions, _ = steady(case, measure)
    return median_interval(sessions, seed) if sessions else None


def _agreement(session: Session) -> float | None:
    return agreeing(session) / session.correctness.n if session.correctness.n else None


def _share(counted: Accuracy | None) -> float | None:
    return counted.correct / counted.n if counted and counted.n else None


def _answers(case: Case) -> Answers:
    counted = _scored(case)
    return Answers(sum(accuracy.n for accuracy, _ in counted), sum(ties for _, ties in counted))


def _scored(case: Case) -> list[tuple[Accuracy, int]]:
    """Return each scored session's accuracy, and how many of its answers are ties."""
    return [(s.accuracy, s.correctness.ties) for s in case.sessions if s.accuracy and s.accuracy.n]


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("online_s", "s", "online latency", _each(lambda i: i.online_s), exact=False, tolerance=0.01),
        Measure("server_bytes", "B", "bytes sent by the server, online", _each(lambda i: i.server.sent_bytes), True),
        Measure("client_bytes", "B", "bytes sent by the client, online", _each(lambda i: i.client.sent_bytes), True),
        Measure("rounds", "", "rounds, online", _each(lambda i: max(i.server.rounds, i.client.rounds)), True),
        Measure("offline_bytes", "B", "bytes of the offline phase for one inference", _offline(0), True),
        Measure("offline_session_bytes", "B", "bytes of the offline phase once a session", _offline(1), True),
        Measure("relu_count", "", "ReLUs", _network(lambda case: case.network.relu_count), True),
        Measure("macs", "", "multiply-accumulates", _network(lambda case: case.network.macs), True),
        Measure("agreement", "share", "agreement with plaintext", _session(_agreement), True, "higher"),
        Measure(
            "plain_accuracy", "share", "accuracy in plaintext",
            _network(lambda case: _share(case.network.plain_accuracy)), True, "higher",
        ),
        # Private logits carry the protocol's random rounding: an image on the edge may change sides between runs.
        Measure(
            "accuracy", "share", "accuracy in private", _network(lambda case: _share(private_accuracy(case))), True,
            "higher", tolerance=0.02, answers=_answers,
        ),
        Measure("offline_s", "s", "offline time for one inference", _session(offline_s), False, gated=False),
        Measure("setup_s", "s", "setup time", _session(setup_s), exact=False, gated=False),
        Measure(
            "peak_rss_bytes", "B", "peak memory of the larger party",
            _session(lambda s: max(s.peak_rss_bytes.server, s.peak_rss_bytes.client)), exact=False, gated=False,
        ),
    )
}  # fmt: skip


def named(names: Sequence[str] | None) -> list[Measure]:
    """Return the measures of these names (None: those judged by default); UsageError for an unknown one."""
    if names is None:
        return [measure for measure in MEASURES.values() if measure.gated]
    for name in names:
        if name not in MEASURES:
            raise UsageError(f"no measure is named {name!r}", remedy=f"choose among {', '.join(MEASURES)}")
    return [MEASURES[name] for name in names]
