"""Which network for a deadline on a link: from this machine's records where there are some, else from the zoo's costs.

`zoo/costs.json` holds what each trained network costs: rounds and bytes as declared (exact), computing as it was
measured on a machine that the file names. A link's time is added by the arithmetic of pibench.mpc.spec.wire_times.
No torch here: the answer must come at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pibench.errors import DataError
from pibench.library import data_folders
from pibench.mpc.spec import is_private, spec_of, wire_times
from pibench.records.record import Case, Record
from pibench.reporting.onpaper.costmodel import Wire

COSTS = "costs.json"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained network under a protocol: one batch. `local_s` is its online time with no link between the parties."""

    network: str
    dataset: str | None
    percent: float
    n: int
    relu_count: int
    protocol: str
    rounds: int
    server_bytes: int
    client_bytes: int
    local_s: float
    offline_s: float
    offline_bytes: int
    source: str  # where `local_s` comes from
    batch: int = 1
    options: dict[str, Any] | None = None
    samples: tuple[float, ...] = ()  # measured on the link itself: no arithmetic then
    online_s: float = math.nan  # over the link in question
    wire_s: float = 0.0

    def over(self, wire: Wire) -> Candidate:
        """Return the candidate with its online time over a link."""
        if self.samples:
            return replace(self, online_s=self.percentiles()["median"])
        arrangement = spec_of(self.protocol).arrangement(self.options or {})
        ways = ((self.server_bytes, wire.down_mbit_s), (self.client_bytes, wire.up_mbit_s))
        latency_s, transfer_s = wire_times(arrangement, self.rounds, ways, wire.rtt_ms)
        return replace(self, online_s=self.local_s + latency_s + transfer_s, wire_s=latency_s + transfer_s)

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What tells candidates apart: network, protocol, batch, and the protocol's options."""
        return self.network, self.protocol, self.batch, json.dumps(self.options or {}, sort_keys=True)

    def percentiles(self) -> dict[str, float]:
        """Return median, p95 and p99 of measured latencies (MLPerf's single stream); the median alone if predicted."""
        if not self.samples:
            return {"median": self.online_s}
        values = np.percentile(self.samples, [50, 95, 99], method="higher").tolist()
        return dict(zip(("median", "p95", "p99"), values, strict=True))


@dataclass(frozen=True)
class Choice:
    """The answer: what fits best, and the nearest that does not; `miss` would be the more accurate one."""

    fits: Candidate | None
    miss: Candidate | None


def zoo_candidates() -> list[Candidate]:
    """Return the shipped networks with their costs; DataError for a damaged file."""
    for folder in data_folders("zoo"):
        if (path := folder / COSTS).is_file():
            try:
                data = json.loads(path.read_text("utf-8"))
                source = f"computing as on {data['machine']}"
                return [Candidate(source=source, **row) for row in data["networks"]]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"the costs cannot be read: {error}", where=str(path)) from error
    return []


def record_candidates(records: Iterable[Record], machine_key: str, wire: Wire) -> list[Candidate]:
    """Return what records of this machine hold of trained networks, on the link itself or on loopback."""
    found: dict[tuple[str, str, int, str], Candidate] = {}
    for record in records:
        for case in record.cases if record.machine.key == machine_key else ():
            made = _of_case(case, record, wire)
            if made and (made.samples or made.key not in found or not found[made.key].samples):
                found[made.key] = made
    return list(found.values())


