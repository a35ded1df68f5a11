"""What git says of a working tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pibench.records.record import Git

TIMEOUT_S = 30.0


class NoAnswer(Exception):
    """There is no git, it does not end, or it refuses: its last line, empty where it said nothing."""


class Refused(NoAnswer):
    """Git answered that it will not."""


def ask(folder: Path | None, *arguments: str, timeout_s: float = TIMEOUT_S) -> str:
    """Return git's answer in a folder (None: the current one); NoAnswer or Refused where there is none."""
    command = ["git", *(["-C", str(folder)] if folder else []), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(str(error)) from error
    if done.returncode:
        raise Refused("".join(done.stderr.strip().splitlines()[-1:]))
    return done.stdout.strip()


def git(folder: Path | None, *arguments: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Return git's answer in a folder; None where there is no git, no repository, or nothing of that name."""
    try:
        return ask(folder, *arguments, timeout_s=timeout_s)
    except NoAnswer:
        return None


def git_state(folder: Path) -> Git:
    """Return commit and cleanliness of the working tree that a folder lies in; nothing where there is none."""
    commit = git(folder, "rev-parse", "HEAD")
    if not commit:
        return Git()
    changed = git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/")
    return Git(commit=commit, dirty=None if changed is None else bool(changed))
