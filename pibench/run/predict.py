"""What a network would cost under a protocol and a link, from declared costs alone: nothing is run.

Rounds and bytes are exact: they are the formulas that the tests hold against the transport. Time is a sum of three:
one-way latencies, bytes over the rate, and computing (the same three by which explain.py explains what was measured).
Computing is fitted, phase by phase, to this machine's own records of that protocol under the same options where there
are at least three networks of them, and otherwise not predicted at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from pibench.errors import UsageError
from pibench.links.link import link_from
from pibench.lowering.program import Program
from pibench.mpc.protocol import Cost, options_on, total_cost
from pibench.mpc.spec import load, spec_of, wire_times
from pibench.records.record import Case, Inference, Record

ENOUGH_NETWORKS = 3
SETTING = ("cpu", 1)  # device and threads a party: those of a suite that says nothing, which a prediction is for


def predict(
    program: Program, protocol: str, link: str, batch: int, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return rounds, bytes by sender, and seconds of each phase for one batch, as named lines of text or numbers."""
    wire = link_from(link)
    rtt_ms, mbit_s = wire.rtt_ms, wire.mbit_s
    options = options_on(program, protocol, batch, options or {}, rtt_ms, mbit_s)
    declared = total_cost(program, protocol, batch, options)
    if declared is None:
        raise UsageError(f"{protocol} declares no cost, so nothing can be said before it runs")
    latency_s, transfer_s = wire_seconds(declared, protocol, rtt_ms, mbit_s, options)
    fitted = {phase: fitted_computing(program, protocol, batch, options, phase) for phase in PHASES}
    computing_s = fitted["online"]
    made: dict[str, Any] = {
        "rounds": declared.rounds,
        "sent by server, bytes": declared.server_bytes,
        "sent by client, bytes": declared.client_bytes,
        f"latency on {link}, s": round(latency_s, 4),
        f"transfer on {link}, s": round(transfer_s, 4),
        **_before(declared, protocol, link, options, fitted),
    }
    if computing_s is None:
        made["computing, s"] = f"not known: no record here has {ENOUGH_NETWORKS} networks under {protocol}"
    else:
        made["computing, s"] = round(computing_s, 4)
        made[f"online on {link}, s"] = round(latency_s + transfer_s + computing_s, 4)
    if where := spec_of(protocol).security:
        made |= load(where)(program, batch, options)
    return made


def _before(
    cost: Cost, protocol: str, link: str, options: Mapping[str, Any] | None, fitted: Mapping[str, float | None]
) -> dict[str, Any]:
    """Return setup and offline: the wire's part, and the whole where computing is known.

    What a dealer sends takes its own links, beside the peer's. Computing and sending are added, though part of the one
    goes on during the other: the whole is a little long.
    """
    rtt_ms, mbit_s = link_from(link).rtt_ms, link_from(link).mbit_s
    offline = Cost(cost.offline_rounds, cost.offline_server_bytes + cost.dealer_bytes, cost.offline_client_bytes)
    setup = Cost(cost.setup_rounds, cost.setup_server_bytes, cost.setup_client_bytes)
    made: dict[str, Any] = {}
    for phase, wire in (("setup", setup), ("offline", offline)):
        latency_s, transfer_s = wire_seconds(wire, protocol, rtt_ms, mbit_s, options)
        made |= {
            f"{phase} rounds": wire.rounds, f"{phase} sent, bytes": wire.server_bytes + wire.client_bytes,
        }  # fmt: skip
        if (computing_s := fitted[phase]) is None:
            made[f"{phase} on {link} without computing, s"] = round(latency_s + transfer_s, 4)
        else:
            made[f"{phase} computing, s"] = round(computing_s, 4)
            made[f"{phase} on {link}, s"] = round(latency_s + transfer_s + computing_s, 4)
    return made


def wire_seconds(
    cost: Cost, protocol: str, rtt_ms: float | None, mbit_s: float | None, options: Mapping[str, Any] | None = None,
    *, up_mbit_s: float | None = None,
) -> tuple[float, float]:  # fmt: skip
    """Return seconds of latency (rounds times hops times one way) and of transfer (bytes over the rate).

    `mbit_s` is the rate of both directions; `up_mbit_s` that of what the client sends, where it is another.
    """
    ways = ((cost.server_bytes, mbit_s), (cost.client_bytes, up_mbit_s or mbit_s))
    return wire_times(spec_of(protocol).arrangement(options or {}), cost.rounds, ways, rtt_ms)


def fitted_computing(
    program: Program, protocol: str, batch: int, options: Mapping[str, Any], phase: str = "online"
) -> float | None:
    """Return a phase's computing seconds from the newest record here with enough networks under these options."""
    from pibench.networks.census import census

    counted, of = census(program), PHASES[phase]
    for cases in _measured(protocol, options):
        points = {(c.network.macs_computed * c.batch, c.network.relu_count * c.batch): of(c)
                  for c in cases if phase == "online" or not c.link.rtt_ms}  # fmt: skip
        if len(points) >= ENOUGH_NETWORKS:
            return _fit(points, counted.macs * batch, counted.relu_count * batch)
    return None


def computing(case: Case) -> float:
    """Return the seconds of one case that were not waiting, as a median."""
    return median(computing_s(i) for session in case.sessions for i in session.inferences if not i.warmup)


def offline_s(case: Case) -> float:
    """Return the slower party's offline seconds of a batch, as a median: computing, where the link costs nothing."""
    phases = [s.offline for s in case.sessions]
    return median(max(p.server.time_s, p.client.time_s) / max(1, p.inferences) for p in phases)


def setup_s(case: Case) -> float:
    """Return the slower party's seconds of setup, as a median."""
    return median(max(s.setup.server.time_s, s.setup.client.time_s) for s in case.sessions)


def computing_s(inference: Inference) -> float:
    """Return the seconds of one inference that were not waiting: operations follow one another, parties do not.

    Within an operation both parties compute at the same time, so the longer one counts. Their sum would count twice
    what happens at once, and the larger of their totals would miss what one of them does alone.
    """
    parties = inference.server, inference.client
    if not all(party.parts.time_s for party in parties):  # a baseline, say, which keeps totals alone
        return max(party.time_s - party.wait_s for party in parties)
    spent = [[t - w for t, w in zip(p.parts.time_s, p.parts.wait_s, strict=True)] for p in parties]
    return float(sum(max(both) for both in zip(*spent, strict=True)))


PHASES: Mapping[str, Callable[[Case], float]] = {"online": computing, "offline": offline_s, "setup": setup_s}


def _measured(protocol: str, options: Mapping[str, Any]) -> Iterable[list[Case]]:
    from pibench.records.files import load_record
    from pibench.records.machine import machine

    here = machine().key
    for path in sorted(Path(".pibench/runs").glob("*.json"), reverse=True):
        try:
            record: Record = load_record(path)
        except UsageError:
            continue
        if record.machine.key != here:
            continue
        yield [
            case
            for case in record.cases
            if case.protocol == protocol
            and case.status == "done"
            and case.options == options
            and case.network.macs
            and (case.device, case.threads) == SETTING
        ]


def _fit(points: dict[tuple[int, int], float], macs: int, relus: int) -> float:
    """Return intercept + a MACs + b ReLUs, non-negative least squares."""
    import numpy as np
    from scipy.optimize import nnls

    rows = np.array([[1.0, m / 1e6, r / 1e3] for m, r in points])
    weights, _ = nnls(rows, np.array(list(points.values())))
    return float(np.dot(weights, [1.0, macs / 1e6, relus / 1e3]))
