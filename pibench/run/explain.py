"""Does a link's time add up? Computing, plus rounds times one way, plus bytes over the rate, beside what was measured.

The rules are those of predict.py: what is computing, how many one ways a round takes, which bytes follow which. Rates
and round trips are the probe's, not the wish's; a round over gloo is what the probe found it to take (glooprobe.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from pibench.mpc.protocol import Cost
from pibench.records.record import Case, Inference, Record
from pibench.run.predict import computing_s, wire_seconds

EXPLAINED = 0.20


@dataclass(frozen=True)
class Explanation:
    """One case: medians over its measured inferences."""

    case: str
    measured_s: float
    compute_s: float
    latency_s: float
    transfer_s: float

    @property
    def explained_s(self) -> float:
        """What computing, latency and transfer add up to."""
        return self.compute_s + self.latency_s + self.transfer_s

    @property
    def off(self) -> float:
        """How far the sum is from the measurement, as a share of that."""
        return self.explained_s / self.measured_s - 1.0


def explain(record: Record) -> Iterator[Explanation]:
    """Explain every case that has measured inferences and a probe."""
    for case in record.cases:
        measured = [i for s in case.sessions for i in s.inferences if not i.warmup]
        if measured and case.link.probe:
            yield _explain(case, measured)


def _explain(case: Case, measured: list[Inference]) -> Explanation:
    probe = case.link.probe or {}
    rate = min(probe["up_mbit_s"], probe["down_mbit_s"])
    sent = _sent(measured)
    latency_s, transfer_s = wire_seconds(sent, case.protocol, probe["rtt_ms"], rate, case.options)
    if "gloo_round_ms" in probe:  # a round with its bytes, and with all that gloo's threads do about it
        latency_s = max(0.0, sent.rounds * probe["gloo_round_ms"] / 1e3 - transfer_s)
    return Explanation(
        case=case.id,
        measured_s=median(i.online_s for i in measured),
        compute_s=median(computing_s(i) for i in measured),
        latency_s=latency_s,
        transfer_s=transfer_s,
    )


def _sent(measured: list[Inference]) -> Cost:
    """Return what an inference sent, as a cost."""
    rounds = int(median(i.client.rounds for i in measured))
    server, client = (median(i.server.sent_bytes for i in measured), median(i.client.sent_bytes for i in measured))
    return Cost(rounds=rounds, server_bytes=int(server), client_bytes=int(client))
