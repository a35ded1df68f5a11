"""What a network is shown: a data set's test images, pictures of one's own in folders, or random ones."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pibench.errors import DataError, UsageError
from pibench.registry import DATASETS, UNFETCHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pibench.run.settings import Needs
    from pibench.training.data import Dataset

CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class Shown:
    """Where images come from, and what is to be said of it."""

    data: Dataset | None = None  # None: random images
    note: str | None = None
    classes: tuple[str, ...] = ()  # folders in the order of their labels

    def images(self, shape: Sequence[int], needs: Needs) -> tuple[Tensor, NDArray[np.int64] | None]:
        """Return the first test images (n, *shape), normalised, with labels (n,); random ones without labels."""
        if self.data is None:
            generator = torch.Generator().manual_seed(seed_of(needs.seed, "images"))
            return torch.randn(needs.images, *shape, generator=generator), None
        from pibench.training.data import normalise

        wanted = min(max(needs.images, needs.plain_images), len(self.data.test_labels))
        given = tuple(self.data.test_images.shape[1:])
        if given != tuple(shape):
            raise UsageError(f"the network takes images of shape {tuple(shape)}, those of {self.data.name} are {given}")
        images = normalise(self.data.test_images[:wanted], self.data.mean, self.data.std)
        return images, self.data.test_labels[:wanted].numpy()

    def calibrating(self, shape: Sequence[int], needs: Needs) -> Tensor:
        """Return images to calibrate on: the same ones however many a run takes, since they decide the weights."""
        few = dataclasses.replace(needs, images=CALIBRATION_IMAGES, plain_images=CALIBRATION_IMAGES)
        return self.images(shape, few)[0][:CALIBRATION_IMAGES]


def shown_by(
    name: str | None, shape: Sequence[int], needs: Needs, normalisation: Sequence[float] | None = None
) -> Shown:
    """Return a data set's images, by its name or a folder's; random ones, and why, where there is none.

    `normalisation` are a mean and a deviation, or one of each a channel (all means first), of pixels from 0 to 1.
    Raises DataError for a data set that is damaged.
    """
    if name is None:
        if normalisation is not None:
            raise UsageError("random images are normal as they are", where="--normalise", remedy="add --dataset")
        return Shown(note="no data set was named: random images, no accuracy")
    if name in UNFETCHED:
        return Shown(note=f"random images, no accuracy: {name} is not fetched")
    found = _standard(name) if name in DATASETS else _own_folder(Path(name), shape, needs, normalisation)
    if normalisation is None or found.data is None:
        return found
    mean, std = _by_channel(normalisation, len(found.data.mean))
    return dataclasses.replace(found, data=dataclasses.replace(found.data, mean=mean, std=std))


def _standard(name: str) -> Shown:
    from pibench.training.data import load_dataset
    from pibench.training.find_data import find, splits_in
    from pibench.training.sources import source_of

    source = source_of(name)
    if source.layouts:  # not one that comes with a dependency
        try:
            there = splits_in(find(source))
        except DataError as error:
            return Shown(note=f"random images, no accuracy: {error.what}")
        if "test" not in there:
            return Shown(note=f"random images, no accuracy: {source.title} lacks its test part")
    return Shown(load_dataset(name, train=False))


def _own_folder(folder: Path, shape: Sequence[int], needs: Needs, normalisation: Sequence[float] | None) -> Shown:
    from pibench.training.pictures import read_pictures

    most = max(needs.images, needs.plain_images, CALIBRATION_IMAGES)
    found = read_pictures(folder, shape, most)
    notes = list(found.notes)
    if normalisation is None:
        notes.append("pixels from 0 to 1, not normalised (--normalise MEAN,STD)")
    return Shown(found.data, "; ".join(notes) or None, found.classes)


def _by_channel(numbers: Sequence[float], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return means and deviations a channel."""
    if len(numbers) not in (2, 2 * channels):
        raise UsageError(
            f"{len(numbers)} numbers for images of {channels} channels", where="--normalise",
            remedy=f"a mean and a deviation, or {channels} means and then {channels} deviations",
        )  # fmt: skip
    half = len(numbers) // 2
    repeat = channels // half
    return tuple(numbers[:half]) * repeat, tuple(numbers[half:]) * repeat


def seed_of(seed: int, name: str) -> int:
    """Return the seed of what is drawn for this name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little")
