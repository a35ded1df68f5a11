"""Pictures in folders, one folder a class, as a data set to measure one's own network on.

Nothing is guessed in silence: what was cut to size, and which folder was taken, is said.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pibench.errors import DataError, UsageError
from pibench.training.data import Dataset

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
HELD_OUT = ("test", "val", "valid", "validation")  # in this order
MODES = {1: "L", 3: "RGB"}  # by channels


@dataclass(frozen=True)
class Pictures:
    """A data set, what its classes are called (none where folders are numbers: those are the labels), and notes."""

    data: Dataset
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_pictures(folder: Path, shape: Sequence[int], most: int) -> Pictures:
    """Read up to `most` pictures of root/class/*.png as images of `shape` (C, H, W), uint8, mean 0 and deviation 1.

    They come in an order that is mixed and always the same, so that the first ones are of all classes. A picture of
    another size is scaled to cover the image and cut at its middle. Raises DataError for what is no such folder.
    """
    if len(shape) != 3 or shape[0] not in MODES:
        raise UsageError(f"pictures have 1 or 3 channels, and the network takes {tuple(shape)}", where=str(folder))
    root, notes = _root(folder)
    names = _classes(root)
    numbered = all(re.fullmatch(r"\d{1,6}", name) for name in names)
    found = [(file, int(name) if numbered else rank) for rank, name in enumerate(names) for file in _files(root / name)]
    if not found:
        raise _no_folder(root, "its folders hold no picture")
    random.Random(0).shuffle(found)
    found = found[: max(most, 1)]
    images, cut = torch.empty(len(found), *shape, dtype=torch.uint8), 0
    for row, (file, _) in enumerate(found):
        pixels, fits = _pixels(file, shape)
        images[row] = torch.from_numpy(pixels)
        cut += not fits
    if cut:
        size = "x".join(map(str, shape[1:]))
        notes.append(f"{cut} of {len(found)} pictures were scaled to cover {size} and cut at their middle")
    labels = torch.tensor([label for _, label in found], dtype=torch.int64)
    nothing = (torch.empty(0, *shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    zero, one = (0.0,) * shape[0], (1.0,) * shape[0]
    data = Dataset(folder.resolve().name, *nothing, images, labels, zero, one, len(names))
    return Pictures(data, () if numbered else tuple(names), tuple(notes))


def _root(folder: Path) -> tuple[Path, list[str]]:
    """Return the folder whose folders are classes: the held-out part, where the parts lie beside one another."""
    inside = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else {}
    part = next((inside[name] for name in HELD_OUT if name in inside), None)
    if part is None or not inside.keys() <= {*HELD_OUT, "train", "training"}:
        return folder, []
    return part, [f"images of its part {part.name}"]


def _classes(root: Path) -> list[str]:
    try:
        names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(root)) from error
    if not names:
        raise _no_folder(root, "it holds no folders")
    return names


def _no_folder(root: Path, why: str) -> DataError:
    return DataError(f"no pictures in folders of classes: {why}", where=str(root), remedy=f"{root}/CLASS/PICTURE.png")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())


def _pixels(file: Path, shape: Sequence[int]) -> tuple[NDArray[np.uint8], bool]:
    """Return one picture as uint8 (C, H, W), and whether it had that size."""
    try:
        with Image.open(file) as opened:
            picture = _eight_bits(opened) if opened.mode.startswith(("I", "F")) else opened
            picture = picture.convert(MODES[shape[0]])
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise DataError(f"is no picture that can be read: {error}", where=str(file)) from error
    height, width = shape[1:]
    fits = picture.size == (width, height)
    if not fits:
        scale = max(width / picture.width, height / picture.height)
        wide, high = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
        left, top = (wide - width) // 2, (high - height) // 2
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
    pixels = np.asarray(picture, dtype=np.uint8).reshape(height, width, -1)
    return np.array(pixels.transpose(2, 0, 1), order="C"), fits


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Return a picture of 16 bits, which Pillow would clip, by its upper eight."""
    values = np.asarray(picture)
    if values.dtype.kind == "f" or int(values.max(initial=0)) > 0xFFFF or int(values.min(initial=0)) < 0:
        raise ValueError("its grey levels are not whole numbers of 16 bits")
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8), "L")
