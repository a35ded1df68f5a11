"""What a reduction leaves behind: cards, checkpoints, and the table of the frontier."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pibench.reduction.drive import Outcome
from pibench.reduction.pareto import best_within, frontier
from pibench.reduction.tasks import Cache, Result, Task


@dataclass(frozen=True)
class Row:
    """One network that came out."""

    task: Task
    result: Result

    @property
    def relus(self) -> int:
        """ReLUs of one image."""
        return self.result.relu_count

    @property
    def accuracy(self) -> float:
        """Percent of all test images."""
        return self.result.accuracy or 0.0


def rows(outcome: Outcome) -> list[Row]:
    """Return the networks of all methods, each once, by falling count."""
    tasks = {task.key: task for tasks in outcome.networks.values() for task in tasks}
    found = [Row(task, outcome.results[key]) for key, task in tasks.items()]
    return sorted(found, key=lambda row: (-row.relus, -row.accuracy))


def front(found: Iterable[Row]) -> list[Row]:
    """Return the rows that no other dominates."""
    return frontier(found, lambda row: row.relus, lambda row: row.accuracy)


def own_front(found: Iterable[Row]) -> list[Row]:
    """Return the rows that no other of the same method dominates (the full network counts with each)."""
    kept: dict[str, Row] = {}
    rows = list(found)
    for method in dict.fromkeys(row.task.method for row in rows):
        kept |= {row.task.key: row for row in front(row for row in rows if row.task.method in {method, "full"})}
    return [row for row in rows if row.task.key in kept]


def write(outcome: Outcome, cache: Cache, folder: Path, everything: bool = True) -> list[Row]:
    """Write cards to folder/networks, checkpoints to folder/zoo and the table; returns the rows.

    Not everything: of the candidates of DeepReDuce its own frontier alone. The other methods make what was asked for.
    """
    found = rows(outcome)
    best, own = ({row.task.key for row in some} for some in (front(found), own_front(found)))
    for row in found:
        if everything or row.task.key in own or row.task.method != "deepreduce":
            write_network(row, cache, folder)
    (folder / "frontier.md").write_text(table(found), encoding="utf-8")
    (folder / "frontier.json").write_text(json.dumps([_plain(row, best) for row in found], indent=1), encoding="utf-8")
    return found


def write_network(row: Row, cache: Cache, folder: Path) -> None:
    """Write one card and its checkpoint."""
    for part in ("networks", "zoo"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    name = row.task.name
    shutil.copyfile(cache.path(row.task.key), folder / "zoo" / f"{name}.safetensors")
    document = card_document(row)
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    (folder / "networks" / f"{name}.yaml").write_text(text, encoding="utf-8")


def card_document(row: Row) -> dict[str, Any]:
    """Return a card's content: what differs from the defaults, and what training it took."""
    card = row.task.card(row.result)
    document = card.model_dump(exclude_defaults=True)
    document["network"] = {"family": card.network.family, **card.network.model_dump(exclude_defaults=True)}
    document["relu_count"] = row.relus
    spent = f"epochs in all: {spent_epochs(row)}" if row.result.epochs_in_all else "as given"
    spoken = f"Made by `pibench reduce`: {row.result.accuracy:.2f} % of {row.result.n_test} test images, {spent}."
    document["note"] = f"{row.task.note} {spoken}".strip()
    document["checkpoint"] = f"{row.task.name}.safetensors"
    if row.task.action == "given":  # how it was trained is not known here
        document.pop("recipe", None)
    else:
        document["recipe"] = {key: value for key, value in (card.recipe or {}).items() if value is not None}
    order = ["name", "title", "method", "dataset", "network", "relu_count", "provenance", "note", "teacher", "recipe"]
    return {key: document[key] for key in [*order, *(k for k in document if k not in order)] if key in document}


HEADINGS = ("network", "method", "ReLUs", "ReLU layers", "MACs, M", "merged, M", "accuracy, %", "epochs", "frontier")


def cells(found: list[Row]) -> list[tuple[str, ...]]:
    """Return what a table says of each network, under HEADINGS; the frontier is marked: x of all, o of its method."""
    best, own = ({row.task.key for row in some} for some in (front(found), own_front(found)))
    return [
        (
            row.task.name, row.task.method, f"{row.relus:,}", str(row.result.relu_rounds),
            f"{row.result.macs / 1e6:.3f}", f"{row.result.macs_merged / 1e6:.3f}", f"{row.accuracy:.2f}",
            spent_epochs(row), "x" if row.task.key in best else "o" if row.task.key in own else "",
        )
        for row in found
    ]  # fmt: skip


def table(found: list[Row]) -> str:
    """Return the Markdown table of all networks."""
    rows = [HEADINGS, *cells(found)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---|---|---:|---:|---:|---:|---:|---:|:-:|")
    return "\n".join(lines) + "\n"


def spent_epochs(row: Row) -> str:
    """Return the epochs of a network and those that it started from; of how many images, where not of all."""
    if row.task.action == "given":
        return "given"
    samples = row.task.options.get("samples")
    return str(row.result.epochs_in_all) + (f" of {samples:,} images" if samples else "")


def ranking(found: list[Row], budgets: Iterable[int]) -> str:
    """Return, for every budget, each method's best network within it, the most accurate first."""
    lines: list[str] = []
    for budget in budgets:
        methods = sorted({row.task.method for row in found if row.task.method != "full"})
        own = [[row for row in found if row.task.method == method] for method in methods]
        best = [row for rows in own if (row := best_within(rows, budget, lambda r: r.relus, lambda r: r.accuracy))]
        lines.append(f"at most {budget:,} ReLUs:")
        for place, row in enumerate(sorted(best, key=lambda r: (-r.accuracy, r.relus)), start=1):
            lines.append(
                f"  {place}. {row.accuracy:6.2f} %  {row.relus:>9,} ReLUs  {row.task.method:<12} {row.task.name}"
            )
    return "\n".join(lines)


def _plain(row: Row, best: set[str]) -> dict[str, Any]:
    result = row.result.model_dump(exclude={"network", "notes"})
    return {"name": row.task.name, "method": row.task.method, "frontier": row.task.key in best, **result}
