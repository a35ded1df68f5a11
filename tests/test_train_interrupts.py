"""Interrupted runs: wherever the signal comes, the run that goes on ends as one that was never interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import QUICK, make_card, make_data

from pibench.networks.card import Card
from pibench.training.checkpoint import load_checkpoint, read_metadata, save_checkpoint
from pibench.training.interrupts import held_back
from pibench.training.progress import Progress
from pibench.training.recipe import Recipe, recipe_for
from pibench.training.runs import Job, run_job
from pibench.training.train import Trainer


@pytest.fixture
def card(in_tmp: Path) -> Card:
    return make_card(in_tmp)


class Stop(KeyboardInterrupt):
    """Ctrl-C, as the tests press it."""


@pytest.mark.parametrize("at", [(0, 3), (1, 0), (2, 5)])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(card: Card, in_tmp: Path, at: tuple[int, int]) -> None:
    assert_ends_as_uninterrupted(card, recipe_for("digits", {**QUICK, "channels_last": True}), in_tmp, at)


def assert_ends_as_uninterrupted(card: Card, recipe: Recipe, folder: Path, at: tuple[int, int]) -> None:
    """Check that training interrupted at (epoch, step), and gone on with, ends as training that was not."""
    data = make_data()
    whole = run_job(Job(card, recipe, folder / "a.safetensors", folder), data=data)

    def stop(p: Progress) -> None:
        if (p.epoch, p.step) == at:
            raise Stop

    job = Job(card, recipe, folder / "b.safetensors", folder)
    with pytest.raises(Stop):
        run_job(job, data=data, report=stop)
    assert (folder / "b.state.safetensors").is_file()
    assert_same_run(whole, run_job(job, data=data))


def assert_same_run(whole: Path, resumed: Path) -> None:
    """Check that two checkpoints hold the same weights, and the same history but for its times."""
    (first, told), (second, told_again) = load_checkpoint(whole), load_checkpoint(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for row, again in zip(told["history"], told_again["history"], strict=True):
        assert {**row, "wall_s": 0} == {**again, "wall_s": 0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("again", [False, True], ids=["once", "again-while-saving"])
def test_a_signal_within_a_step_leaves_no_half_step(
    card: Card, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, again: bool
) -> None:
    """Halfway through a step, BatchNorm has seen its images and the weights have not: done again, they differ."""
    recipe, data = recipe_for("digits", QUICK), make_data()
    whole = run_job(Job(card, recipe, in_tmp / "a.safetensors", in_tmp), data=data)
    before = {each: signal.signal(each, signal.default_int_handler) for each in (signal.SIGINT, signal.SIGTERM)}
    trainer = Trainer(card, data, recipe, in_tmp / "b.state.safetensors")

    def press(*_: object) -> None:
        if trainer._done() == 8:
            signal.raise_signal(number)

    def press_while_saving(*arguments: Any) -> None:
        if trainer.place.step:  # not after an epoch
            signal.raise_signal(number)
        save_checkpoint(*arguments)

    trainer.module.get_submodule("linear").register_forward_hook(press)
    try:
        with monkeypatch.context() as patch:
            if again:
                patch.setattr("pibench.training.train.save_checkpoint", press_while_saving)
            with pytest.raises(KeyboardInterrupt):
                trainer.run()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert read_metadata(trainer.state_path)["place"]["step"] == 3  # of the second epoch of 6 steps
    assert_same_run(whole, run_job(Job(card, recipe, in_tmp / "b.safetensors", in_tmp), data=data))


def test_a_signal_is_left_alone_where_it_reaches_nobody() -> None:
    """Signals reach the main thread alone; in another one a handler could not even be set."""

    def within() -> bool:
        with held_back():
            return True

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(within).result(20)


def test_a_training_that_is_told_to_end_saves_where_it_stands(in_tmp: Path) -> None:
    recipe = "recipe: {epochs: 1, batch_size: 2, crop: 1, lr: 0.001}"
    (in_tmp / "p.yaml").write_text(f"{recipe}\nrounds: [{{card: digits-tiny}}]\n")
    run = "from pibench.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", run, "train", "--plan", "p.yaml", "--state", "state", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "step" in process.stdout.readline()  # told of its first step; nothing is saved for minutes
            process.terminate()
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "interrupted" in told
    assert read_metadata(in_tmp / "state" / "digits-tiny.state.safetensors")["place"]["step"] > 0
