"""Cards: one YAML file says what a network is, where it comes from and what was published about it. No torch here."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PrivateAttr

from pibench.documents import Strict, collect, parse, read_yaml
from pibench.errors import UsageError
from pibench.library import data_folders as data_folders  # known by this name, too
from pibench.library import is_file, resolve
from pibench.networks.spec import Network

Method = Literal["full", "deepreduce", "deepreshape", "snl", "senet", "coordinate", "taylor", "pruning", "poly"]


class Published(Strict):
    """One published figure of this network, with its source; never mixed with measured ones."""

    source: Annotated[str, Field(min_length=1)]
    accuracy_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    online_s: Annotated[float, Field(gt=0)] | None = None
    relu_count: Annotated[int, Field(ge=0)] | None = None
    note: str | None = None


class Card(Strict):
    """A network: its architecture, reductions, data set, published figures and checkpoint."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    title: Annotated[str, Field(min_length=1)]
    method: Method
    dataset: Literal["digits", "cifar10", "cifar100", "tinyimagenet", "imagenet"]
    network: Network
    relu_count: Annotated[int, Field(ge=0)]
    provenance: Literal["confirmed", "reconstructed"]
    note: str | None = None
    published: list[Published] = []
    teacher: str | None = None
    recipe: dict[str, Any] | None = None
    checkpoint: str | None = None
    masks: str | None = None
    _path: Path = PrivateAttr(default=Path())

    @property
    def path(self) -> Path:
        """The file that the card was read from."""
        return self._path

    @cached_property
    def sha256(self) -> str:
        """Hash of the card's file."""
        return hashlib.sha256(self._path.read_bytes()).hexdigest()


def _parts() -> dict[str, type[BaseModel]]:
    """Models of a card's keys that belong to other layers (light modules, imported on use)."""
    try:
        from pibench.training.recipe import Recipe
    except ImportError:
        return {}
    return {"recipe": Recipe}


def load_card(name_or_path: str | Path) -> Card:
    """Read and check a card, by name or path; every problem comes at once, as UsageError with file and line."""
    path = resolve(name_or_path, "networks", "card")
    card = parse(Card, path, _parts())
    if problems := _misfits(card, path):
        raise collect(path, problems)
    card._path = path
    return card


def _misfits(card: Card, path: Path) -> list[tuple[int, str]]:
    """Return what only shows against the file's name and the other cards."""
    found: list[tuple[str, str]] = []
    if card.name != path.stem:
        found.append(("name", f"the card is named '{card.name}' but its file '{path.stem}'"))
    if card.teacher is not None and not is_file(path.parent / f"{card.teacher}.yaml"):
        try:
            resolve(card.teacher, "networks", "card")
        except UsageError as error:
            found.append(("teacher", f"teacher: {error.what}"))
    if not found:
        return []
    lines = read_yaml(path)[1]
    return [(lines.get((key,), 1), text) for key, text in found]
