"""Checkpoints of others: safetensors or torch's own format, nested or prefixed as training left them.

A file of torch's is read with `weights_only=True`: tensors and containers, and no code. What was done to make its names
the network's is said, and what does not fit is shown as a difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pibench.errors import DataError
from pibench.training.checkpoint import load_checkpoint

NESTS = ("state_dict", "model_state_dict", "model", "net", "snet", "network", "module", "weights", "params")
BESIDE = ("n_averaged",)  # what AveragedModel keeps beside the weights
_SHOWN = 4
_TORCH = (b"PK", b"\x80\x02", b"\x80\x04")  # a zip archive, or a pickle of old


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a checkpoint in either format, and its metadata (empty where it was not made here)."""
    try:
        start = path.open("rb").read(2)
    except OSError:
        return load_checkpoint(path)
    if not start.startswith(_TORCH):
        return load_checkpoint(path)
    try:
        with torch.serialization.safe_globals(_inert()):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(
            f"it holds more than tensors, or is damaged: {str(error).splitlines()[0]}", where=str(path),
            remedy="write the weights alone: torch.save(network.state_dict(), FILE)",
        ) from error  # fmt: skip
    return _tensors(held, path), {}


def _inert() -> list[Any]:
    """Return what training scripts keep beside the weights and that is data alone: options, numbers of numpy's."""
    scalar = np.float64(0).__reduce__()[0]
    numbers = {type(np.dtype(kind)) for kind in "?bhilqBHILQefd"}
    old = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    return [argparse.Namespace, np.dtype, *numbers, *old]


def _tensors(held: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of what was saved: a state_dict, or one inside of a dictionary."""
    while isinstance(held, Mapping):
        inner = next((held[name] for name in NESTS if isinstance(held.get(name), Mapping)), None)
        if inner is None and not _tensors_in(held):  # the one thing in it that has tensors, whatever it is called
            others = [value for value in held.values() if isinstance(value, Mapping) and _tensors_in(value)]
            inner = others[0] if len(others) == 1 else None
        if inner is None:
            break
        held = inner
    found = _tensors_in(held)
    if not found:
        raise DataError(
            f"there are no weights in it, nor under {', '.join(NESTS[:5])}", where=str(path),
            remedy="write the weights alone: torch.save(network.state_dict(), FILE)",
        )  # fmt: skip
    return found


def _tensors_in(held: Any) -> dict[str, Tensor]:
    return {k: v for k, v in held.items() if isinstance(v, Tensor)} if isinstance(held, Mapping) else {}


def fitted(state: Mapping[str, Tensor], module: nn.Module, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the file's tensors under the network's names, and what that took; DataError where they do not fit."""
    own = module.state_dict()
    state = {name: value for name, value in state.items() if name in own or name not in BESIDE}
    said: list[str] = []
    while prefix := _prefix(state, own):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        said.append(f"every name in {path.name} begins with {prefix} (left out)")
    if (prefix := _prefix(own, state)) and not set(own) & set(state):
        state = {prefix + name: value for name, value in state.items()}
        said.append(f"every name of the network begins with {prefix} (added)")
    state = _tied(state, module, own)
    if wrong := _differences(state, own):
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise DataError(f"the checkpoint is of another network: {'; '.join(wrong[:_SHOWN])}{more}", where=str(path))
    for name, value in state.items():
        _check(name, value, own[name], path)
    return {name: value.to(own[name].dtype) for name, value in state.items()}, said


def _prefix(names: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return a first part that all names share and that stands in the way of names that are wanted."""
    firsts = {name.split(".", 1)[0] for name in names if "." in name}
    if len(firsts) != 1 or not all("." in name for name in names):
        return ""
    prefix = f"{firsts.pop()}."
    return "" if any(name.startswith(prefix) for name in wanted) else prefix


def _tied(state: dict[str, Tensor], module: nn.Module, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a weight that the network has under two names, and the file under one, to both."""
    by_place: dict[int, str] = {v.data_ptr(): name for name, v in own.items() if name in state and not v.is_meta}
    shared = {name: by_place[v.data_ptr()] for name, v in own.items() if name not in state and v.data_ptr() in by_place}
    alike = {name: other for name, other in shared.items() if own[name].numel() and own[name].shape == own[other].shape}
    return state | {name: state[other] for name, other in alike.items()}


def _differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Return what differs, in turns: what the file has instead, and what it lacks."""
    unknown = [f"{name} ({_shape(value)}) is unknown" for name, value in state.items() if name not in own]
    missing = [f"{k} is missing" for k in own if k not in state and not k.endswith("num_batches_tracked")]
    turns = [word for pair in zip(unknown, missing, strict=False) for word in pair]
    shorter = min(len(unknown), len(missing))
    both = [k for k in state if k in own and state[k].shape != own[k].shape]
    others = [f"{k} is {_shape(state[k])}, not {_shape(own[k])}" for k in both]
    return [*turns, *unknown[shorter:], *missing[shorter:], *others]


def _check(name: str, value: Tensor, own: Tensor, path: Path) -> None:
    """Refuse what is no weight: whole numbers without a scale, and what is not finite."""
    if own.is_floating_point() and not value.is_floating_point() and value.dtype != torch.bool:
        kind = str(value.dtype).removeprefix("torch.")
        raise DataError(f"{name} is {kind}: there is no scale for it", where=str(path))
    if value.is_floating_point() and not bool(value.isfinite().all()):
        raise DataError(f"{name} holds numbers that are not finite", where=str(path))


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
