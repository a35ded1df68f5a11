"""What a checkpoint says about itself, read from its header. No torch here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pibench.errors import DataError

KEY = "pibench"  # of the metadata, one JSON document


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint without reading its tensors."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        found = json.loads(header.get("__metadata__", {}).get(KEY, "{}"))
    except (OSError, ValueError, AttributeError, OverflowError, MemoryError) as error:
        raise DataError(f"not a readable safetensors file: {error}", where=str(path)) from error
    return found if isinstance(found, dict) else {}


def file_sha256(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
