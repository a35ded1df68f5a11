"""What a report sees of records: one `Cell` a case, derived from raw samples; nothing is invented."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pibench.records.measures import (
    MEASURES,
    agreeing,
    offline_s,
    offline_total_bytes,
    private_accuracy,
    setup_s,
    steady,
)
from pibench.records.prices import Joint, fit_plane, fit_price
from pibench.records.record import Accuracy, Case, Inference, Machine, PartKey, PartyOnline, Record, Session
from pibench.records.stats import median_interval
from pibench.reporting.cells import Cell, Ladder, PhaseView, Score, Setting, Site


@dataclass(frozen=True)
class View:
    """All cells of the given records, with the machines that they ran on."""

    records: tuple[Record, ...]
    cells: tuple[Cell, ...]

    @property
    def machines(self) -> dict[str, Machine]:
        """Machines by key."""
        return {record.machine.key: record.machine for record in self.records}

    def ladders(self) -> list[Ladder]:
        """Return one ladder a setting, in the records' order."""
        groups: dict[Setting, list[Cell]] = {}
        for cell in self.cells:
            if cell.usable:
                groups.setdefault(cell.setting, []).append(cell)
        return [ladder_of(setting, cells) for setting, cells in groups.items()]


def ladder_of(setting: Setting, cells: Sequence[Cell]) -> Ladder:
    """Return the ladder of cells that share a setting; a latency is that of a batch, so all its ReLUs are counted."""
    ordered = tuple(sorted(cells, key=lambda c: (-c.relu_count, c.online_s)))
    fit = fit_price([c.relu_count * c.batch for c in ordered], [c.online_s for c in ordered])
    return Ladder(setting, ordered, fit, plane_of(ordered, lambda c: c.online_s))


def plane_of(cells: Sequence[Cell], seconds_of: Callable[[Cell], float]) -> Joint | None:
    """Fit both counts of a batch; None below five networks, or where the two go together."""
    relus, macs = [c.relu_count * c.batch for c in cells], [c.macs_run * c.batch for c in cells]
    return fit_plane(relus, macs, [seconds_of(c) for c in cells])


def view_of(records: Iterable[Record]) -> View:
    """Derive the view of some records; of a case that several hold, the newest finished one counts."""
    kept: dict[tuple[str, str], Cell] = {}
    ordered = sorted(records, key=lambda record: (record.created_utc, record.id))
    for record in ordered:
        for case in record.cases:
            cell, key = _cell(record, case), (record.machine.key, case.id)
            if key not in kept or cell.usable or not kept[key].usable:
                kept[key] = cell
    return View(tuple(ordered), tuple(kept.values()))


def _cell(record: Record, case: Case) -> Cell:
    net, sessions = case.network, case.sessions
    samples, note = steady(case, MEASURES["online_s"])
    online = median_interval(samples) if samples else None
    right = private_accuracy(case)
    private = Score(100.0 * right.correct / right.n, right.n, "private") if right else None
    return Cell(
        case_id=case.id, run_id=record.id, machine_key=record.machine.key, network=net.card,
        title=net.title or net.card, method=net.method or "full", dataset=net.dataset, protocol=protocol_of(case),
        link=case.link.name, link_how=case.link.how, rtt_ms=case.link.rtt_ms, mbit_s=case.link.mbit_s,
        device=case.device, batch=case.batch, threads=case.threads, status=case.status, error=case.error,
        relu_count=net.relu_count, macs=net.macs, macs_merged=net.macs_merged, macs_run=net.macs_computed,
        parameters=net.parameters, relu_rounds=net.relu_rounds,
        score=_score(private, net.plain_accuracy, net.checkpoint_accuracy),
        private=private, agreeing=_agreeing(sessions), logit_error=_logit_error(sessions), online=online,
        warmup_note=note, server_bytes=_whole(case, "server_bytes"), client_bytes=_whole(case, "client_bytes"),
        rounds=_whole(case, "rounds"),
        sites=_sites(sessions, online.point) if online else (), offline=_offline(sessions), setup=_setup(sessions),
        peak_rss_bytes=_whole(case, "peak_rss_bytes"), trust=case.trust.short if case.trust else "",
        sustained_s=_sustained(sessions), held_bytes=_held(sessions), published=net.published, options=case.options,
    )  # fmt: skip


