"""Where the data sets come from: official addresses, file names and hashes. No torch here.

CIFAR: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. TinyImageNet: a course subset of
ImageNet under non-commercial research terms. Digits: scikit-learn's copy of a part of UCI's optical digits, which
needs no download.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pibench.errors import UsageError

Stats = tuple[float, ...]


@dataclass(frozen=True)
class Archive:
    """One file to fetch: its address, and the MD5 that its publisher or the common loaders give, or a SHA-256."""

    url: str
    md5: str
    size: int
    sha256: str = ""  # decides where it is known

    @property
    def name(self) -> str:
        """File name of the archive."""
        return self.url.rpartition("/")[2]

    def is_at(self, path: Path) -> bool:
        """Return whether a file has this hash."""
        return file_hash(path, "sha256") == self.sha256 if self.sha256 else file_hash(path, "md5") == self.md5


@dataclass(frozen=True)
class Layout:
    """One form in which a data set comes: folder, files by split, and the MD5 of each file."""

    kind: str  # cifar-binary | cifar-python | folders
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int = 1  # cifar-binary: the last of them is the label
    label_key: str = "labels"  # cifar-python
    md5: tuple[tuple[str, str], ...] = ()
    archive: Archive | None = None


@dataclass(frozen=True)
class Source:
    """A data set: its shape, its statistics and the layouts it is known in."""

    name: str
    title: str
    classes: int
    image: tuple[int, int, int]
    n_train: int
    n_test: int
    mean: Stats
    std: Stats
    layouts: tuple[Layout, ...] = ()


_KRIZ = "https://www.cs.toronto.edu/~kriz/"
_C10_BATCHES = tuple(f"data_batch_{n}" for n in range(1, 6))

CIFAR10_BINARY = Layout(
    "cifar-binary",
    "cifar-10-batches-bin",
    tuple(f"{name}.bin" for name in _C10_BATCHES),
    ("test_batch.bin",),
    archive=Archive(_KRIZ + "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170_052_171),
)
CIFAR10_PYTHON = Layout(
    "cifar-python",
    "cifar-10-batches-py",
    _C10_BATCHES,
    ("test_batch",),
    md5=(
        ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
        ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        ("data_batch_4", "634d18415352ddfa80567beed471001a"),
        ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ("test_batch", "40351d587109b95175f43aff81a1287e"),
    ),
    archive=Archive(_KRIZ + "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", 170_498_071),
)
CIFAR100_BINARY = Layout(
    "cifar-binary",
    "cifar-100-binary",
    ("train.bin",),
    ("test.bin",),
    label_bytes=2,  # coarse, fine
    md5=(("train.bin", "6172c7755cfe09b2fe270c85cebc1b15"), ("test.bin", "4499cfba6c016c1be1438163640a0898")),
    archive=Archive(_KRIZ + "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", 168_513_733),
)
CIFAR100_PYTHON = Layout(
    "cifar-python",
    "cifar-100-python",
    ("train",),
    ("test",),
    label_key="fine_labels",
    md5=(("train", "16019d7e3df5f24257cddd939b257f8d"), ("test", "f0ef6b0ae62326f3e7ffdfab6717acfc")),
    archive=Archive(_KRIZ + "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437),
)
TINY_FOLDERS = Layout(
    "folders",
    "tiny-imagenet-200",
    ("train",),
    ("val",),
    archive=Archive(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", 248_100_043
    ),
)

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("digits", "scikit-learn's handwritten digits", 10, (1, 8, 8), 1437, 360, (0.3053,), (0.3761,)),
        Source(
            "cifar10", "CIFAR-10", 10, (3, 32, 32), 50_000, 10_000,
            (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), (CIFAR10_BINARY, CIFAR10_PYTHON),
        ),
        Source(
            "cifar100", "CIFAR-100", 100, (3, 32, 32), 50_000, 10_000,
            (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), (CIFAR100_BINARY, CIFAR100_PYTHON),
        ),
        Source(
            "tinyimagenet", "TinyImageNet", 200, (3, 64, 64), 100_000, 10_000,
            (0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262), (TINY_FOLDERS,),
        ),
    )
}  # fmt: skip


def source_of(name: str) -> Source:
    """Return what is known about a data set; raises UsageError with the names there are."""
    if name not in SOURCES:
        raise UsageError(f"there is no data set '{name}'", remedy=f"known: {', '.join(SOURCES)}")
    return SOURCES[name]


def data_root() -> Path:
    """Return the folder that holds data sets: $PIBENCH_DATA, or ~/.cache/pibench/data."""
    given = os.environ.get("PIBENCH_DATA")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "pibench" / "data"


def file_md5(path: Path) -> str:
    """Return the MD5 of a file, the only hash that the publishers give."""
    return file_hash(path, "md5")


def file_hash(path: Path, kind: str) -> str:
    """Return a hash of a file; md5 tells files apart and secures nothing."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=kind != "md5")).hexdigest()
