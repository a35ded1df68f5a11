"""From what the party processes reported to the record's session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pibench.errors import PartyError
from pibench.records.record import (
    Accuracy,
    Correctness,
    Held,
    Inference,
    Offline,
    PartKey,
    Parts,
    PartyOnline,
    PeakRss,
    Place,
    Places,
    Session,
    Setup,
    Sustained,
    Tally,
)
from pibench.run.wirecheck import wire_of
from pibench.session.session import SessionResult

Report = Mapping[str, Any]
TOTALS = ("time_s", "wait_s", "sent_bytes", "received_bytes", "rounds")


def assemble(
    result: SessionResult,
    *,
    index: int,
    order: int,
    warmups: int,
    correctness: Correctness,
    accuracy: Accuracy | None,
    loss_percent: float = 0.0,
) -> Session:
    """Return the record of one session."""
    server, client = result.online.get("server", []), result.online.get("client", [])
    if len(server) != len(client):
        raise PartyError(f"the server reported {len(server)} inferences, the client {len(client)}")
    keys = part_keys([*server, *client])
    return Session(
        index=index, order=order, started_utc=result.started_utc, wall_s=result.wall_s,
        setup=Setup(server=tally(result.setup["server"]), client=tally(result.setup["client"])),
        offline=_offline(result.offline, len(server), result.held_bytes), parts=tuple(keys),
        inferences=tuple(
            _inference(one, other, keys, number < warmups)
            for number, (one, other) in enumerate(zip(server, client, strict=True))
        ),
        sustained=_sustained(result.served_s, warmups),
        correctness=correctness, accuracy=accuracy,
        peak_rss_bytes=PeakRss(server=result.peak_rss_bytes["server"], client=result.peak_rss_bytes["client"]),
        places=Places(server=_place(result, "server"), client=_place(result, "client")),
        wire=None if result.wire is None else wire_of(result.wire, loss_percent),
    )  # fmt: skip


def _place(result: SessionResult, role: str) -> Place:
    return Place(
        device=result.devices.get(role), backend=result.backends.get(role),
        peak_device_bytes=result.peak_device_bytes.get(role),
    )  # fmt: skip


def part_keys(reports: Sequence[Report]) -> list[PartKey]:
    """Return the parts that any of the reports has, in the order in which they were first met."""
    seen = {(part["kind"], part["stage"], part["site"]): None for report in reports for part in report["parts"]}
    return list(seen)


def tally(*reports: Report) -> Tally:
    """Return the sum of reports of one party."""
    return Tally(**{name: sum(report[name] for report in reports) for name in TOTALS})


def _sustained(served_s: Sequence[float], warmups: int) -> Sustained | None:
    """Return the steady state after warm-up, of which the first answer is no part: what it waited for began earlier."""
    first = max(warmups, 1) - 1
    if len(served_s) <= first + 1:
        return None
    return Sustained(inferences=len(served_s) - 1 - first, seconds=served_s[-1] - served_s[first])


def _offline(reports: Mapping[str, Sequence[Report]], batches: int, held: Mapping[str, int]) -> Offline:
    dealer = reports.get("dealer")
    return Offline(
        server=tally(*reports.get("server", ())), client=tally(*reports.get("client", ())),
        dealer=tally(*dealer) if dealer else None, inferences=batches,
        held_bytes=Held(**held) if len(held) == 2 else None,
    )  # fmt: skip


def _inference(server: Report, client: Report, keys: Sequence[PartKey], warmup: bool) -> Inference:
    online_s = max(server["time_s"], client["time_s"])
    return Inference(warmup=warmup, online_s=online_s, server=_party(server, keys), client=_party(client, keys))


def _party(report: Report, keys: Sequence[PartKey]) -> PartyOnline:
    """Return one party's tally with its parts in the session's order; the parts must add up to the whole."""
    by_key = {(part["kind"], part["stage"], part["site"]): part for part in report["parts"]}
    names = ("time_s", "wait_s", "sent_bytes", "rounds")
    columns = {name: tuple(by_key[key][name] if key in by_key else 0 for key in keys) for name in names}
    for name, column in columns.items():
        if abs(sum(column) - report[name]) > 1e-6 * max(1.0, abs(report[name])):
            raise PartyError(f"the parts of {name} add up to {sum(column)}, the whole is {report[name]}")
    return PartyOnline(**{name: report[name] for name in TOTALS}, parts=Parts(**columns))
