"""How this package starts processes of its own: what they import is this installation, never the current folder."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # where this package lies


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package; the current folder is not on its path (`-P`)."""
    return [sys.executable, "-P", "-m", module, *arguments]


def variables() -> dict[str, str]:
    """Return this process's environment, with its import path but for the current folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(search_path())}


def search_path() -> list[str]:
    """Return `sys.path` without the current folder, whose `secrets.py` would stand before the standard library's.

    Where this package itself lies in the current folder (a checkout that is not installed), that comes right after the
    standard library: before whatever other copy of the package is installed.
    """
    here, standard = Path.cwd().resolve(), Path(sysconfig.get_paths()["stdlib"]).resolve()
    entries = [entry for entry in sys.path if entry and Path(entry).resolve() != here]
    if here == ROOT:
        last = max((n for n, entry in enumerate(entries) if _within(Path(entry).resolve(), standard)), default=-1)
        entries.insert(last + 1, str(ROOT))
    return entries


def _within(entry: Path, standard: Path) -> bool:
    """Whether a folder is the standard library or its compiled part (and not the packages inside it)."""
    return entry == standard or (entry.parent == standard and entry.name == "lib-dynload")
