"""`--model` and what belongs to it: one's own networks, as many as the command line names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pibench.commands.arguments import dataset, image_shape, normalisation
from pibench.errors import UsageError
from pibench.registry import DATASETS

if TYPE_CHECKING:
    from pibench.run.settings import OwnModel

ALIKE = ("input", "dataset", "normalise")  # given once, they hold for all


class _OfOne(argparse.Action):
    """Keeps an option with the --model before it, or with the first one."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
        option_string: str | None = None,
    ) -> None:  # fmt: skip
        """Write the value into the row of its network."""
        rows: list[dict[str, Any]] = list(namespace.own_networks)
        if not rows or (self.dest == "model" and "model" in rows[-1]):
            rows.append({})
        if self.dest in rows[-1]:
            parser.error(f"{option_string} is given twice for one network")
        rows[-1] = {**rows[-1], self.dest: values}
        namespace.own_networks = rows


def add_own_networks(parser: argparse.ArgumentParser, title: str) -> None:
    """Add --model, and the options that each may have after it."""
    parser.set_defaults(own_networks=())
    group = parser.add_argument_group(title, "options belong to the --model before them; repeat it for more networks")

    def add(name: str, metavar: str, said: str, **more: Any) -> None:
        group.add_argument(name, action=_OfOne, metavar=metavar, help=said, default=argparse.SUPPRESS, **more)

    add("--model", "PACKAGE.MODULE:FACTORY", "a function that returns a torch.nn.Module")
    add("--input", "C,H,W", "shape of one image, such as 3,32,32", type=image_shape)
    add("--weights", "FILE", "its weights: safetensors, .pt or .pth", type=Path)
    add("--label", "NAME", "what it is called in tables and figures, instead of its factory")
    add("--method", "NAME", "how its ReLUs were reduced, such as snl: its group in figures")
    add("--output", "NAME", "the logits among several outputs, such as 0 or logits")
    names = f"{', '.join(DATASETS)}, or a folder of pictures in folders of classes"
    add("--dataset", "NAME", f"where its images and labels come from: {names}", type=dataset)
    said = "of its pixels from 0 to 1, instead of the data set's own: one of each, or one a channel, all means first"
    add("--normalise", "MEAN,STD", said, type=normalisation)


def own_networks(rows: Sequence[dict[str, Any]]) -> tuple[OwnModel, ...]:
    """Return the networks of the command line."""
    for row in rows:
        if "model" not in row:
            raise UsageError(
                f"--{next(iter(row))} is for your own network", remedy="give --model package.module:factory too"
            )
    once = {name: given[0] for name in ALIKE if len(given := [row[name] for row in rows if name in row]) == 1}
    return tuple(_own_network({**once, **row}) for row in rows)


def _own_network(row: dict[str, Any]) -> OwnModel:
    from pibench.run.settings import OwnModel

    if "input" not in row:
        raise UsageError(
            f"{row['model']} needs the shape of its images", where="--model",
            remedy="add --input C,H,W, such as --input 3,32,32",
        )  # fmt: skip
    label, method = (str(row.get(name, "")) for name in ("label", "method"))
    return OwnModel(
        row["model"], row["input"], row.get("weights"), dataset=row.get("dataset"), output=row.get("output"),
        normalise=row.get("normalise"), label=label, method=method or None,
    )  # fmt: skip
