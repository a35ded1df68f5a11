"""Training: views are functions of the seed, an interrupted run ends as an uninterrupted one, teachers teach."""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pibench.cli import main
from pibench.errors import PibenchError, UsageError
from pibench.networks.build import build
from pibench.networks.card import Card, load_card
from pibench.training.augment import Augmenter, draw_view, resize
from pibench.training.checkpoint import load_checkpoint, read_metadata, save_checkpoint
from pibench.training.data import Dataset
from pibench.training.distill import Teacher, ViewLogits, distillation_loss
from pibench.training.plan import TeacherChoice
from pibench.training.progress import Lines, Progress
from pibench.training.recipe import Distillation, Phase, Recipe, recipe_for
from pibench.training.runs import Job, run_job, with_teacher
from pibench.training.train import Trainer, freeze

CARD = """
name: {name}
title: A small network of the tests
method: full
dataset: digits
network: {{family: resnet, base_width: 4, multipliers: [2], blocks: [1, 1], classes: 3, input: [1, 8, 8]}}
relu_count: 1024
provenance: confirmed
{more}
"""
QUICK = {"epochs": 3, "batch_size": 16, "crop": 1}


def make_card(folder: Path, name: str = "small", more: str = "") -> Card:
    path = folder / "networks" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(CARD.format(name=name, more=more))
    return load_card(path)


def make_data(count: int = 96) -> Dataset:
    """Three classes: bright at the top, at the bottom, nowhere."""
    rng = torch.Generator().manual_seed(3)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 100, (count, 1, 8, 8), generator=rng, dtype=torch.uint8)
    images[labels == 0, :, :4] += 120
    images[labels == 1, :, 4:] += 120
    return Dataset("digits", images, labels, images[:30], labels[:30], (0.4,), (0.25,), 3)


@pytest.fixture
def card(in_tmp: Path) -> Card:
    return make_card(in_tmp)


# -- recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "step", "onecycle"])
@given(steps=st.integers(2, 500))
def test_rates_stay_between_nothing_and_the_recipes(schedule: str, steps: int) -> None:
    recipe = Recipe.model_validate({"schedule": schedule, "lr": 0.2})
    rates = [recipe.lr_at(step, steps) for step in range(steps)]
    assert all(0 < rate <= 0.2 + 1e-12 for rate in rates)
    assert rates[-1] < rates[len(rates) // 2] or steps < 8


def test_a_step_schedule_drops_tenfold() -> None:
    recipe = Recipe(schedule="step", lr=1.0, milestones=[0.5, 0.75])
    assert [recipe.lr_at(step, 100) for step in (0, 49, 50, 75)] == pytest.approx([1, 1, 0.1, 0.01])


def test_phases_set_the_size_of_the_images() -> None:
    recipe = Recipe.model_validate(
        {"epochs": 10, "phases": [{"until": 0.4, "pixels": 20}, {"until": 0.7, "pixels": 24}]}
    )
    assert [recipe.pixels_at(epoch) for epoch in (0, 3, 4, 6, 7, 9)] == [20, 20, 24, 24, None, None]


def test_frozen_parts_keep_weights_and_statistics(card: Card, in_tmp: Path) -> None:
    start = in_tmp / "start.safetensors"
    save_checkpoint(start, build(card.network).state_dict(), {})
    recipe = Recipe.model_validate({**QUICK, "frozen": ["conv1", "layer1.0"]})
    trainer = Trainer(card, make_data(), recipe, in_tmp / "state.safetensors", start=start)
    before = {name: value.clone() for name, value in trainer.module.state_dict().items()}
    trainer.run()
    moved = {name for name, value in trainer.module.state_dict().items() if not torch.equal(value, before[name])}
    kept = set(before) - moved
    assert kept == {name for name in before if name.startswith(("conv1.", "layer1.0."))}
    assert {"bn1.running_mean", "layer2.0.conv1.weight", "linear.weight"} <= moved


@pytest.mark.parametrize("name", ["layer9", ""])
def test_a_frozen_part_that_is_not_there_is_named(name: str, card: Card) -> None:
    with pytest.raises(UsageError, match=f"small has no '{name}'") as told:
        freeze(build(card.network), [name], card)
    assert told.value.remedy == "it has conv1, bn1, relu, pool, layer1, layer2, linear"


def test_random_weights_are_not_frozen_nor_all_of_them(card: Card, in_tmp: Path) -> None:
    recipe = Recipe.model_validate({**QUICK, "frozen": ["conv1"]})
    with pytest.raises(UsageError, match="would keep random weights"):
        Trainer(card, make_data(), recipe, in_tmp / "state.safetensors")
    with pytest.raises(UsageError, match="nothing of small is left to train"):
        freeze(build(card.network), ["conv1", "bn1", "layer1", "layer2", "linear"], card)


def test_a_recipes_name_depends_on_settings_alone() -> None:
    assert Recipe().sha256 == Recipe(epochs=100).sha256 != Recipe(epochs=99).sha256
    assert recipe_for("digits", {"epochs": 7}).epochs == 7
    assert recipe_for("digits", None).flip is False


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"momentum": 0.0},
        {"lr": float("nan")},
        {"colour": 1},
        {"phases": [{"until": 0.5, "pixels": 8}, {"until": 0.2, "pixels": 16}]},
    ],
)
def test_wrong_recipes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Recipe.model_validate(wrong)


