"""Averaged weights: the mean of the places on the way, with statistics of its own, whatever interrupts the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_train import QUICK, make_card, make_data
from test_train_interrupts import assert_ends_as_uninterrupted
from torch import nn

from pibench.networks.build import build
from pibench.networks.card import Card
from pibench.training import train
from pibench.training.averaging import WeightAverage, renew_statistics
from pibench.training.checkpoint import load_checkpoint, save_checkpoint
from pibench.training.progress import Progress
from pibench.training.recipe import Phase, Recipe, recipe_for
from pibench.training.runs import Job, run_job
from pibench.training.train import Trainer

AVERAGED = {**QUICK, "epochs": 4, "averaged": 0.5, "floor": 0.25}  # 6 steps an epoch


@pytest.fixture
def card(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    monkeypatch.setattr(train, "EVERY_STEPS", 2)
    return make_card(in_tmp)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_a_rate_ends_at_its_floor(schedule: str) -> None:
    recipe = Recipe.model_validate({"schedule": schedule, "lr": 0.2, "floor": 0.25})
    rates = [recipe.lr_at(step, 1000) for step in range(200, 1000)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize(("averaged", "first"), [(0.0, 20), (0.65, 7), (0.1, 18), (0.01, 19), (1.0, 0)])
def test_the_last_share_of_the_epochs_is_averaged(averaged: float, first: int) -> None:
    recipe = Recipe(epochs=20, averaged=averaged)
    assert [epoch for epoch in range(20) if recipe.averages_at(epoch)] == list(range(first, 20))


@pytest.mark.parametrize("epochs", [10, 20, 50, 100])
def test_shares_of_epochs_are_told_in_decimals(epochs: int) -> None:
    for first in range(1, epochs):
        share = first / epochs
        recipe = Recipe(epochs=epochs, averaged=round(1 - share, 2), phases=[Phase(until=share, pixels=16)])
        assert [epoch for epoch in range(epochs) if recipe.averages_at(epoch)] == list(range(first, epochs))
        assert [epoch for epoch in range(epochs) if recipe.pixels_at(epoch)] == list(range(first))


def test_the_result_is_the_mean_of_the_places_on_the_way(card: Card, in_tmp: Path) -> None:
    trainer = Trainer(card, make_data(), recipe_for("digits", AVERAGED), in_tmp / "x.state.safetensors")
    places: list[dict[str, torch.Tensor]] = []

    def look(p: Progress) -> None:
        if p.epoch in (2, 3) and p.step in (2, 4, 6):
            places.append({name: value.detach().clone() for name, value in trainer.module.named_parameters()})

    trainer.report = look
    trainer.run()
    assert len(places) == 6
    for name, value in trainer.module.named_parameters():
        mean = torch.stack([place[name] for place in places]).mean(0)
        torch.testing.assert_close(value.detach(), mean)
        assert not torch.equal(places[-1][name], value)


def test_statistics_are_those_of_the_batches_in_the_mean_network() -> None:
    module, batches = small(), [torch.rand(8, 1, 9, 9) for _ in range(5)]
    module(torch.full((8, 1, 9, 9), 100.0))  # statistics of another place, which must not count
    renew_statistics(module, batches)
    first = module[0](torch.cat(batches))
    torch.testing.assert_close(module[1].running_mean, first.mean((0, 2, 3)))
    variances = torch.stack([module[0](batch).var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(module[1].running_var, variances)
    assert module[1].momentum == 0.1
    assert not any(part.training for part in module.modules())


def test_frozen_parts_keep_their_statistics() -> None:
    module = small()
    kept = {name: value.clone() for name, value in module[1].state_dict().items()}
    renew_statistics(module, [torch.rand(8, 1, 9, 9)], frozen=["1"])
    assert all(torch.equal(value, kept[name]) for name, value in module[1].state_dict().items())
    assert module[4].num_batches_tracked == 1


def test_frozen_parts_are_as_they_began_in_the_result(card: Card, in_tmp: Path) -> None:
    start = in_tmp / "start.safetensors"
    save_checkpoint(start, build(card.network).state_dict(), {})
    recipe = recipe_for("digits", {**AVERAGED, "frozen": ["conv1", "bn1"]})
    result = run_job(Job(card, recipe, in_tmp / "a.safetensors", in_tmp, start=start), data=make_data())
    before, after = load_checkpoint(start)[0], load_checkpoint(result)[0]
    assert before.keys() == after.keys()
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert frozen == {name for name in before if name.startswith(("conv1.", "bn1."))}


@pytest.mark.parametrize("at", [(0, 3), (2, 3), (3, 0), (3, 6), (4, 0)])
def test_an_interrupted_average_ends_as_an_uninterrupted_one(card: Card, in_tmp: Path, at: tuple[int, int]) -> None:
    assert_ends_as_uninterrupted(card, recipe_for("digits", {**AVERAGED, "channels_last": True}), in_tmp, at)


def test_epochs_of_few_steps_are_averaged_at_their_ends(
    card: Card, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "EVERY_STEPS", 30)
    trainer = Trainer(card, make_data(), recipe_for("digits", AVERAGED), in_tmp / "x.state.safetensors")
    ends: list[torch.Tensor] = []

    def look(p: Progress) -> None:
        if p.epoch in (2, 3) and p.step == 6:
            ends.append(trainer.module.get_submodule("linear").weight.detach().clone())

    trainer.report = look
    trainer.run()
    torch.testing.assert_close(trainer.module.get_submodule("linear").weight.detach(), torch.stack(ends).mean(0))
    assert not torch.equal(ends[0], ends[1])


def test_the_accuracy_on_the_way_is_that_of_the_mean(card: Card, in_tmp: Path) -> None:
    data = make_data()
    trainer = Trainer(card, data, recipe_for("digits", AVERAGED), in_tmp / "x.state.safetensors")
    trainer.run()
    assert trainer.place.history[-1]["test_accuracy"] == train.evaluate(
        trainer.module, data.test_images, data.test_labels, data
    )


def test_an_average_goes_on_from_its_tensors() -> None:
    module, other = small(), small()
    average, again = WeightAverage(module), WeightAverage(other)
    average.add(module)
    again.restore({name: value.clone() for name, value in average.tensors().items()})
    with torch.no_grad():
        other[0].weight.add_(1.0)
    again.add(other)
    assert again.places == 2
    got = again.module([torch.rand(4, 1, 9, 9)])
    torch.testing.assert_close(got.get_submodule("0").weight, module[0].weight + 0.5)
