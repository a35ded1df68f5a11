"""Data sets as resident tensors: images uint8 NCHW, labels int64, and the statistics to normalise them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pibench.errors import DataError

CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


@dataclass(frozen=True)
class Dataset:
    """Images and labels of one data set, both splits."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (x / 255 - mean) / std as float32."""
    scale = torch.tensor([1 / (255 * s) for s in std])[:, None, None]
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)])[:, None, None]
    return images.float() * scale - shift


def _cifar(path: Path, label_bytes: int) -> tuple[Tensor, Tensor]:
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if raw.size == 0 or raw.size % (label_bytes + 3072):
        raise DataError("truncated, or not a CIFAR binary", where=str(path))
    records = torch.from_numpy(raw).view(-1, label_bytes + 3072)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32).contiguous(), records[:, label_bytes - 1].long()


def load_dataset(name: str, root: Path | None = None) -> Dataset:
    """Load a data set."""
    import os

    folder = (root or Path(os.environ.get("PIBENCH_DATA", ""))) / "cifar-100-binary"
    train, test = (_cifar(folder / f"{split}.bin", 2) for split in ("train", "test"))
    return Dataset(name, *train, *test, CIFAR100_MEAN, CIFAR100_STD, 100)
