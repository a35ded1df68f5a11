"""Masks as files: one boolean tensor a site. Reads our checkpoints' masks and those that others export.

In a checkpoint the mask of a site is the buffer `<site>.mask`. An imported file may also name its tensors
`mask.<site>`, `<site>.alphas` (as SNL does) or `<site>`, hold them as 0/1 numbers, carry a batch dimension of 1, or
give one value a channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pibench.errors import DataError
from pibench.networks.build import masks_of
from pibench.reduction.gates import set_masks
from pibench.training.foreign import read_state


def read_masks(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return the masks of a file for sites of these shapes; raises DataError where one is missing or does not fit."""
    tensors = read_state(path)[0]
    found: dict[str, Tensor] = {}
    for site, shape in shapes.items():
        names = (f"{site}.mask", f"mask.{site}", f"{site}.alphas", site)
        tensor = next((tensors[name] for name in names if name in tensors), None)
        if tensor is None:
            raise DataError(f"there is no mask for site {site}", where=str(path), remedy=f"name it mask.{site}")
        found[site] = _as_mask(tensor, shape, site, path)
    return found


def import_masks(module: nn.Module, path: Path) -> int:
    """Put a file's masks into a network with masked sites; returns how many ReLUs they keep."""
    masks = read_masks(path, {name: tuple(mask.shape) for name, mask in masks_of(module).items()})
    set_masks(module, masks)
    return sum(int(mask.sum()) for mask in masks.values())


def _as_mask(tensor: Tensor, shape: tuple[int, ...], site: str, path: Path) -> Tensor:
    if tensor.dim() == len(shape) + 1 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.dtype != torch.bool:
        if not bool(((tensor == 0) | (tensor == 1)).all()):
            raise DataError(f"the mask of {site} holds other numbers than 0 and 1", where=str(path))
        tensor = tensor != 0
    if tensor.dim() == 1 and len(shape) == 3 and len(tensor) == shape[0]:
        tensor = tensor[:, None, None]
    try:
        return tensor.expand(shape).clone()
    except RuntimeError as error:
        given = tuple(tensor.shape)
        raise DataError(f"the mask of {site} has shape {given}, the site {shape}", where=str(path)) from error
