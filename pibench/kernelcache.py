"""Where compiled kernels are kept, if not even beside an installation that cannot be written.

numba keeps what it compiled beside the source, else in the user's cache folder, and fails where it may write neither:
in a container that runs as another user without a home, say.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def settle() -> None:
    """Choose a private folder for compiled kernels where numba would find none; what the user set stays."""
    if os.environ.get(VARIABLE) or any(_writable(folder) for folder in _of_numba()):
        return
    os.environ[VARIABLE] = str(_private())


def where() -> str:
    """Return the folder below which compiled kernels are kept."""
    chosen = os.environ.get(VARIABLE)
    return chosen or str(next((folder for folder in _of_numba() if _writable(folder)), "nowhere"))


def _of_numba() -> tuple[Path, Path]:
    """Return the folders below which numba tries by itself: beside each source, and the user's."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(__file__).parent, Path(home) / "numba"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _private() -> Path:
    """Return this user's folder under the temporary one; what is read from it is code, so nobody else may own it."""
    folder = Path(tempfile.gettempdir()) / f"pibench-kernels-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if status.st_uid == os.getuid() and status.st_mode & 0o777 == 0o700 and not folder.is_symlink():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="pibench-kernels-"))
