"""Does a link's time add up? Computing, plus rounds times one way, plus bytes over the rate, beside what was measured.

Computing is what the parties themselves did not spend waiting. A round is one hop where the protocol uses pibench's own
transport; gloo makes its collectives of more (docs/links.md). Rates and round trips are the probe's, not the wish's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from pibench.harness.record import Case, Inference, Record

GLOO_HOPS = 4.0  # one ways a collective of gloo takes: a handshake and two steps, each of two messages' latency
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


def hops(case: Case) -> float:
    """Return how many one-way latencies a round of this case's protocol takes."""
    over_gloo = case.protocol.startswith("crypten") and case.options.get("wire", "gloo") == "gloo"
    return GLOO_HOPS if over_gloo else 1.0


def _explain(case: Case, measured: list[Inference]) -> Explanation:
    probe = case.link.probe or {}
    rate = min(probe["up_mbit_s"], probe["down_mbit_s"]) * 125_000
    one_way_s = probe["rtt_ms"] / 2e3
    return Explanation(
        case=case.id,
        measured_s=median(i.online_s for i in measured),
        compute_s=median(max(p.time_s - p.wait_s for p in (i.server, i.client)) for i in measured),
        latency_s=median(i.client.rounds for i in measured) * one_way_s * hops(case),
        transfer_s=median(max(i.server.sent_bytes, i.client.sent_bytes) for i in measured) / rate,
    )
