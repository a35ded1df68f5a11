"""Checkpoints: safetensors files that say what they hold. Never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pibench.errors import DataError

KEY = "pibench"  # of the metadata, one JSON document


def save_checkpoint(path: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and metadata so that a reader sees the old file or the whole new one."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
    try:
        temporary.touch()  # with the user's usual rights; safetensors would make a file for the owner alone
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, metadata={KEY: json.dumps(dict(meta), sort_keys=True)})
        temporary.chmod(mode)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a checkpoint, and its metadata (empty where it was not made here)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path), read_metadata(path)
    except FileNotFoundError as error:
        raise DataError("there is no such checkpoint", where=str(path)) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"not a readable safetensors file: {error}", where=str(path)) from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint without reading its tensors (and without torch)."""
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
