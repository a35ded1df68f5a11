"""How often a shelf has been taken from, in two places: a folder that was restored from a copy gives itself away.

One number lies in the folder, the other in this user's state ($XDG_STATE_HOME, else ~/.local/state), by the folder's
name. Both are on disk before what was taken is used. A copy of the folder alone brings back the one and not the other;
a copy of the whole machine brings back both, which only the peer's counter can tell. A shelf begins at one, so that a
copy of a shelf that nothing was taken from is told from a new one, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from pibench.errors import MaterialError


class Counter:
    """The counter of one shelf's folder."""

    def __init__(self, folder: Path) -> None:
        state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
        self._inside, self._outside = folder / "taken", Path(state) / "pibench" / "kept" / name
        try:
            self._outside.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise MaterialError(f"cannot count in {state}: {error}", remedy="set XDG_STATE_HOME") from error

    @property
    def value(self) -> int:
        """How often anything was taken, by whichever place says more."""
        return max(_read(self._inside), _read(self._outside))

    @property
    def agrees(self) -> bool:
        """Whether both places say the same."""
        return _read(self._inside) == _read(self._outside)

    def advance(self, to: int | None = None) -> None:
        """Count one more, or set both places, on disk before this returns."""
        value = self.value + 1 if to is None else to
        for path in (self._outside, self._inside):
            part = path.with_name(path.name + ".part")
            try:
                part.write_text(str(value), "ascii")
                sync(part)
                os.replace(part, path)
                sync(path.parent)
            except OSError as error:
                raise MaterialError(f"cannot count in {path}: {error}", remedy="free disk space there") from error


def _read(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text("ascii"))
    return 0


def sync(path: Path) -> None:
    """Have a file, or a folder's names, written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
