"""Images of a person's own: pictures in folders of classes, and how their pixels are normalised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pibench.cli import main
from pibench.errors import DataError, UsageError
from pibench.run.images import shown_by
from pibench.run.prepare import prepare_model
from pibench.run.settings import Needs, OwnModel
from pibench.training.pictures import read_pictures

NEEDS = Needs(images=6, plain_images=6, seed=0)
GREY = (1, 8, 8)


def picture(file: Path, level: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    colour = level if mode == "L" else (level,) * len(mode)
    Image.new(mode, size, colour).save(file)


def folders(root: Path, names: Sequence[str], each: int = 3, **options: object) -> Path:
    """Write pictures whose grey level is ten times the rank of their class, plus their own number."""
    for rank, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(each):
            picture(root / name / f"{number}.png", 10 * rank + number, **options)  # type: ignore[arg-type]
    return root


def levels(data: object) -> list[int]:
    return [int(image.flatten()[0]) for image in data.test_images]  # type: ignore[attr-defined]


def test_labels_are_the_folders_in_order_of_their_names(tmp_path: Path) -> None:
    found = read_pictures(folders(tmp_path, ["ant", "bee", "cat"]), GREY, 100)
    assert found.classes == ("ant", "bee", "cat")
    assert [level // 10 for level in levels(found.data)] == found.data.test_labels.tolist()
    assert sorted(levels(found.data)) == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    assert found.notes == ()


def test_the_first_pictures_are_of_all_classes_and_always_the_same(tmp_path: Path) -> None:
    folders(tmp_path, [f"{rank:02d}" for rank in range(4)], each=25)
    few, more = read_pictures(tmp_path, GREY, 40), read_pictures(tmp_path, GREY, 80)
    assert set(few.data.test_labels.tolist()) == {0, 1, 2, 3}
    assert levels(more.data)[:40] == levels(few.data)


def test_folders_that_are_numbers_are_labels(tmp_path: Path) -> None:
    found = read_pictures(folders(tmp_path, ["007", "3"], each=1), GREY, 9)
    assert sorted(found.data.test_labels.tolist()) == [3, 7]
    assert found.classes == ()


def test_the_held_out_part_is_taken_and_said(tmp_path: Path) -> None:
    folders(tmp_path / "train", ["a", "b"], each=5)
    folders(tmp_path / "val", ["a", "b"], each=1)
    found = read_pictures(tmp_path, GREY, 9)
    assert len(found.data.test_labels) == 2
    assert found.notes == ("images of its part val",)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_mode_becomes_the_channels_of_the_network(tmp_path: Path, mode: str, channels: int) -> None:
    picture(tmp_path / "a" / "x.png", 90, mode=mode)
    picture(tmp_path / "b" / "y.jpg", 200)
    found = read_pictures(tmp_path, (channels, 8, 8), 9)
    assert found.data.test_images.shape == (2, channels, 8, 8)
    assert sorted(levels(found.data)) == [90, 200]


def test_sixteen_bits_are_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "a" / "x.png")
    picture(tmp_path / "b" / "y.png", 7)
    assert sorted(levels(read_pictures(tmp_path, GREY, 9).data)) == [7, 40_000 >> 8]


def test_another_size_is_cut_at_its_middle_and_said(tmp_path: Path) -> None:
    stripes = np.zeros((16, 48), np.uint8)
    stripes[:, 16:32] = 200  # the middle of a wide picture
    (tmp_path / "a").mkdir()
    Image.fromarray(stripes).save(tmp_path / "a" / "wide.png")
    picture(tmp_path / "b" / "fits.png", 200)
    found = read_pictures(tmp_path, GREY, 9)
    assert "1 of 2 pictures were scaled" in found.notes[0]
    assert float(found.data.test_images[:, :, :, 2:6].float().min()) > 190


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "it holds no folders"),
        (lambda root: (root / "a").mkdir(), "hold no picture"),
        (lambda root: [(root / "a").mkdir(), (root / "a" / "x.png").write_bytes(b"no")], r"x\.png: is no picture"),
    ],
)
def test_what_is_no_folder_of_pictures_is_said(tmp_path: Path, make: object, words: str) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match=words):
        read_pictures(tmp_path, GREY, 9)


@pytest.mark.parametrize("numbers", [(0.5, 0.25), (0.5, 0.4, 0.3, 0.25, 0.2, 0.1)])
def test_pixels_are_normalised_as_told(tmp_path: Path, numbers: tuple[float, ...]) -> None:
    folders(tmp_path, ["a", "b"])
    shown = shown_by(str(tmp_path), (3, 8, 8), NEEDS, numbers)
    assert shown.data is not None
    images, _ = shown.images((3, 8, 8), NEEDS)
    half = len(numbers) // 2
    mean, std = (torch.tensor(numbers[k : k + half]).reshape(1, -1, 1, 1) for k in (0, half))
    torch.testing.assert_close(images, (shown.data.test_images.float() / 255 - mean) / std)
    assert shown.note is None
    assert "--normalise" in str(shown_by(str(tmp_path), (3, 8, 8), NEEDS).note)


def test_a_data_sets_own_numbers_are_replaced() -> None:
    own, given = (shown_by("digits", GREY, NEEDS, n).images(GREY, NEEDS)[0] for n in (None, (0.3053, 0.3761)))
    torch.testing.assert_close(own, given)
    with pytest.raises(UsageError, match="4 numbers for images of 1 channels"):
        shown_by("digits", GREY, NEEDS, (0.1, 0.2, 0.3, 0.4))
    with pytest.raises(UsageError, match="add --dataset"):
        shown_by(None, GREY, NEEDS, (0.5, 0.5))


CODE = """
import torch
from torch import nn

