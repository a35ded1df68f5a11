"""A record in other tools' formats: github-action-benchmark, Bencher, pytest-benchmark.

All from one record, cases that are not `done` left out: a speed without correctness is not exported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from pibench import __version__
from pibench.records.measures import MEASURES, estimate_of, steady
from pibench.records.record import Case, Record

NS = 1e9
GITHUB = ("online_s", "server_bytes", "client_bytes", "rounds", "offline_bytes", "relu_count")  # smaller is better
# Bencher knows `latency` (nanoseconds, lower is better); the rest become measures of its own on first sight
BENCHER = {
    "online_s": "latency", "server_bytes": "server-bytes", "client_bytes": "client-bytes", "rounds": "rounds",
    "offline_bytes": "offline-bytes", "relu_count": "relus", "plain_accuracy": "accuracy", "agreement": "agreement",
}  # fmt: skip


def to_github(record: Record) -> list[dict[str, Any]]:
    """Return the `customSmallerIsBetter` list of github-action-benchmark: `range` is half the bootstrap interval."""
    found = []
    for case in _done(record):
        for name in GITHUB:
            measure = MEASURES[name]
            estimate = estimate_of(case, measure, record.seed)
            if estimate is None:
                continue
            entry = {"name": f"{case.id} {measure.title}", "unit": measure.unit or "count", "value": estimate.point}
            if not measure.exact:
                entry["range"] = f"± {(estimate.high - estimate.low) / 2:.4g}"
            entry["extra"] = f"{estimate.n_sessions} sessions, {estimate.n} inferences\nlink {_link(case)}"
            found.append(entry)
    return found


def to_bencher(record: Record) -> dict[str, dict[str, dict[str, float]]]:
    """Return Bencher Metric Format: bounds are those of the bootstrap interval, latency in nanoseconds."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for case in _done(record):
        for name, slug in BENCHER.items():
            measure = MEASURES[name]
            estimate = estimate_of(case, measure, record.seed)
            if estimate is None:
                continue
            scale = NS if measure.unit == "s" else 1.0
            metric = {"value": estimate.point * scale}
            if not measure.exact:
                metric |= {"lower_value": estimate.low * scale, "upper_value": estimate.high * scale}
            found.setdefault(case.id, {})[slug] = metric
    return found


def to_pytest_benchmark(record: Record) -> dict[str, Any]:
    """Return what `pytest --benchmark SUITE --benchmark-json` would have written, data included."""
    machine = record.machine
    return {
        "machine_info": {
            "node": machine.key, "processor": machine.cpu, "machine": machine.os.split()[-1] if machine.os else "",
            "system": machine.os, "python_version": record.versions.get("python"),
            "cpu": {"brand_raw": machine.cpu, "count": machine.cores},
        },
        "commit_info": {
            "id": record.git.commit or "unversioned", "time": None, "author_time": None,
            "dirty": bool(record.git.dirty), "project": "pibench", "branch": "(unknown)",
        },
        "benchmarks": [_pytest_entry(case, record) for case in _done(record) if latencies(case)],
        "datetime": record.created_utc.replace("Z", "+00:00"),
        "version": _pytest_benchmark_version(),
    }  # fmt: skip


FORMATS: dict[str, Callable[[Record], Any]] = {
    "github-action-benchmark": to_github,
    "bencher": to_bencher,
    "pytest-benchmark": to_pytest_benchmark,
}


def render(record: Record, form: str) -> str:
    """Return the record in one of FORMATS, as JSON."""
    return json.dumps(FORMATS[form](record), indent=1, allow_nan=False) + "\n"


def latencies(case: Case) -> list[float]:
    """Return the online latency of every inference after warm-up, in the order of sessions."""
    sessions, _ = steady(case, MEASURES["online_s"])
    return [value for session in sessions for value in session]


def group_of(case: Case) -> str:
    """Return the pytest-benchmark group: cases that differ in their network only stand together."""
    return f"{case.protocol} over {case.link.name} on {case.device}, batch {case.batch}"


def extra_info(case: Case) -> dict[str, Any]:
    """Return what pytest-benchmark does not know of: bytes, rounds, ReLUs, accuracy, link, sessions."""
    info: dict[str, Any] = {"case": case.id, "network": case.network.card, "protocol": case.protocol}
    for measure in MEASURES.values():
        if measure.exact and (value := measure.value(case)) is not None:
            info[measure.name] = int(value) if measure.unit != "share" and value == int(value) else value
    estimate = estimate_of(case, MEASURES["online_s"])
    if estimate is not None:
        info |= {"sessions": estimate.n_sessions, "online_s_interval": [estimate.low, estimate.high]}
    counted = [session.accuracy for session in case.sessions if session.accuracy]
    info["accuracy_images"] = sum(accuracy.n for accuracy in counted)
    errors = [session.correctness.max_abs_logit_error for session in case.sessions]
    info["max_abs_logit_error"] = max((error for error in errors if error is not None), default=None)
    info["link"] = case.link.model_dump()
    return info | {"batch": case.batch, "threads": case.threads, "device": case.device, "pibench": __version__}


def _pytest_entry(case: Case, record: Record) -> dict[str, Any]:
    computed: Any = import_module("pytest_benchmark.stats").Stats()  # untyped there
    for value in latencies(case):
        computed.update(value)
    suite = record.suite.path or f"{record.suite.name}.yaml"
    return {
        "group": group_of(case), "name": case.id, "fullname": f"{suite}::{case.id}", "params": None, "param": None,
        "extra_info": extra_info(case), "options": {"timer": "online_clock"},
        "stats": {**computed.as_dict(), "data": computed.data, "iterations": 1},
    }  # fmt: skip


def _done(record: Record) -> Iterator[Case]:
    return (case for case in record.cases if case.status == "done")


def _link(case: Case) -> str:
    rate = f", {case.link.mbit_s:g} Mbit/s" if case.link.mbit_s else ""
    return f"{case.link.name} ({case.link.rtt_ms:g} ms{rate})"


def _pytest_benchmark_version() -> str:
    from importlib.metadata import version

    return version("pytest-benchmark")
