"""Where records live: an append-only folder, `.pibench/runs/`, one JSON file a run."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pibench.errors import StoreError, UsageError

ROOT = Path(".pibench")
_held: dict[Path, int] = {}  # folders of this process's runs, each with its lock


def runs_folder(root: Path | None = None) -> Path:
    """Return the folder of records (`root`: instead of the current folder's `.pibench`)."""
    return (root or ROOT) / "runs"


def new_record_path(suite: str, root: Path | None = None, now: datetime | None = None) -> Path:
    """Return a path that no record has yet: <utc>-<suite>.json, with a number where two runs share a second."""
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    base = runs_folder(root) / f"{stamp}-{re.sub(r'[^A-Za-z0-9._-]+', '-', suite)}.json"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.stem}-{number}.json")
    return path


def record_paths(root: Path | None = None) -> list[Path]:
    """Return all records, oldest first."""
    return sorted(runs_folder(root).glob("*.json"), key=lambda path: path.stem)


def find_record(name: str, root: Path | None = None) -> Path:
    """Return the record meant by a path, the beginning of an id, `last` (`latest`) or `last~N`; UsageError if none."""
    if (path := Path(name)).is_file():
        return path
    known = record_paths(root)
    if from_the_end := re.fullmatch(r"(?:last|latest)(?:~(\d+))?", name):
        back = int(from_the_end[1] or 0)
        fitting = [known[-1 - back]] if back < len(known) else []
    else:
        fitting = [path for path in known if name and path.name.startswith(name)]
        fitting = [path for path in fitting if name in (path.name, path.stem)] or fitting
    if len(fitting) == 1:
        return fitting[0]
    what = f"{len(fitting)} records begin with {name!r}" if fitting else f"there is no record {name!r}"
    last = f"the last one is {known[-1]}, `pibench ls` lists them" if known else "run a suite first: `pibench run`"
    raise UsageError(what, remedy=last)


def scratch_folder(root: Path | None = None) -> Path:
    """Return a new private folder for one run's files (weights, images), and clear those of runs that are no more.

    A run holds a lock on its folder, which the kernel takes back when the process dies, whatever killed it and in
    whichever container: process ids mean nothing between two.
    """
    parent = (root or ROOT) / "tmp"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent / ".lock"):  # nobody sweeps a folder that is made but not locked yet
            _sweep(parent)
            folder = Path(tempfile.mkdtemp(prefix="session-", dir=parent))
            _held[folder] = _lock(folder / ".lock", wait=False)
        return folder
    except OSError as error:
        raise StoreError(
            f"no room for the run's files: {error.strerror}", where=str(parent), remedy="free space or run elsewhere"
        ) from error


def release_scratch(folder: Path) -> None:
    """Remove a run's folder and give up its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    if (held := _held.pop(folder, None)) is not None:
        os.close(held)


def _lock(path: Path, *, wait: bool) -> int:
    """Return a file that is locked until it is closed; BlockingIOError where another process holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(file)
        raise
    return file


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = _lock(path, wait=True)
    try:
        yield
    finally:
        os.close(file)


def _sweep(parent: Path) -> None:
    """Remove what runs left that were killed outright: nobody holds its lock."""
    for folder in parent.glob("session-*"):
        with suppress(OSError):
            file = _lock(folder / ".lock", wait=False)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(file)
