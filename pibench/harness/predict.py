"""What a network would cost under a protocol and a link, from declared costs alone: nothing is run.

Rounds and bytes are exact: they are the formulas that the tests hold against the transport. Time is a sum of three:
one-way latencies, bytes over the rate, and computing. Computing is fitted to this machine's own records of that
protocol where there are at least three networks of them, and otherwise not predicted at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from pibench.errors import UsageError
from pibench.harness.record import Case, Record
from pibench.lowering.program import Program
from pibench.mpc.link import PROFILES, Link
from pibench.mpc.protocol import Cost, protocol_class

ONE_AT_A_TIME = {"masked", "plaintext"}  # messages go to and fro; elsewhere both directions carry at once
ENOUGH_NETWORKS = 3


def predict(
    program: Program, protocol: str, link: str, batch: int, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return rounds, bytes by sender, offline bytes, and seconds for one batch, as named lines of text or numbers."""
    if link not in PROFILES:
        raise UsageError(f"no link is named {link!r}", remedy=f"choose one of {', '.join(PROFILES)}")
    declared = total_cost(program, protocol, batch, options or {})
    latency_s, transfer_s = wire_seconds(declared, protocol, PROFILES[link])
    computing_s = fitted_computing(program, protocol, batch)
    made: dict[str, Any] = {
        "rounds": declared.rounds,
        "sent by server, bytes": declared.server_bytes,
        "sent by client, bytes": declared.client_bytes,
        "offline, bytes": declared.offline_server_bytes + declared.offline_client_bytes + declared.dealer_bytes,
        f"latency on {link}, s": round(latency_s, 4),
        f"transfer on {link}, s": round(transfer_s, 4),
    }
    if computing_s is None:
        made["computing, s"] = f"not known: no record here has {ENOUGH_NETWORKS} networks under {protocol}"
    else:
        made["computing, s"] = round(computing_s, 4)
        made[f"online on {link}, s"] = round(latency_s + transfer_s + computing_s, 4)
    return made


def total_cost(program: Program, protocol: str, batch: int, options: dict[str, Any]) -> Cost:
    """Return the declared cost of a whole program."""
    cls = protocol_class(protocol)
    return sum((cls.cost(program, op, batch, options) for op in program), Cost())


def wire_seconds(cost: Cost, protocol: str, link: Link) -> tuple[float, float]:
    """Return seconds of latency (rounds times one way) and of transfer (bytes over the rate)."""
    together = sum if protocol in ONE_AT_A_TIME else max
    n_bytes = together((cost.server_bytes, cost.client_bytes))
    transfer_s = n_bytes / (link.mbit_s * 125_000) if link.mbit_s else 0.0
    return cost.rounds * (link.rtt_ms or 0.0) / 2e3, transfer_s


def fitted_computing(program: Program, protocol: str, batch: int) -> float | None:
    """Return computing seconds from the newest record here that measured enough networks under the protocol."""
    from pibench.networks.census import census

    counted = census(program)
    for cases in _measured(protocol):
        points = {(c.network.macs * c.batch, c.network.relu_count * c.batch): computing(c) for c in cases}
        if len(points) >= ENOUGH_NETWORKS:
            return _fit(points, counted.macs * batch, counted.relu_count * batch)
    return None


def computing(case: Case) -> float:
    """Return the seconds of one case that were not waiting, over both parties (they take turns), as a median."""
    inferences = [i for session in case.sessions for i in session.inferences if not i.warmup]
    return median(sum(party.time_s - party.wait_s for party in (i.server, i.client)) for i in inferences)


def _measured(protocol: str) -> Iterable[list[Case]]:
    from pibench.harness.record import load_record

    for path in sorted(Path(".pibench/runs").glob("*.json"), reverse=True):
        try:
            record: Record = load_record(path)
        except UsageError:
            continue
        yield [
            case
            for case in record.cases
            if case.protocol == protocol and case.status == "done" and not case.options and case.network.macs
        ]


def _fit(points: dict[tuple[int, int], float], macs: int, relus: int) -> float:
    """Return intercept + a MACs + b ReLUs, non-negative least squares."""
    import numpy as np
    from scipy.optimize import nnls

    rows = np.array([[1.0, m / 1e6, r / 1e3] for m, r in points])
    weights, _ = nnls(rows, np.array(list(points.values())))
    return float(np.dot(weights, [1.0, macs / 1e6, relus / 1e3]))
