"""The networks of the zoo that an installed pibench lacks: what there is, by name and hash, and how it comes. No torch.

`zoo/index.json` names every trained network with its SHA-256 and size. A clone has all of them; a wheel carries those
below 3 MB, and `pibench zoo --fetch` brings the others from $PIBENCH_ZOO, the address of a folder that holds them, to
a folder of the user, where cards find them. Whatever the address, the hash decides what is kept.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pibench.errors import DataError, UsageError
from pibench.library import data_folders
from pibench.registry import nearest
from pibench.training.fetch import Advance, fetch, ignore
from pibench.training.sources import Archive, data_root, file_hash

INDEX = "index.json"


def fetched_root() -> Path:
    """Return the folder of fetched networks: zoo beside the data sets' folder."""
    return data_root().parent / "zoo"


def shelves() -> list[Path]:
    """Return the folders that hold trained networks, nearest first: own, the repository's or wheel's, fetched."""
    return [*data_folders("zoo"), fetched_root()]


def index_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return SHA-256 and size of a folder's networks, by name, as their files are."""
    files = sorted(folder.glob("*.safetensors"))
    return {path.stem: {"sha256": file_hash(path, "sha256"), "bytes": path.stat().st_size} for path in files}


def write_index(folder: Path) -> None:
    """Write a folder's index."""
    text = json.dumps(index_of(folder), indent=1, sort_keys=True)
    (folder / INDEX).write_text(f"{text}\n", encoding="utf-8")


def known() -> dict[str, dict[str, Any]]:
    """Return what the nearest index names; empty where there is none."""
    found = next((folder / INDEX for folder in data_folders("zoo") if (folder / INDEX).is_file()), None)
    try:
        return dict(json.loads(found.read_text("utf-8"))) if found else {}
    except (OSError, ValueError) as error:
        raise DataError(f"not a readable index: {error}", where=str(found)) from error


def missing() -> list[str]:
    """Return the names of networks that the index has and no folder holds."""
    return [name for name in known() if not any((shelf / f"{name}.safetensors").is_file() for shelf in shelves())]


def fetch_network(name: str, advance: Advance = ignore) -> Path:
    """Bring one network to the fetched ones, its hash checked; returns its path.

    Raises UsageError for a name that the index lacks or where $PIBENCH_ZOO says no address, DataError where it fails.
    """
    entries, address = known(), os.environ.get("PIBENCH_ZOO", "")
    if name not in entries:
        raise UsageError(f"the zoo has no network '{name}'{nearest(name, list(entries))}")
    if "://" not in address:
        remedy = "set it to the address of a folder that holds the zoo's files, or work in a clone, which has them all"
        raise UsageError("PIBENCH_ZOO names no address to fetch from", remedy=remedy)
    entry = entries[name]
    wanted = Archive(f"{address.rstrip('/')}/{name}.safetensors", "", int(entry["bytes"]), str(entry["sha256"]))
    return fetch(wanted, fetched_root() / wanted.name, advance)
