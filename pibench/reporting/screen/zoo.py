"""The table of the zoo: our accuracy beside the published one at the same budget, in plaintext and privately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from pibench.networks.card import Card, load_card
from pibench.numbers import duration
from pibench.reporting.cells import Cell
from pibench.reporting.screen.plain import plain_table
from pibench.training.metadata import file_sha256, read_metadata


@dataclass(frozen=True)
class Entry:
    """One checkpoint of the zoo."""

    card: Card
    path: Path
    meta: dict[str, Any]
    private: tuple[float, int] | None  # accuracy in percent, images
    agreeing: tuple[int, int] | None  # images with the plaintext's class, of n

    @property
    def published(self) -> float | None:
        """The published accuracy of this network, where there is one."""
        return next((p.accuracy_percent for p in self.card.published if p.accuracy_percent is not None), None)


def entries(zoo: Path, cells: Sequence[Cell] = ()) -> list[Entry]:
    """Return the checkpoints of a folder with what records say about them, fewest ReLUs first."""
    found = [_entry(path, cells) for path in sorted(zoo.glob("*.safetensors"))]
    return sorted(found, key=lambda entry: (entry.card.relu_count, entry.card.name))


def _entry(path: Path, cells: Sequence[Cell]) -> Entry:
    card = load_card(path.stem)
    own = [c for c in cells if c.network == card.name and c.private_protocol and c.private and c.agreeing]
    best = max(own, key=lambda cell: cell.agreeing[1] if cell.agreeing else 0, default=None)
    private = (best.private.percent, best.private.n) if best and best.private else None
    return Entry(card, path, read_metadata(path), private, best.agreeing if best else None)


def with_worst_classes(found: Sequence[Entry]) -> list[Entry]:
    """Return the entries, those whose checkpoint does not tell its worst class judged now; needs the test images."""
    from pibench.training.ship import worst_class_of

    told = [entry.meta.get("worst_class") or worst_class_of(entry.path, entry.card) for entry in found]
    pairs = zip(found, told, strict=True)
    return [replace(entry, meta={**entry.meta, "worst_class": worst}) for entry, worst in pairs]


HEAD = """# The zoo: trained networks

