"""The bytes of the data sets: CIFAR's binary and Python forms and TinyImageNet's folders, in a folder or an archive.

Nothing is unpacked to disk. CIFAR's Python form is a pickle; it is read by an unpickler that knows arrays and plain
containers only, so that a file from elsewhere cannot run code.
"""

from __future__ import annotations

import codecs
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pibench.errors import DataError
from pibench.training.sources import Layout

Bytes = NDArray[np.uint8]
Labels = NDArray[np.int64]
Wanted = Callable[[PurePosixPath], bool]
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip")
PIXELS = 3 * 32 * 32


def is_archive(path: Path) -> bool:
    """Tell whether a path is named like an archive that can be read."""
    return path.is_file() and path.name.endswith(ARCHIVES)


def entries(path: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the wanted files of a folder or an archive, with their paths in it."""
    try:
        if path.is_dir():
            yield from _in_folder(path, wanted)
        elif path.name.endswith(".zip"):
            yield from _in_zip(path, wanted)
        else:
            yield from _in_tar(path, wanted)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), remedy="delete it and fetch it again") from error


def _in_folder(path: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    for file in sorted(path.rglob("*")):
        name = PurePosixPath(file.relative_to(path).as_posix())
        if wanted(name) and file.is_file():
            yield name, file.read_bytes()


def _in_zip(path: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith("/") and wanted(PurePosixPath(name)):
                yield PurePosixPath(name), archive.read(name)


def _in_tar(path: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and wanted(PurePosixPath(member.name)):
                file = archive.extractfile(member)
                yield PurePosixPath(member.name), file.read() if file else b""


def first_folder(path: Path) -> str:
    """Return the folder that an archive begins with: it tells the layout, whatever the archive is called."""
    for name, _ in entries(path, lambda name: len(name.parts) > 1):
        return name.parts[0]
    return ""


# -- CIFAR ---------------------------------------------------------------------------------------------------------


def read_cifar(path: Path, layout: Layout, names: tuple[str, ...], classes: int) -> tuple[Bytes, Labels]:
    """Return the images (N, 3, 32, 32) and labels of the files `names`, in their order."""
    found = {name.name: data for name, data in entries(path, lambda name: name.name in names)}
    if missing := [name for name in names if name not in found]:
        raise DataError(f"{', '.join(missing)} is missing", where=str(path))
    parse = _binary if layout.kind == "cifar-binary" else _python
    parts = [parse(found[name], layout, f"{path}/{name}") for name in names]
    images, labels = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"labels beyond the {classes} classes: not this data set, or damaged", where=str(path))
    return images.reshape(-1, 3, 32, 32), labels


def _binary(data: bytes, layout: Layout, where: str) -> tuple[Bytes, Labels]:
    size = layout.label_bytes + PIXELS
    if not data or len(data) % size:
        raise DataError(
            f"truncated: {len(data)} bytes are no whole number of {size}-byte records",
            where=where,
            remedy="delete it and fetch it again (`pibench data NAME --download`)",
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    return records[:, layout.label_bytes :], records[:, layout.label_bytes - 1].astype(np.int64)


def _python(data: bytes, layout: Layout, where: str) -> tuple[Bytes, Labels]:
    try:
        batch = ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        images, labels = np.asarray(batch["data"], np.uint8), np.asarray(batch[layout.label_key], np.int64)
        if images.ndim != 2 or images.shape[1] != PIXELS or len(images) != len(labels):
            raise ValueError(f"images of shape {images.shape}, {len(labels)} labels")
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"not a CIFAR batch, or truncated: {error}", where=where) from error
    return images, labels


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler for arrays, numbers, strings and containers; it refuses everything else by name."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few allowed constructors."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR batch")
        if name == "encode":
            return codecs.encode
        if name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # whatever module this numpy keeps it in
        return getattr(np, name)


# -- TinyImageNet --------------------------------------------------------------------------------------------------


def tiny_class_names(path: Path) -> list[str]:
    """Return the class names (WordNet ids), sorted: a label is a place in this list."""
    for _, data in entries(path, lambda name: name.name == "wnids.txt"):
        return sorted(data.decode().split())
    raise DataError("wnids.txt is missing", where=str(path), remedy="it lists the classes of tiny-imagenet-200")


def read_tiny(path: Path, split: str, pixels: int) -> tuple[Bytes, Labels]:
    """Return the images (N, 3, pixels, pixels) and labels of `train` or `val`, by class and file name."""
    classes = {name: label for label, name in enumerate(tiny_class_names(path))}
    annotated = _annotations(path) if split == "val" else {}
    images, labels = [], []
    for name, data in entries(path, lambda name: name.suffix == ".JPEG" and _split_of(name) == split):
        wnid = annotated.get(name.name) or name.name.partition("_")[0]
        wnid = wnid if wnid in classes else name.parts[-3]  # val sorted into folders by class
        if wnid not in classes:
            raise DataError(f"{name} belongs to none of the classes of wnids.txt", where=str(path))
        images.append(decode_jpeg(data, pixels, f"{path}/{name}"))
        labels.append(classes[wnid])
    if not images:
        raise DataError(f"no image in {split}/", where=str(path))
    return np.stack(images), np.array(labels, np.int64)


def _split_of(name: PurePosixPath) -> str:
    return next((part for part in name.parts if part in {"train", "val", "test"}), "")


def _annotations(path: Path) -> dict[str, str]:
    rows: dict[str, str] = {}
    for _, data in entries(path, lambda name: name.name == "val_annotations.txt"):
        rows |= {cells[0]: cells[1] for line in data.decode().splitlines() if len(cells := line.split("\t")) > 1}
    return rows


def decode_jpeg(data: bytes, pixels: int, where: str) -> Bytes:
    """Return one image as (3, pixels, pixels); a few of the set are grey and become three equal channels."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"not a readable JPEG: {error}", where=where) from error
    if image.shape != (pixels, pixels, 3):
        raise DataError(f"an image of shape {image.shape} instead of {(pixels, pixels, 3)}", where=where)
    return image.transpose(2, 0, 1)
