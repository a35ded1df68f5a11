"""What a checkpoint says about itself, read from its header. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pibench.errors import DataError
from pibench.networks.spec import AnyNetwork
from pibench.training.sources import file_hash

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


def differences(meta: Mapping[str, Any], network: AnyNetwork) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which a checkpoint's network, as its metadata tells it, differs from `network`: both values.

    Empty where it tells none: the file was not made here. Some fields change no tensor's shape (culled stages,
    thinning, strides), so that weights of another function would load without complaint.
    """
    if (told := meta.get("network")) is None:
        return {}
    ours, theirs = network.model_dump(), dict(told) if isinstance(told, Mapping) else {}
    if theirs.get("family") != ours["family"]:
        return {"family": (theirs.get("family"), ours["family"])}
    try:
        theirs = type(network).model_validate(theirs).model_dump()
    except ValidationError as error:  # of a later version, perhaps
        names = [str(problem["loc"][0]) if problem["loc"] else "network" for problem in error.errors()]
        return {name: (theirs.get(name), ours.get(name)) for name in names}
    unlike = [name for name in ours if _comparable(name, ours[name]) != _comparable(name, theirs[name])]
    return {name: (theirs[name], ours[name]) for name in unlike}


def require_network(path: Path, meta: Mapping[str, Any], network: AnyNetwork) -> None:
    """Raise DataError, which names the fields, where a checkpoint's metadata tells another network than this."""
    if found := differences(meta, network):
        fields = "; ".join(f"{name} is {theirs}, not {ours}" for name, (theirs, ours) in found.items())
        raise DataError(f"the checkpoint is of another network: {fields}", where=str(path))


def _comparable(name: str, value: Any) -> Any:
    return sorted(value) if name in {"culled", "quadratic_sites", "linear_sites"} else value  # in any order


def file_sha256(path: Path) -> str:
    """Return the hash of a file."""
    return file_hash(path, "sha256")