Made by `pibench zoo --write docs/zoo.md`; do not edit by hand. Accuracy is that of the shipped weights after the last
epoch, on all test images; no epoch was chosen by its test accuracy. "Published" is the figure of the network's card, at
the same ReLU budget. "Private" is the accuracy over the private inferences of a record, and "same class" how many of
them gave the plaintext network's class; both are empty where no record was given. "Worst class" is the lowest accuracy
that the images of one class have (100 images each on CIFAR-100).
"""
COLUMNS = (
    "network", "ReLUs", "accuracy", "worst class", "published", "gap", "epochs",
    "teacher", "device", "private", "same class", "bits", "MB",
)  # fmt: skip
ON_SCREEN = ("network", "ReLUs", "accuracy", "worst class", "published", "MB")  # what 80 columns hold
EMPTY = "None is shipped yet; `zoo/plan.yaml` says how they are to be trained."


def markdown(found: Sequence[Entry]) -> str:
    """Return the page: a table and the recipes for each data set."""
    if not found:
        return f"{HEAD}\n{EMPTY}\n"
    lines = [HEAD]
    for dataset, own in _by_dataset(found):
        lines += [f"## {dataset}", "", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(row(entry))} |" for entry in own]
        lines += ["", "Recipes and hashes:", ""]
        lines += [*[_details(entry) for entry in own], ""]
    return "\n".join(lines).rstrip() + "\n"


def on_screen(found: Sequence[Entry]) -> list[RenderableType]:
    """Return a table for each data set."""
    parts: list[RenderableType] = []
    for dataset, own in _by_dataset(found):
        images = ", ".join(sorted({f"{int(entry.meta['n_test']):,}" for entry in own}))
        parts.append(Text.assemble((dataset, "bold"), f"  accuracy on {images} test images"))
        table = plain_table()
        for name in ON_SCREEN:
            table.add_column(name, justify="left" if name == "network" else "right", no_wrap=True)
        for entry in own:
            cells = dict(zip(COLUMNS, row(entry), strict=True))
            cells["accuracy"] = cells["accuracy"].partition(" of ")[0]
            table.add_row(*[cells[name] for name in ON_SCREEN])
        parts.append(Padding(table, (0, 0, 1, 2)))
    return parts or [Text(EMPTY)]


def _by_dataset(found: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    names = sorted({entry.card.dataset for entry in found})
    return [(name, [entry for entry in found if entry.card.dataset == name]) for name in names]


def row(entry: Entry) -> list[str]:
    """Return one line of the table as text."""
    meta, published = entry.meta, entry.published
    accuracy, n = float(meta["accuracy"]), int(meta["n_test"])
    before = int(meta.get("epochs_before") or 0)
    return [
        entry.card.name,
        f"{entry.card.relu_count:,}",
        f"{accuracy:.2f} % of {n:,}",
        f"{meta['worst_class']['accuracy']:.0f} %" if meta.get("worst_class") else "",
        f"{published:.2f} %" if published is not None else "-",
        f"{accuracy - published:+.2f}" if published is not None else "-",
        f"{meta['epochs']}" + (f" after {before}" if before else ""),
        _teachers(meta),
        str(meta.get("device", "")),
        f"{entry.private[0]:.2f} % of {entry.private[1]:,}" if entry.private else "",
        f"{entry.agreeing[0]:,} of {entry.agreeing[1]:,}" if entry.agreeing else "",
        {"float16": "16", "int8": "8"}.get(str(meta.get("form")), "32"),
        f"{entry.path.stat().st_size / 1e6:.1f}",
    ]


def _teachers(meta: dict[str, Any]) -> str:
    """Return who taught: networks that were trained name several, reduced ones theirs."""
    named = [teacher["name"] for teacher in meta.get("teachers", [])] or [meta.get("teacher") or "-"]
    return ", ".join(named)


def _beginning(start: dict[str, Any]) -> str:
    return f"weights of {start['name']}{' made wider' if start.get('widened') else ''} to begin with"


def _details(entry: Entry) -> str:
    meta = entry.meta
    reduction = meta.get("reduction", {})
    each = reduction.get("notes", {}).get("images_an_epoch")
    recipe = meta["recipe"]
    how = recipe.get("distillation")
    sizes = ", ".join(f"{p['pixels']} pixels up to {p['until']:.0%} of the epochs" for p in recipe.get("phases", []))
    floor, averaged = recipe.get("floor", 0.0), recipe.get("averaged", 0.0)
    rate = f"{recipe['schedule']} to {recipe['lr']}"
    if floor:
        rate += f" and down to {floor * recipe['lr']:.2g}"
    parts = [
        f"SGD, batch {recipe['batch_size']}, {rate}, weight decay {recipe['weight_decay']}",
        f"distilled (T = {how['temperature']}, weight {how['weight']}, {how['views'] or 'new'} views)" if how else "",
        f"{reduction['epochs_in_all']} epochs in all, of {each:,} images each" if each else "",
        "in bfloat16" if recipe.get("precision") == "bfloat16" else "",
        sizes,
        f"the mean of the weights over the last {averaged:.0%} of the epochs" if averaged else "",
        _beginning(meta["start"]) if meta.get("start") else "",
        f"{', '.join(frozen)} kept as they were" if (frozen := recipe.get("frozen")) else "",
        f"seed {meta['seed']}",
        duration(float(meta["wall_s"])),
        f"trained weights {float(meta['trained']['accuracy']):.2f} %" if "trained" in meta else "",
    ]
    told = "; ".join(part for part in parts if part)
    return f"- **{entry.card.name}**: {told}. SHA-256 `{file_sha256(entry.path)}`"
