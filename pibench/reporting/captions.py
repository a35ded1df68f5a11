"""The words under a figure: network, link, protocol, machine and n, stated the same way everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pibench.records.record import Machine
from pibench.reporting.cells import Cell
from pibench.reporting.view import View
from pibench.run.precision import FEWEST


def latency_interval(cells: Iterable[Cell]) -> str:
    """Return in words what the intervals of some latencies are; empty where nothing was measured."""
    return interval_words([cell.online.n_sessions for cell in cells if cell.online])


def interval_words(counts: Sequence[int]) -> str:
    """Return in words what intervals over so many sessions are: a bootstrap of few need not cover 95 %."""
    if not counts:
        return ""
    if max(counts) == 1:
        return "range: bootstrap over the inferences of one session, which says nothing about another run"
    over = f"bootstrap over {_count(counts, 'session')}"
    if min(counts) >= FEWEST:
        return f"95 % interval: {over}"
    alone = "; of one, it says nothing about another run" if min(counts) == 1 else ""
    return f"range: {over}, which may cover far less than 95 % below {FEWEST}{alone}"


def interval_title(cells: Iterable[Cell]) -> str:
    """Return what to call a column of latencies' intervals."""
    return "[95 % CI]" if latency_interval(cells).startswith("95 %") else "[range]"


def bars(cells: Sequence[Cell]) -> str:
    """Return the sentence that says what a figure's bars are."""
    return f"Bars: latency, {latency_interval(cells)}; accuracy, 95 % interval of a share of n images."


def machine_words(machine: Machine) -> str:
    """Return what ran it, in a few words."""
    cores = f", {machine.cores} cores" if machine.cores else ""
    return f"{machine.cpu or machine.key}{cores}"


def setting_words(view: View, cells: Sequence[Cell]) -> str:
    """Return network, link, protocol, machine and n of some cells: what every figure states."""
    names = list(dict.fromkeys(c.network for c in cells))
    shown = ", ".join(names) if len(names) <= 4 else f"{len(names)} networks ({names[0]} to {names[-1]})"
    where = listed(c.link + (f" ({c.link_how})" if c.link_how not in {"none", ""} else "") for c in cells)
    used = [view.machines[key] for key in dict.fromkeys(c.machine_key for c in cells) if key in view.machines]
    counts = [c.online for c in cells if c.online]
    parts = [
        shown, listed(c.dataset or "" for c in cells), f"protocol {listed(c.protocol for c in cells)}",
        f"link {where}", listed(c.device for c in cells),
        f"threads a party: {listed(str(c.threads) for c in cells)}", f"batch {listed(str(c.batch) for c in cells)}",
        "; ".join(machine_words(m) for m in used),
        f"n = {_count([e.n_sessions for e in counts], 'session')}, "
        f"{_count([e.n for e in counts], 'inference')} a point",
    ]  # fmt: skip
    return " · ".join(part for part in parts if part)


def listed(items: Iterable[str]) -> str:
    """Join different words by commas."""
    return ", ".join(item for item in dict.fromkeys(items) if item)


def _count(values: Sequence[int], what: str) -> str:
    low, high = min(values, default=0), max(values, default=0)
    return f"{low if low == high else f'{low} to {high}'} {what}{'' if high == 1 else 's'}"
