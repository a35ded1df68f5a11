"""Checkpoints: safetensors files that say what they hold. Never a pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pibench.errors import DataError
from pibench.training.metadata import KEY, file_sha256, read_metadata

__all__ = ["file_sha256", "load_checkpoint", "packed", "read_metadata", "save_checkpoint", "unpacked"]

SCALE = "::scale"  # suffix of the scales of a tensor that is stored in 8 bits
Form = Literal["float32", "float16", "int8"]


def save_checkpoint(path: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and metadata so that a reader sees the old file or the whole new one."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    try:
        temporary.touch()  # with the user's usual rights; safetensors would make a file for the owner alone
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, metadata={KEY: json.dumps(dict(meta), sort_keys=True)})
        temporary.chmod(mode)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot be written: {getattr(error, 'strerror', None) or error}", where=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def packed(state: Mapping[str, Tensor], form: Form) -> dict[str, Tensor]:
    """Return the tensors in a smaller form; what has one dimension (biases, BatchNorm) and masks stay as they are.

    int8 has one scale a row (output channel): the largest magnitude becomes 127.
    """
    small: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue  # matters to training alone
        if form == "float32" or value.dim() < 2 or not value.is_floating_point():
            small[name] = value
        elif form == "float16":
            small[name] = value.half()
        else:
            scale = (value.flatten(1).abs().amax(1) / 127).clamp_min(1e-12)
            small[name] = (value / _as_rows(scale, value)).round().to(torch.int8)
            small[name + SCALE] = scale
    return small


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with those in 8 bits multiplied out."""
    return {
        name: value.float() * _as_rows(state[name + SCALE], value) if name + SCALE in state else value
        for name, value in state.items()
        if not name.endswith(SCALE)
    }


def _as_rows(scale: Tensor, value: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (value.dim() - 1))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a checkpoint, and its metadata (empty where it was not made here)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return unpacked(load_file(path)), read_metadata(path)
    except FileNotFoundError as error:
        raise DataError("there is no such checkpoint", where=str(path)) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"not a readable safetensors file: {error}", where=str(path)) from error