def protocol_of(case: Case) -> str:
    """Return the protocol with the label that sets two option sets of it apart, as the case's id has it."""
    named = case.id.rsplit("/", 4)[-4:][0]
    return named if named.partition("+")[0] == case.protocol else case.protocol


def _whole(case: Case, measure: str) -> int | None:
    value = MEASURES[measure].value(case)
    return None if value is None else int(value)


def _score(private: Score | None, plain: Accuracy | None, trained: dict[str, Any] | None) -> Score | None:
    """Return the accuracy over the most images; the private classes are checked against the plaintext's apart.

    Sessions take the test images in turn, around their end: beyond the images that another score rests on, private
    answers may be to the same images again, and more of them tell no more.
    """
    scores: list[Score] = []
    if plain and plain.n:
        scores.append(Score(100.0 * plain.correct / plain.n, plain.n, "plaintext"))
    if trained and trained.get("accuracy") is not None and trained.get("n"):
        scores.append(Score(float(trained["accuracy"]), int(trained["n"]), "training"))
    images = max((score.n for score in scores), default=None)
    if private and (images is None or private.n <= images):
        scores.insert(0, private)
    return max(scores, key=lambda score: score.n, default=None)


def _agreeing(sessions: Sequence[Session]) -> tuple[int, int] | None:
    n = sum(s.correctness.n for s in sessions)
    return (sum(map(agreeing, sessions)), n) if n else None


def _logit_error(sessions: Sequence[Session]) -> float | None:
    errors = [s.correctness.max_abs_logit_error for s in sessions if s.correctness.max_abs_logit_error is not None]
    return max(errors) if errors else None


def _setup(sessions: Sequence[Session]) -> PhaseView | None:
    if not sessions:
        return None
    seconds = float(np.median([setup_s(session) for session in sessions]))
    return PhaseView(seconds, max(s.setup.server.sent_bytes + s.setup.client.sent_bytes for s in sessions))


def _offline(sessions: Sequence[Session]) -> PhaseView | None:
    made = [session for session in sessions if session.offline.inferences]
    if not made:
        return None
    sent = [offline_total_bytes(session) / session.offline.inferences for session in made]
    return PhaseView(float(np.median([offline_s(session) for session in made])), max(sent))


def _sustained(sessions: Sequence[Session]) -> float | None:
    each = [s.sustained.seconds / s.sustained.inferences for s in sessions if s.sustained]
    return float(np.median(each)) if each else None


def _held(sessions: Sequence[Session]) -> tuple[int, int] | None:
    return max(((h.server, h.client) for s in sessions if (h := s.offline.held_bytes)), default=None)


def _busier(inference: Inference) -> PartyOnline:
    """Return the party that waits less: where the two take turns, the other's waiting is only this one's computing."""
    return min(inference.server, inference.client, key=lambda party: party.wait_s)


def _sites(sessions: Sequence[Session], online_s: float) -> tuple[Site, ...]:
    """Mean share of each part in the busier party's time, scaled so that all of them add up to the median latency."""
    keys: dict[PartKey, list[np.ndarray[Any, Any]]] = {}
    shares = 0
    for session in sessions:
        for inference in session.inferences:
            party = _busier(inference)
            if inference.warmup or not party.time_s or len(party.parts.time_s) != len(session.parts):
                continue
            shares += 1
            for key, row in zip(session.parts, _rows(inference, party), strict=True):
                keys.setdefault(key, []).append(row)
    sums = {key: np.sum(rows, axis=0) / shares for key, rows in keys.items()}
    whole = sum(float(row[0] + row[1]) for row in sums.values())
    scale = online_s / whole if whole else 0.0
    return tuple(
        Site(*key, compute_s=float(row[0]) * scale, wait_s=float(row[1]) * scale, sent_bytes=round(float(row[2])),
             rounds=round(float(row[3])))
        for key, row in sums.items()
    )  # fmt: skip


def _rows(inference: Inference, party: PartyOnline) -> list[np.ndarray[Any, Any]]:
    """Compute share, waiting share, bytes and rounds of every part of one inference."""
    time = np.asarray(party.parts.time_s)
    wait = np.minimum(np.asarray(party.parts.wait_s), time)
    sent = np.maximum(np.asarray(inference.server.parts.sent_bytes), np.asarray(inference.client.parts.sent_bytes))
    rounds = np.maximum(np.asarray(inference.server.parts.rounds), np.asarray(inference.client.parts.rounds))
    return list(np.stack([(time - wait) / party.time_s, wait / party.time_s, sent, rounds], axis=1))
