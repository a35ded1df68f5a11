"""Where a data set is on this machine, in which form, and whether it is the official one. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pibench.errors import DataError
from pibench.training.formats import ARCHIVES, first_folder, is_archive
from pibench.training.sources import SOURCES, Layout, Source, data_root, file_md5

State = Literal["embedded", "verified", "unverified", "partial", "absent"]


@dataclass(frozen=True)
class Found:
    """A data set's place: a folder or an archive, and the layout of what is in it."""

    path: Path
    layout: Layout


@dataclass(frozen=True)
class Status:
    """What `pibench data` says about one data set."""

    name: str
    title: str
    state: State
    path: Path | None
    detail: str


def find(source: Source, root: Path | None = None) -> Found:
    """Return where a data set is: `root` itself, or one of its official names in `root`; else a DataError."""
    base = root if root is not None else data_root()
    for layout in source.layouts:
        for path in _candidates(base, layout):
            if _has_any(path, layout) or (is_archive(path) and (path != base or first_folder(path) == layout.folder)):
                return Found(path, layout)
    first = source.layouts[0]
    assert first.archive is not None
    raise DataError(
        f"{source.title} is not there: neither {first.folder}/ nor {first.archive.name}",
        where=str(base),
        remedy=f"`pibench data {source.name} --download` fetches {first.archive.size / 1e6:.0f} MB from "
        f"{first.archive.url}; or set PIBENCH_DATA to the folder that holds it",
    )


def _candidates(base: Path, layout: Layout) -> list[Path]:
    """Return places to look at: the folder, archives by the official and the folder's name, `base` itself."""
    stems = [layout.folder]
    if layout.archive:
        stems.insert(0, layout.archive.name.removesuffix(".tar.gz").removesuffix(".zip"))
    archives = [base / f"{stem}{suffix}" for stem in stems for suffix in ARCHIVES]
    return [base / layout.folder, *archives, base]


def _has_any(path: Path, layout: Layout) -> bool:
    return path.is_dir() and any((path / name).exists() for name in (*layout.train, *layout.test))


def splits_in(found: Found) -> set[str]:
    """Return which splits a folder holds (an archive is taken to hold both)."""
    if not found.path.is_dir():
        return {"train", "test"}
    wanted = {"train": found.layout.train, "test": found.layout.test}
    return {split for split, names in wanted.items() if all((found.path / name).exists() for name in names)}


def status(source: Source, root: Path | None = None) -> Status:
    """Return the state of a data set, its hashes compared with the official ones."""
    if not source.layouts:
        return Status(source.name, source.title, "embedded", None, "comes with scikit-learn, no download")
    try:
        found = find(source, root)
    except DataError as error:
        return Status(source.name, source.title, "absent", None, error.remedy)
    there = splits_in(found)
    if missing := {"train", "test"} - there:
        detail = f"the {' and '.join(sorted(missing))} part is missing"
        return Status(source.name, source.title, "partial", found.path, detail)
    state, detail = _verify(found)
    return Status(source.name, source.title, state, found.path, detail)


def _verify(found: Found) -> tuple[State, str]:
    layout = found.layout
    if found.path.is_file():
        if layout.archive is None or not found.path.name.endswith(layout.archive.name):
            return "unverified", "not packed as the official archive: no hash to compare with"
        same = file_md5(found.path) == layout.archive.md5
        return ("verified", "the official archive") if same else ("unverified", "not the official archive, by its hash")
    if not layout.md5:
        return "unverified", "there are no official hashes of single files"
    other = [name for name, md5 in layout.md5 if file_md5(found.path / name) != md5]
    if other:
        return "unverified", f"{', '.join(other)}: not the official file, by its hash (order or contents differ)"
    return "verified", "every file is the official one"


def all_statuses(root: Path | None = None) -> list[Status]:
    """Return the state of every known data set."""
    return [status(source, root) for source in SOURCES.values()]
