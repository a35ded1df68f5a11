"""Where suites, cards and checkpoints lie, and how they are found by name. Quick to import."""

from __future__ import annotations

import os
from pathlib import Path

from pibench.errors import UsageError
from pibench.registry import nearest


def data_folders(kind: str) -> list[Path]:
    """Folders that hold `kind` (networks, suites, zoo), nearest first: the user's, the repository's, the wheel's."""
    package = Path(__file__).resolve().parent
    candidates = [Path.cwd() / kind, package.parent / kind, package / "_data" / kind]
    if not (package.parent / "pyproject.toml").is_file():
        del candidates[1]  # installed: the folder beside the package is none of ours
    found = {os.path.realpath(folder): folder for folder in reversed(candidates) if folder.is_dir()}
    return [folder for folder in candidates if found.get(os.path.realpath(folder)) is folder]


def find_documents(kind: str) -> list[Path]:
    """Return the YAML files of all folders of `kind`, by name; a nearer folder hides a farther one."""
    found: dict[str, Path] = {}
    for folder in data_folders(kind):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return [found[name] for name in sorted(found)]


def resolve(name_or_path: str | Path, kind: str, what: str) -> Path:
    """Return the file of a card or suite given by name or path; raises UsageError with a near name."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        if is_file(path):
            return path
        raise UsageError(f"there is no such {what} file", where=str(path))
    for folder in data_folders(kind):
        if is_file(found := folder / f"{name_or_path}.yaml"):
            return found
    near = nearest(str(name_or_path), [found.stem for found in find_documents(kind)])
    raise UsageError(f"there is no {what} '{name_or_path}'{near}", remedy="`pibench ls` lists what there is")


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:  # too long
        return False


def summary(path: Path) -> dict[str, str]:
    """Return the plain `key: value` lines at the top level of a file: enough for a list, and quick; no check."""
    pairs = (line.partition(":") for line in path.read_text("utf-8", "replace").splitlines() if line[:1].isalpha())
    return {key: _unquoted(value.strip()) for key, _, value in pairs if value.strip()}


def _unquoted(value: str) -> str:
    """Return a YAML scalar of one line without its quotes; a doubled quote in single ones is one."""
    if len(value) > 1 and value[0] == value[-1] == "'":
        return value[1:-1].replace("''", "'")
    return value.strip('"')