def net(classes=3):
    # tells the classes of `folders` by the level of the first pixel: trained, as its statistics say
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, classes))
    net[1].running_mean.fill_(0.01)
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].weight[:, 0] = torch.arange(classes) * 100.0
        rank = torch.arange(classes)
        net[2].bias.copy_(-rank ** 2 * 100 * 10 / 255 / 2 - rank * (0.5 / 255 - 0.01) * 100)
    return net

def one():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ownshown.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_network_has_its_accuracy_on_ones_own_pictures(own: Path) -> None:
    root = folders(own / "pictures", ["ant", "bee", "cat"], each=1)
    found = prepare_model(OwnModel("ownshown:net", GREY, dataset=str(root)), own / "out", NEEDS, print)
    assert found.network.plain_accuracy is not None
    assert (found.network.plain_accuracy.correct, found.network.plain_accuracy.n) == (3, 3)
    assert found.network.dataset == "pictures"
    assert "not normalised" in str(found.network.note)


def test_folders_that_are_not_one_a_class_are_no_guess(own: Path) -> None:
    root = folders(own / "pictures", ["ant", "bee"], each=1)
    with pytest.raises(DataError, match=r"2 folders of classes \(ant, bee\), and the network tells 3"):
        prepare_model(OwnModel("ownshown:net", GREY, dataset=str(root)), own / "out", NEEDS, print)
    root = folders(own / "numbers", ["0", "2"], each=1)
    found = prepare_model(OwnModel("ownshown:net", GREY, dataset=str(root)), own / "out", NEEDS, print)
    assert found.labels is not None
    assert sorted(found.labels.tolist()) == [0, 2]


def test_a_suite_names_a_folder_beside_it_and_numbers(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(own / "suites" / "pictures", ["ant", "bee", "cat"], each=1)
    suite = own / "suites" / "mine.yaml"
    entry = "{model: 'ownshown:net', input: [1, 8, 8], dataset: %s, normalise: %s}"
    text = f"name: mine\nnetworks:\n- {entry}\nprotocols: [plaintext]\n"
    suite.write_text(text % ("pictures", "[0.0, 1.0]"))
    assert main(["run", str(suite), "--dry-run"]) == 0
    for data, numbers, said in (
        ("picture", "[0, 1]", "mine.yaml:3: no data set and no folder is named 'picture'"),
        ("pictures", "[0, 1, 2]", "as many deviations as means"),
        ("pictures", "[0, 0]", "a deviation is to be above 0"),
    ):
        suite.write_text(text % (data, numbers))
        assert main(["run", str(suite), "--dry-run"]) == 4
        assert said in capsys.readouterr().err


def test_a_module_on_another_device_is_run_here() -> None:
    from pibench.lowering.inference import inference_copy

    meta = inference_copy(nn.Linear(2, 2, device="meta"))
    assert all(parameter.is_meta for parameter in meta.parameters())
    assert inference_copy(nn.Linear(2, 2)).weight.device.type == "cpu"
