"""Material kept on disk between runs: bound to one program, one choice of options and one model, gone when taken.

Each party has a shelf of its own. The server's holds its half of every item and the seed of the model's weight masks,
the client's holds the masked weights and a seed an item. An item has the same name on both shelves; it is deleted
before it is used, so that no failure can make it be used twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pibench.errors import MaterialError

Arrays = dict[str, NDArray[Any]]
ID_BYTES = 16


class Shelf:
    """One party's kept material for one program under one choice of options."""

    def __init__(self, root: Path, role: str, key: str) -> None:
        self._folder = root / hashlib.sha256(key.encode()).hexdigest()[:32] / role
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def items(self) -> list[bytes]:
        """Return the names of the items that wait, oldest first."""
        found = sorted(self._folder.glob("item-*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        return [bytes.fromhex(path.stem.removeprefix("item-")) for path in found]

    def put(self, item: bytes, arrays: Arrays) -> None:
        """Keep one item."""
        self._save(self._path(item), arrays)

    def take(self, item: bytes) -> Arrays:
        """Return one item, which is deleted first; raises MaterialError if it is gone or damaged."""
        path = self._path(item)
        taken = path.with_suffix(".taken")
        try:
            os.replace(path, taken)  # whoever comes second finds nothing, whatever happens to the first
        except FileNotFoundError as error:
            raise MaterialError(f"{path} has been used already", remedy="run the offline phase again") from error
        try:
            return self._load(taken)
        finally:
            with contextlib.suppress(FileNotFoundError):
                taken.unlink()

    def discard(self, item: bytes) -> None:
        """Delete an item of which the other party lacks its half."""
        self._path(item).unlink(missing_ok=True)

    def model(self) -> Arrays | None:
        """Return what was kept of the model's setup, or None."""
        path = self._folder / "model.safetensors"
        return self._load(path) if path.exists() else None

    def put_model(self, arrays: Arrays) -> None:
        """Keep a model's setup; items made for another one are worthless and go."""
        for item in self.items():
            self.discard(item)
        self._save(self._folder / "model.safetensors", arrays)

    def _path(self, item: bytes) -> Path:
        return self._folder / f"item-{item.hex()}.safetensors"

    def _save(self, path: Path, arrays: Arrays) -> None:
        part = path.with_suffix(".part")
        try:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, part)
            part.chmod(0o600)
            os.replace(part, path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise MaterialError(f"cannot keep material in {path}: {error}", remedy="free disk space there") from error

    def _load(self, path: Path) -> Arrays:
        try:
            return dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise MaterialError(f"{path} is damaged: {error}", remedy=f"delete {self._folder}") from error


def new_item() -> bytes:
    """Return a fresh name for an item."""
    return secrets.token_bytes(ID_BYTES)
