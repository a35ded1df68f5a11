"""Data sets as resident tensors: images uint8 NCHW, labels int64, and the statistics to normalise them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pibench.errors import DataError
from pibench.training.find_data import Found, find, splits_in
from pibench.training.formats import read_cifar, read_tiny
from pibench.training.sources import Source, source_of

DIGITS_FOLD = 5  # scikit-learn's digits: image i is held out where i is a multiple of this


@dataclass(frozen=True)
class Dataset:
    """Images and labels of one data set; the training split has length 0 where it was not asked for."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int

    def to(self, device: torch.device) -> Dataset:
        """Return the data set with its tensors on a device."""
        names = ("train_images", "train_labels", "test_images", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (x / 255 - mean) / std as float32."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device)[:, None, None]
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=images.device)[:, None, None]
    return images.float() * scale - shift


def load_dataset(name: str, root: Path | None = None, *, train: bool = True) -> Dataset:
    """Load a data set from `root` (a folder or an archive; by default $PIBENCH_DATA or ~/.cache/pibench/data).

    Without `train` the training split is neither needed nor read. Raises DataError, which says what to do.
    """
    source = source_of(name)
    if name == "digits":
        splits = _digits()
    else:
        found = find(source, root)
        _require(source, found, ("train", "test") if train else ("test",))
        splits = {split: _read(source, found, split) for split in (("train", "test") if train else ("test",))}
    empty = (torch.empty(0, *source.image, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    images, labels = splits.get("train", empty) if train else empty
    return Dataset(name, images, labels, *splits["test"], source.mean, source.std, source.classes)


def _require(source: Source, found: Found, splits: tuple[str, ...]) -> None:
    there = splits_in(found)
    for split in splits:
        if split not in there:
            raise DataError(
                f"{source.title}: the {split} part is missing",
                where=str(found.path),
                remedy=f"fetch the whole set: `pibench data {source.name} --download`",
            )


def _read(source: Source, found: Found, split: str) -> tuple[Tensor, Tensor]:
    layout = found.layout
    names = layout.train if split == "train" else layout.test
    if layout.kind == "folders":
        images, labels = read_tiny(found.path, names[0], source.image[1])
    else:
        images, labels = read_cifar(found.path, layout, names, source.classes)
    return torch.from_numpy(np.array(images)), torch.from_numpy(labels)


def _digits() -> dict[str, tuple[Tensor, Tensor]]:
    """Return scikit-learn's 1,797 digits, their 17 grey levels spread over a byte; every fifth is held out."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    held = torch.arange(len(labels)) % DIGITS_FOLD == 0
    return {"train": (images[~held], labels[~held]), "test": (images[held], labels[held])}
