"""The zoo: shipped in as few bits as keep the accuracy, and a table that says what is known and no more."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from rich.console import Console
from test_train import QUICK, make_card, make_data

from pibench.cli import main
from pibench.errors import DataError
from pibench.library import data_folders
from pibench.networks.build import build
from pibench.networks.card import load_card
from pibench.reporting.screen.zoo import Entry, entries, markdown, on_screen, with_worst_classes
from pibench.training import ship as shipping
from pibench.training.checkpoint import load_checkpoint, read_metadata, save_checkpoint
from pibench.training.judging import Judgement, judge
from pibench.training.recipe import recipe_for
from pibench.training.runs import Job, load_into, run_job


@pytest.fixture
def trained(in_tmp: Path) -> Path:
    card = make_card(in_tmp, more="published: [{accuracy_percent: 64.97, source: a paper}]")
    (in_tmp / "zoo").mkdir()
    job = Job(card, recipe_for("digits", {**QUICK, "epochs": 5}), in_tmp / "small.cycle1.safetensors", in_tmp)
    return run_job(job, data=make_data())


def judged(percent: float) -> Judgement:
    """Return what a network of one class and this accuracy is told."""
    return Judgement((round(100 * percent),), (10_000,))


@pytest.mark.parametrize(
    ("measured", "form"),
    [([80.04], "int8"), ([79.9, 79.96], "float16"), ([79.9, 80.1, 80.0], "float32")],
)
def test_the_fewest_bits_that_keep_the_accuracy(
    trained: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, measured: list[float], form: str
) -> None:
    state, meta = load_checkpoint(trained)
    save_checkpoint(trained, state, {**meta, "accuracy": 80.0})
    results = iter(measured)
    monkeypatch.setattr(shipping, "judge", lambda *_: judged(next(results)))
    path = shipping.ship(trained, in_tmp / "zoo", make_data())
    shipped = read_metadata(path)
    assert path.name == "small.safetensors"
    assert (shipped["form"], shipped["accuracy"], shipped["trained"]["accuracy"]) == (form, measured[-1], 80.0)
    assert path.stat().st_size < trained.stat().st_size or form == "float32"


def test_the_size_goes_before_the_accuracy(trained: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "judge", lambda *_: judged(1.0))
    monkeypatch.setattr(shipping, "MAX_BYTES", 2500)
    assert read_metadata(shipping.ship(trained, in_tmp / "zoo", make_data()))["form"] == "int8"
    monkeypatch.setattr(shipping, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="even in 8 bits"):
        shipping.ship(trained, in_tmp / "zoo", make_data())


def test_weights_of_unknown_origin_are_not_shipped(in_tmp: Path) -> None:
    save_checkpoint(in_tmp / "x.safetensors", {}, {})
    with pytest.raises(DataError, match="neither its card nor its accuracy"):
        shipping.ship(in_tmp / "x.safetensors", in_tmp)


def test_weights_of_another_function_are_not_shipped(trained: Path, in_tmp: Path) -> None:
    card = in_tmp / "networks" / "small.yaml"
    card.write_text(card.read_text().replace("family: resnet", "family: resnet, stem_relu: false"))
    with pytest.raises(DataError, match="stem_relu is True, not False"):
        shipping.ship(trained, in_tmp / "zoo", make_data())


@pytest.mark.parametrize("path", sorted((REPOSITORY / "zoo").glob("*.safetensors")), ids=lambda path: path.stem)
def test_what_is_shipped_is_of_its_cards_network(path: Path) -> None:
    card = load_card(REPOSITORY / "networks" / f"{path.stem}.yaml")
    meta = load_into(build(card.network), path, card.network)
    assert (meta["card"], "network" in meta) == (card.name, True)


def test_the_table_says_what_is_known(trained: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bits = {"int8": 8, "float16": 16, "float32": 32}[
        read_metadata(shipping.ship(trained, in_tmp / "zoo", make_data()))["form"]
    ]
    assert main(["zoo", "--folder", "zoo", "--write", "zoo.md"]) == 0
    page = (in_tmp / "zoo.md").read_text()
    meta = read_metadata(in_tmp / "zoo" / "small.safetensors")
    gap, worst = meta["accuracy"] - 64.97, meta["worst_class"]["accuracy"]
    line = f"{meta['accuracy']:.2f} % of 30 | {worst:.0f} % | 64.97 % | {gap:+.2f} | 5 | - | cpu |  |  | {bits} |"
    assert f"| small | 1,024 | {line}" in page
    assert "seed 1" in page
    [entry] = entries(in_tmp / "zoo")
    known = Entry(entry.card, entry.path, entry.meta, (66.0, 500), (499, 500))
    assert "| 66.00 % of 500 | 499 of 500 |" in markdown([known])
    made = {"teacher": "full", "reduction": {"epochs_in_all": 3, "notes": {"images_an_epoch": 12800}}}
    reduced = Entry(entry.card, entry.path, {**entry.meta, **made}, None, None)
    assert "| full | cpu |" in markdown([reduced])
    assert "3 epochs in all, of 12,800 images each" in markdown([reduced])
    assert "down to" not in page
    assert "the mean of" not in page
    recipe = {**entry.meta["recipe"], "lr": 0.08, "floor": 0.25, "averaged": 0.65}
    averaged = markdown([Entry(entry.card, entry.path, {**entry.meta, "recipe": recipe}, None, None)])
    assert "onecycle to 0.08 and down to 0.02, weight decay" in averaged
    assert "the mean of the weights over the last 65% of the epochs" in averaged
    assert main(["zoo", "--folder", "zoo"]) == 0
    assert "small" in capsys.readouterr().out


def test_the_worst_class_stands_beside_the_mean() -> None:
    data = make_data()
    images, labels = data.test_images, data.test_labels

    class Always(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.full((len(x),), 1), data.classes).float()

    told = judge(Always(), images, labels, data, batch=7)
    ones = int((labels == 1).sum())
    assert told.right == tuple(ones if label == 1 else 0 for label in range(data.classes))
    assert sum(told.shown) == len(labels)
    assert told.accuracy == pytest.approx(100 * ones / len(labels))
    assert told.worst == {"class": 0, "accuracy": 0.0, "n_test": int((labels == 0).sum())}
    assert Judgement((3, 1, 0), (4, 4, 0)).worst == {"class": 1, "accuracy": 25.0, "n_test": 4}


def test_an_older_checkpoint_is_judged_when_asked(trained: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shipping.ship(trained, in_tmp / "zoo", make_data())
    tensors, meta = load_checkpoint(path)
    worst = meta.pop("worst_class")
    save_checkpoint(path, tensors, meta)
    monkeypatch.setattr(shipping, "load_dataset", lambda *_args, **_more: make_data())
    [entry] = entries(in_tmp / "zoo")
    assert "worst_class" not in entry.meta
    [told] = with_worst_classes([entry])
    assert told.meta["worst_class"] == worst


def test_an_empty_zoo_says_so() -> None:
    assert "None is shipped yet" in markdown([])
    assert "None is shipped yet" in shown([])


def test_the_table_fits_a_narrow_screen() -> None:
    """It once showed 7,168 ReLUs as "7,1…"."""
    [folder] = data_folders("zoo")[:1]
    text = shown(entries(folder))
    assert "…" not in text
    assert all(entry.card.name in text and f"{entry.card.relu_count:,}" in text for entry in entries(folder))


def shown(found: list[Entry]) -> str:
    """Return what 80 columns show."""
    console = Console(width=80, file=io.StringIO())
    console.print(*on_screen(found), sep="\n")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