def test_a_recipe_says_distillation_exactly_where_there_is_a_teacher() -> None:
    taught = Recipe(distillation=Distillation(weight=0.5))
    assert with_teacher(taught, True) == taught
    assert with_teacher(taught, False).distillation is None
    assert with_teacher(Recipe(), True).distillation == Distillation()


# -- views ---------------------------------------------------------------------------------------------------------


def test_views_are_functions_of_seed_and_number() -> None:
    one, same, other = (draw_view(50, 4, True, 1, view) for view in (3, 3, 4))
    assert torch.equal(one.rows, same.rows)
    assert torch.equal(one.flips, same.flips)
    assert not torch.equal(one.rows, other.rows)
    assert 0 <= int(one.rows.min()) <= int(one.rows.max()) <= 8
    assert not draw_view(50, 4, False, 1, 3).flips.any()


def test_an_image_is_flipped_in_every_other_view() -> None:
    flips = [draw_view(200, 4, True, 1, view).flips for view in range(4)]
    assert torch.equal(flips[0], ~flips[1])
    assert torch.equal(flips[0], flips[2])
    assert torch.equal(flips[1], flips[3])
    assert 60 < int(flips[0].sum()) < 140
    assert not torch.equal(flips[0], draw_view(200, 4, True, 2, 0).flips)


def test_a_batch_is_cut_and_flipped_as_the_view_says() -> None:
    images = torch.arange(2 * 1 * 4 * 4, dtype=torch.uint8).reshape(2, 1, 4, 4)
    view = draw_view(2, 1, True, 0, 0)
    view = dataclasses.replace(
        view, rows=torch.tensor([1, 0]), columns=torch.tensor([1, 2]), flips=torch.tensor([True, False])
    )
    batch = Augmenter(images, 1).batch(view, torch.tensor([1, 0]))
    moved = torch.zeros(4, 4, dtype=torch.uint8)
    moved[1:, :3] = images[1, 0, :3, 1:]  # one row down, one column to the left
    assert torch.equal(batch[0, 0], moved)
    assert torch.equal(batch[1, 0], images[0, 0].flip(1))


def test_resize_keeps_means() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert resize(images, None) is images
    assert resize(images, 4).shape == (2, 3, 4, 4)
    assert float(resize(images, 4).mean()) == pytest.approx(float(images.mean()), abs=0.05)


# -- training ------------------------------------------------------------------------------------------------------


def test_a_small_network_learns(card: Card, in_tmp: Path) -> None:
    target = in_tmp / "out.safetensors"
    recipe = recipe_for("digits", {**QUICK, "epochs": 8})
    seen: list[Progress] = []
    run_job(Job(card, recipe, target, in_tmp / "state"), data=make_data(), report=seen.append)
    meta = read_metadata(target)
    assert meta["accuracy"] >= 90
    assert meta["n_test"] == 30
    assert meta["card_sha256"] == card.sha256
    assert meta["epochs"] == 8
    assert len(meta["history"]) == 8
    assert meta["recipe"]["batch_size"] == 16
    assert meta["device"] == "cpu"
    assert seen[-1].epoch == 8
    assert seen[-1].test_accuracy is not None
    assert not (in_tmp / "state" / "out.state.safetensors").exists()