def _of_case(case: Case, record: Record, wire: Wire) -> Candidate | None:
    net, measured = case.network, [i for session in case.measured for i in session]
    score = _score(case)
    if case.status != "done" or not measured or score is None or not is_private(case.protocol):
        return None
    local = not (case.link.rtt_ms or case.link.mbit_s)
    here = local if wire.name == "loopback" else case.link.name == wire.name
    if not here and (case.link.rtt_ms or case.link.mbit_s):
        return None
    phases = [s.offline for s in case.sessions if s.offline.inferences]
    sent = [p.server.sent_bytes + p.client.sent_bytes + (p.dealer.sent_bytes if p.dealer else 0) for p in phases]
    seconds = [max(p.server.time_s, p.client.time_s) / p.inferences for p in phases]
    return Candidate(
        network=net.card, dataset=net.dataset, percent=score[0], n=score[1], relu_count=net.relu_count,
        protocol=case.protocol, rounds=max(max(i.server.rounds, i.client.rounds) for i in measured),
        server_bytes=max(i.server.sent_bytes for i in measured),
        client_bytes=max(i.client.sent_bytes for i in measured), local_s=median(i.online_s for i in measured),
        offline_s=median(seconds) if seconds else 0.0, options=dict(case.options), batch=case.batch,
        offline_bytes=max((s // p.inferences for s, p in zip(sent, phases, strict=True)), default=0),
        source=f"{'' if here else 'computing as '}measured here, record {record.id}",
        samples=tuple(i.online_s for i in measured) if here else (),
    )  # fmt: skip


def _score(case: Case) -> tuple[float, int] | None:
    trained, plain = case.network.checkpoint_accuracy, case.network.plain_accuracy
    if trained and trained.get("n"):
        return float(trained["accuracy"]), int(trained["n"])
    return (100.0 * plain.correct / plain.n, plain.n) if plain and plain.n else None


def choose(found: Sequence[Candidate], deadline_s: float | None, least_percent: float | None) -> Choice:
    """Return the most accurate candidate within the deadline (without one: the fastest), and the nearest miss."""
    able = [c for c in found if least_percent is None or c.percent >= least_percent - 1e-9]
    if deadline_s is None:
        return Choice(min(able, key=lambda c: c.online_s, default=None), None)
    inside = [c for c in able if c.online_s <= deadline_s]
    fits = max(inside, key=lambda c: (c.percent, -c.online_s), default=None)
    late = [c for c in able if c.online_s > deadline_s and (fits is None or c.percent > fits.percent)]
    return Choice(fits, min(late, key=lambda c: c.online_s, default=None))


def would_fit(miss: Candidate, wire: Wire, deadline_s: float) -> list[str]:
    """Return what would bring a late candidate within the deadline: fewer rounds, or a shorter round trip."""
    hops = spec_of(miss.protocol).arrangement(miss.options or {}).hops
    waiting_s = miss.rounds * hops * (wire.rtt_ms or 0.0) / 2e3
    left_s = deadline_s - (miss.online_s - waiting_s)
    if left_s <= 0 or not miss.rounds:
        return ["no round trip is short enough: its computing and bytes alone take longer"]
    rtt_ms = math.floor(20e3 * left_s / (miss.rounds * hops)) / 10  # rounded down: what is said must fit
    said = [f"at a round trip of {rtt_ms:g} ms"]
    if wire.rtt_ms:
        said.append(f"in {math.floor(left_s / (hops * wire.rtt_ms / 2e3))} rounds (it has {miss.rounds})")
    return said


def costs_of(record: Record) -> dict[str, Any]:
    """Return what zoo/costs.json holds, from a record of loopback: one row a trained network and protocol."""
    from pibench.reporting.onpaper.costmodel import WIRES

    rows = []
    for made in record_candidates([record], record.machine.key, WIRES["loopback"]):
        row = {name: getattr(made, name) for name in Candidate.__dataclass_fields__}
        for name in ("source", "samples", "online_s", "wire_s"):
            del row[name]
        rows.append({**row, "options": row["options"] or None, "local_s": round(made.local_s, 6)})
    machine = record.machine
    return {"machine": f"{machine.cores} x {machine.cpu}", "created_utc": record.created_utc, "networks": rows}


def load_recent(paths: Sequence[Path], most: int = 6) -> list[Record]:
    """Return the newest records that can be read, oldest first; others help nobody and harm nothing."""
    from pibench.errors import PibenchError
    from pibench.records.files import load_record

    found = []
    for path in paths[-most:]:
        try:
            found.append(load_record(path))
        except PibenchError:
            continue
    return found
