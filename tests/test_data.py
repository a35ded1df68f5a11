"""Data sets: every form they come in, from small files that the tests write; refusals say what and what to do."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pibench.cli import main
from pibench.errors import DataError, UsageError
from pibench.training.data import load_dataset, normalise
from pibench.training.find_data import status
from pibench.training.formats import ArrayUnpickler
from pibench.training.sources import SOURCES, file_md5

RNG = np.random.default_rng(7)
N = 12


def images(count: int = N) -> np.ndarray:
    return RNG.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def binary(pixels: np.ndarray, *labels: np.ndarray) -> bytes:
    columns = [label.astype(np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, pixels.reshape(len(pixels), -1)], axis=1).tobytes()


@pytest.fixture
def cifar100(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A tiny CIFAR-100 in its binary form: root, test images, test labels."""
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    pixels, fine = images(), RNG.integers(0, 100, N)
    (folder / "train.bin").write_bytes(binary(images(), fine // 5, fine))
    (folder / "test.bin").write_bytes(binary(pixels, fine // 5, fine))
    return tmp_path, pixels, fine


def pack(folder: Path, target: Path) -> Path:
    with tarfile.open(target, f"w:{target.suffix[1:]}") as archive:
        archive.add(folder, folder.name)
    return target


def test_digits_are_embedded_with_a_fixed_split() -> None:
    data = load_dataset("digits")
    assert data.train_images.shape == (1437, 1, 8, 8)
    assert data.test_images.shape == (360, 1, 8, 8)
    assert data.train_images.dtype == torch.uint8
    assert data.test_labels[:5].tolist() == [0, 5, 0, 5, 0]
    assert int(data.train_images.max()) == 255
    assert len(set(data.test_labels.tolist())) == 10


def test_digits_statistics_normalise_them() -> None:
    data = load_dataset("digits")
    x = normalise(data.train_images, data.mean, data.std)
    assert float(x.mean()) == pytest.approx(0, abs=1e-3)
    assert float(x.std()) == pytest.approx(1, abs=1e-3)


def test_cifar100_binary_takes_the_fine_label(cifar100: tuple[Path, np.ndarray, np.ndarray]) -> None:
    root, pixels, fine = cifar100
    data = load_dataset("cifar100", root)
    assert data.test_labels.tolist() == fine.tolist()
    assert np.array_equal(data.test_images.numpy(), pixels)
    assert data.classes == 100


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz"])
def test_archives_are_read_unpacked(cifar100: tuple[Path, np.ndarray, np.ndarray], suffix: str, tmp_path: Path) -> None:
    root, pixels, _ = cifar100
    other = tmp_path / "other"
    other.mkdir()
    archive = pack(root / "cifar-100-binary", other / f"cifar-100-binary{suffix}")
    for place in (other, archive):
        assert np.array_equal(load_dataset("cifar100", place).test_images.numpy(), pixels)


def test_an_archive_may_have_any_name(cifar100: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    root, _, fine = cifar100
    archive = pack(root / "cifar-100-binary", tmp_path / "a-part-of-it.tar.xz")
    assert load_dataset("cifar100", archive, train=False).test_labels.tolist() == fine.tolist()
    with pytest.raises(DataError, match="CIFAR-10 is not there"):
        load_dataset("cifar10", archive)


def test_a_folder_may_be_named_itself(cifar100: tuple[Path, np.ndarray, np.ndarray]) -> None:
    root, _, fine = cifar100
    assert load_dataset("cifar100", root / "cifar-100-binary").test_labels.tolist() == fine.tolist()


def test_the_training_part_is_not_needed_where_it_is_not_asked_for(
    cifar100: tuple[Path, np.ndarray, np.ndarray],
) -> None:
    root, _, _ = cifar100
    (root / "cifar-100-binary" / "train.bin").unlink()
    assert len(load_dataset("cifar100", root, train=False).train_labels) == 0
    with pytest.raises(DataError, match="the train part is missing"):
        load_dataset("cifar100", root)
    assert status(SOURCES["cifar100"], root).state == "partial"


def test_cifar10_binary_joins_its_batches(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for n in range(1, 6):
        (folder / f"data_batch_{n}.bin").write_bytes(binary(images(2), np.full(2, n)))
    (folder / "test_batch.bin").write_bytes(binary(images(3), np.array([7, 8, 9])))
    data = load_dataset("cifar10", tmp_path)
    assert data.train_labels.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert data.test_labels.tolist() == [7, 8, 9]


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar100_python_is_read_without_running_code(tmp_path: Path, protocol: int) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = images()
    for name in ("train", "test"):
        batch = {"data": pixels.reshape(N, -1), "fine_labels": list(range(N)), "filenames": ["x.png"] * N}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    data = load_dataset("cifar100", tmp_path)
    assert np.array_equal(data.test_images.numpy(), pixels)
    assert data.test_labels.tolist() == list(range(N))


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("boom",))


def test_a_pickle_that_calls_something_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps({"data": Bomb()}))
    with pytest.raises(DataError, match=r"builtins.print has no place"):
        load_dataset("cifar100", tmp_path)
    assert "boom" not in capsys.readouterr().out


@given(st.binary(max_size=60))
def test_random_bytes_never_pass_the_unpickler_as_a_batch(data: bytes) -> None:
    try:
        loaded = ArrayUnpickler(io.BytesIO(data)).load()
    except Exception:
        return
    assert not isinstance(loaded, dict) or "data" not in loaded


@pytest.mark.parametrize("size", [0, 1, 3073, 3074 * 2 - 1])
def test_truncated_files_are_refused(cifar100: tuple[Path, np.ndarray, np.ndarray], size: int) -> None:
    root, _, _ = cifar100
    file = root / "cifar-100-binary" / "test.bin"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(DataError, match=r"truncated") as caught:
        load_dataset("cifar100", root)
    assert "test.bin" in caught.value.where


def test_labels_of_another_set_are_refused(cifar100: tuple[Path, np.ndarray, np.ndarray]) -> None:
    root, _, _ = cifar100
    labels = np.full(N, 200)
    (root / "cifar-100-binary" / "test.bin").write_bytes(binary(images(), labels, labels))
    with pytest.raises(DataError, match="beyond the 100 classes"):
        load_dataset("cifar100", root)


def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cifar-100-binary.tar.gz").write_bytes(b"\x1f\x8b\x08\x00no gzip")
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset("cifar100", tmp_path)


def test_absent_sets_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset("cifar10", tmp_path)
    assert "pibench data cifar10 --download" in caught.value.remedy
    assert caught.value.exit_status == 4
    with pytest.raises(UsageError, match="no data set 'mnist'"):
        load_dataset("mnist", tmp_path)


# -- TinyImageNet --------------------------------------------------------------------------------------------------

WNIDS = ("n01000002", "n01000001")


def jpeg(colour: tuple[int, int, int] | int, size: int = 64) -> bytes:
    out = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", (size, size), colour).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A TinyImageNet of two classes, red and grey."""
    base = tmp_path / "tiny-imagenet-200"
    for wnid, colour in zip(WNIDS, [(250, 0, 0), 100], strict=True):
        folder = base / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for n in range(2):
            (folder / f"{wnid}_{n}.JPEG").write_bytes(jpeg(colour))
    (base / "val" / "images").mkdir(parents=True)
    (base / "val" / "images" / "val_0.JPEG").write_bytes(jpeg((250, 0, 0)))
    (base / "val" / "val_annotations.txt").write_text(f"val_0.JPEG\t{WNIDS[0]}\t0\t0\t63\t63\n")
    (base / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    return tmp_path


def test_tiny_folders(tiny: Path) -> None:
    data = load_dataset("tinyimagenet", tiny)
    assert data.train_images.shape == (4, 3, 64, 64)
    assert data.train_labels.tolist() == [0, 0, 1, 1]  # classes in the order of their sorted names
    assert data.test_labels.tolist() == [1]
    red, green = data.test_images[0, 0].float().mean(), data.test_images[0, 1].float().mean()
    assert red > 240
    assert green < 10
    assert torch.equal(data.train_images[0, 0], data.train_images[0, 2])  # grey has three channels too


def test_tiny_zip(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "zipped" / "tiny-imagenet-200.zip"
    target.parent.mkdir()
    with zipfile.ZipFile(target, "w") as archive:
        for file in (tiny / "tiny-imagenet-200").rglob("*"):
            archive.write(file, file.relative_to(tiny))
    assert load_dataset("tinyimagenet", target.parent).train_labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("content", "message"), [(b"no jpeg", "not a readable JPEG"), (None, "shape")])
def test_tiny_refuses_other_images(tiny: Path, content: bytes | None, message: str) -> None:
    file = tiny / "tiny-imagenet-200" / "val" / "images" / "val_0.JPEG"
    file.write_bytes(jpeg(3, size=32) if content is None else content)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("tinyimagenet", tiny)
    assert "val_0.JPEG" in caught.value.where


# -- states --------------------------------------------------------------------------------------------------------


def test_files_of_another_hash_are_unverified(cifar100: tuple[Path, np.ndarray, np.ndarray]) -> None:
    found = status(SOURCES["cifar100"], cifar100[0])
    assert found.state == "unverified"
    assert "train.bin, test.bin: not the official file" in found.detail


def test_files_of_the_official_hash_are_verified(
    cifar100: tuple[Path, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pibench.training.find_data.file_md5", lambda path: dict(layout.md5)[path.name])
    layout = SOURCES["cifar100"].layouts[0]
    assert status(SOURCES["cifar100"], cifar100[0]).state == "verified"


def test_the_official_training_images_are_recognised() -> None:
    import os

    file = Path(os.environ.get("PIBENCH_DATA", "nowhere")) / "cifar-100-binary" / "train.bin"
    if not file.is_file():
        pytest.skip(f"needs CIFAR-100's official train.bin ({file}; PIBENCH_DATA names another place)")
    assert file_md5(file) == dict(SOURCES["cifar100"].layouts[0].md5)["train.bin"]


def test_addresses_are_shown_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "tiny-imagenet-200.zip" in shown


def test_the_verb_lists_every_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--json", "--root", str(tmp_path)]) == 0
    rows = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert rows == {"digits": "embedded", "cifar10": "absent", "cifar100": "absent", "tinyimagenet": "absent"}
    assert main(["data", "--download"]) == 4
    assert main(["data", "digits", "--download"]) == 4