def test_the_time_left_knows_sizes_and_leaves_the_teacher_out(
    card: Card, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, 43 minutes were announced as 492 hours: a teacher had just taken three for its logits."""
    clock, told = [0.0], []
    recipe = Recipe(epochs=4, batch_size=32, crop=1, phases=[Phase(until=0.5, pixels=4)])
    trainer = Trainer(card, make_data(), recipe, in_tmp / "state", report=lambda p: told.append((clock[0], p)))

    def step(*_: object) -> tuple[float, int]:
        clock[0] += 1.0 if trainer.place.epoch < 2 else 4.0
        return 1.0, 0

    monkeypatch.setattr("pibench.training.train.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(trainer, "_step", step)
    monkeypatch.setattr(
        "pibench.training.train.draw_view", lambda *_: clock.__setitem__(0, clock[0] + 1000.0)
    )  # as long as a teacher takes
    trainer.run()
    steps = [p for _, p in told if p.remaining_s is not None and p.step]
    waits = [1000.0 * (recipe.epochs - 1 - p.epoch) for p in steps]
    ends = [clock[0] - at - wait for (at, _), wait in zip([t for t in told if t[1] in steps], waits, strict=True)]
    assert [p.remaining_s for p in steps] == pytest.approx(ends)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no card")
def test_training_on_a_card_keeps_data_and_momenta_there(card: Card, in_tmp: Path) -> None:
    recipe, state = Recipe(batch_size=16, epochs=2, precision="bfloat16", channels_last=True), in_tmp / "x.safetensors"
    trainer = Trainer(card, make_data(), recipe, state, device="cuda")
    assert trainer.data.train_images.is_cuda
    assert trainer.run() >= 0
    again = Trainer(card, make_data(), recipe, state, device="cuda")
    assert again.resume()
    assert all(kept["momentum_buffer"].is_cuda for kept in again.optimizer.state.values())


def test_a_state_of_another_run_is_not_gone_on_with(card: Card, in_tmp: Path) -> None:
    data, state = make_data(), in_tmp / "x.state.safetensors"
    trainer = Trainer(card, data, Recipe(batch_size=16), state)
    trainer.place.epoch = 1
    trainer.save()
    assert Trainer(card, data, Recipe(batch_size=16), state).resume()
    assert not Trainer(card, data, Recipe(batch_size=16, lr=0.2), state).resume()


def test_a_loss_that_is_no_number_stops_the_run(card: Card, in_tmp: Path) -> None:
    recipe = recipe_for("digits", {**QUICK, "lr": 100.0, "weight_decay": 0.9, "warmup": 0.0, "epochs": 30})
    with pytest.raises(PibenchError, match="the loss is no number"):
        run_job(Job(card, recipe, in_tmp / "x.safetensors", in_tmp), data=make_data())


def test_training_starts_from_weights_that_fit(card: Card, in_tmp: Path) -> None:
    data, recipe = make_data(), recipe_for("digits", QUICK)
    first = run_job(Job(card, recipe, in_tmp / "a.safetensors", in_tmp), data=data)
    again = Trainer(card, data, recipe, in_tmp / "b.state.safetensors", start=first)
    assert torch.equal(again.module.state_dict()["conv1.weight"], load_checkpoint(first)[0]["conv1.weight"])
    second = run_job(Job(card, recipe, in_tmp / "b.safetensors", in_tmp, start=first), data=data)
    assert read_metadata(second)["epochs_before"] == 3
    assert read_metadata(second)["start"]["name"] == "a"


# -- teachers ------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_perfect_student_is_the_hard_part_alone() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    how = Distillation(weight=0.9)
    hard = torch.nn.functional.cross_entropy(logits, labels)
    assert float(distillation_loss(logits, logits, labels, Recipe(), how)) == pytest.approx(0.1 * float(hard), abs=1e-5)


def test_the_soft_part_is_the_divergence_times_the_squared_temperature() -> None:
    student, teacher, t = torch.randn(5, 4), torch.randn(5, 4), 4.0
    p = torch.softmax(teacher / t, 1)
    wanted = t * t * (p * (p.log() - torch.log_softmax(student / t, 1))).sum(1).mean()
    found = distillation_loss(student, teacher, torch.zeros(5).long(), Recipe(), Distillation(weight=1.0))
    assert float(found) == pytest.approx(float(wanted), rel=1e-4)


class Counting(torch.nn.Module):
    """A teacher that counts its calls and likes class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.stack([x.mean((1, 2, 3)) + 5, *[x.mean((1, 2, 3))] * 2], 1)


def test_a_view_is_shown_to_the_teacher_once_and_for_all(in_tmp: Path) -> None:
    data, recipe = make_data(), Recipe(crop=1, distillation=Distillation(views=2))
    counting = Counting()
    for _ in range(2):  # a second student reads what is on disk
        kept = ViewLogits([Teacher("t", counting, "00")], data, recipe, in_tmp)
        assert kept[0].shape == (96, 3)
        assert kept[0].dtype == torch.float16
        assert not torch.equal(kept[0], kept[1])
    assert counting.calls == 2
    other = ViewLogits([Teacher("t", counting, "01")], data, recipe, in_tmp)
    assert other[0].shape == (96, 3)
    assert counting.calls == 3


def test_processes_share_the_views_between_them(in_tmp: Path) -> None:
    """While another process is at a view, the next is computed; nothing is computed twice."""
    data, recipe = make_data(), Recipe(crop=1, distillation=Distillation(views=3))
    waiting, counting = Counting(), Counting()
    slow = ViewLogits([Teacher("t", waiting, "00")], data, recipe, in_tmp)
    fast = ViewLogits([Teacher("t", counting, "00")], data, recipe, in_tmp)
    at_it, go_on = threading.Event(), threading.Event()

    def held(_module: torch.nn.Module, _inputs: object) -> None:
        at_it.set()
        assert go_on.wait(20)

    waiting.register_forward_pre_hook(held)
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(slow.__getitem__, 0)
        assert at_it.wait(20)
        ours = pool.submit(fast.__getitem__, 0)
        while counting.calls < 2:  # the views that nobody was at
            time.sleep(0.01)
        assert not ours.done()
        go_on.set()
        assert torch.equal(ours.result(20), other.result(20))
    fast[1], fast[2]
    assert (waiting.calls, counting.calls) == (1, 2)


@pytest.mark.parametrize("views", [0, 2])
def test_a_teacher_computes_in_the_precision_of_the_recipe(card: Card, in_tmp: Path, views: int) -> None:
    """Its logits of another precision are other logits: they are kept apart."""
    seen: list[torch.dtype] = []

    class Seeing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.linear(x.flatten(1))
            seen.append(found.dtype)
            return found

    teacher = Teacher("t", Seeing(), "00")
    for precision in ("float32", "bfloat16"):
        recipe = Recipe(epochs=1, batch_size=32, crop=1, precision=precision, distillation=Distillation(views=views))
        state = in_tmp / f"{precision}.state"
        Trainer(card, make_data(), recipe, state, teachers=[teacher], teacher_folder=in_tmp / "kept").run()
    assert set(seen) == {torch.float32, torch.bfloat16}
    assert len(list((in_tmp / "kept").rglob("view-*"))) == 2 * min(views, 1)


@pytest.mark.parametrize("views", [0, 2])
def test_a_student_follows_its_teacher(card: Card, in_tmp: Path, views: int) -> None:
    recipe = recipe_for("digits", {**QUICK, "distillation": {"weight": 1.0, "views": views}})
    trainer = Trainer(
        card, make_data(), recipe, in_tmp / "x.state.safetensors", teachers=[Teacher("t", Counting(), "00")]
    )
    trainer.run()
    trainer.module.eval()
    assert trainer.module(torch.randn(20, 1, 8, 8)).argmax(1).tolist() == [0] * 20


def test_lines_tell_epochs_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines(Progress("x", 1, 3, 0, 6, 0.5, 50.0, 40.0, 0.1, 61.0, 3720.0))
    lines(Progress("x", 1, 3, note="logits of view 2"))
    lines(Progress("x", 1, 3, 4, 6))
    out = capsys.readouterr().out.splitlines()
    assert "epoch 1/3 step 0/6 loss 0.500 train 50.00 % test 40.00 %" in out[0]
    assert "1 min 01 s, 1 h 02 min left" in out[0]
    assert "logits of view 2" in out[1]
    assert len(out) == 2


def test_cards_that_do_not_fit_their_data_or_teacher_are_refused(card: Card, in_tmp: Path) -> None:
    job = Job(card, recipe_for("digits", QUICK), in_tmp / "x.safetensors", in_tmp)
    other = dataclasses.replace(make_data(), classes=10)
    with pytest.raises(UsageError, match=r"tells 3 classes; digits has \(1, 8, 8\) and 10"):
        run_job(job, data=other)
    path = in_tmp / "networks" / "wide.yaml"
    make_card(in_tmp, "wide")
    path.write_text(path.read_text().replace("classes: 3", "classes: 4"))
    teacher = TeacherChoice(card=str(path), checkpoint="none")
    with pytest.raises(UsageError, match="wide cannot teach small"):
        run_job(dataclasses.replace(job, teachers=[teacher]), data=make_data())
    assert main(["train", "small", "--device", "cuda:7"]) == 4
