"""Downloads with progress, taken up again where they broke off (HTTP Range). No torch here."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from pibench.errors import DataError
from pibench.training.sources import Archive, Source, data_root

CHUNK = 1 << 18
TIMEOUT_S = 30.0
Advance = Callable[[int, int | None], None]  # bytes so far, bytes in all where known


def ignore(_done: int, _total: int | None) -> None:
    """Report nothing."""


def fetch_source(source: Source, root: Path | None = None, advance: Advance = ignore) -> Path:
    """Download the official archive of a data set into `root`; returns its path, its hash checked."""
    archive = source.layouts[0].archive if source.layouts else None
    if archive is None:
        raise DataError(f"{source.title} comes with scikit-learn: there is nothing to download")
    return fetch(archive, (root or data_root()) / archive.name, advance)


def fetch(archive: Archive, target: Path, advance: Advance = ignore) -> Path:
    """Download one file: what is there of `target`.part is kept and the rest asked for."""
    if target.is_file() and archive.is_at(target):
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _transfer(archive.url, part, advance)
        if not archive.is_at(part):
            part.unlink()
            raise DataError(
                "what came is not the file that was meant: its hash differs",
                where=archive.url,
                remedy=f"it was deleted; try again, or put {archive.name} from elsewhere into {target.parent}",
            )
        os.replace(part, target)
    except OSError as error:
        raise _failed(archive, target, part, error) from error
    return target


def _transfer(url: str, part: Path, advance: Advance) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            if have and response.status != http.client.PARTIAL_CONTENT:
                have = 0  # the server sends the whole file: begin anew
            _write(response, part, have, advance)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        # nothing is left to send: the part is complete (the hash decides)


def _write(response: http.client.HTTPResponse, part: Path, have: int, advance: Advance) -> None:
    length = response.headers.get("Content-Length")
    total = have + int(length) if length else None
    with part.open("ab" if have else "wb") as file:
        advance(have, total)
        while chunk := response.read1(CHUNK):
            file.write(chunk)
            have += len(chunk)
            advance(have, total)
    if total is not None and have < total:
        raise ConnectionResetError(f"the connection broke off at {have} of {total} bytes")


def _failed(archive: Archive, target: Path, part: Path, error: OSError) -> DataError:
    reason = getattr(error, "reason", None) or error.strerror or error
    kept = f" ({part.stat().st_size / 1e6:.1f} MB are kept and the rest is fetched next time)" if part.is_file() else ""
    return DataError(
        f"could not be fetched: {reason}{kept}",
        where=archive.url,
        remedy=f"try again, or fetch {archive.name} another way and put it into {target.parent}",
    )
