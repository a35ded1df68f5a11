"""Tasks, cache, plan, processes, output and the command: nothing trained twice, nothing lost, the same anywhere."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reduction_fakes import little, little_card, little_study, noise

from pibench import cli
from pibench.commands.reduce import fitting
from pibench.errors import DataError, UsageError
from pibench.networks.build import masks_of
from pibench.networks.card import load_card
from pibench.reduction import actions, deepreduce, drive, forecast, jobs, output
from pibench.reduction.board import ReductionFailed
from pibench.reduction.deepreshape import choose
from pibench.reduction.equalize import solve
from pibench.reduction.tasks import Cache, Result, Task

METHODS = ["deepreduce", "deepreshape", "snl", "senet", "coordinate", "taylor", "prune", "poly"]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Return an empty cache."""
    return Cache(tmp_path / "cache")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of tasks that were really done, on noise instead of a data set."""
    done: list[str] = []
    for name, action in list(actions.ACTIONS.items()):

        def wrapped(task: Task, place: actions.Workplace, action: Callable[..., actions.Outcome] = action) -> object:
            done.append(task.name)
            return action(task, place)

        monkeypatch.setitem(actions.ACTIONS, name, wrapped)
    monkeypatch.setattr("pibench.training.data.load_dataset", lambda *_args, **_more: noise())
    return done


def run_here(cache: Cache) -> drive.Run:
    """Return a quiet local runner."""
    return lambda tasks: jobs.run_here(tasks, cache, lambda _text: None)


def test_the_key_hashes_what_decides_and_no_names(tmp_path: Path) -> None:
    task = little_study(tmp_path).base()
    assert task.model_copy(update={"name": "x", "title": "y", "note": "z", "method": "snl"}).key == task.key
    others = [{"teacher": "k"}, {"start": "k"}, {"options": {"match": 1.0}}, {"recipe": {**task.recipe, "seed": 9}}]
    others += [{"network": little(culled=[2])}, {"action": "prune"}, {"dataset": "cifar10"}]
    keys = {task.key, *(task.model_copy(update=other).key for other in others)}
    assert len(keys) == len(others) + 1


def test_every_method_trains_once_and_never_again(tmp_path: Path, cache: Cache, counted: list[str]) -> None:
    study = little_study(tmp_path, 512)
    outcome = drive.drive(study, METHODS, run_here(cache))
    assert len(counted) == len(set(counted)) == len(outcome.tasks)  # the base network is shared
    for method in drive.BY_BUDGET:
        made = outcome.results[outcome.networks[method][-1].key]
        assert 0 < made.relu_count <= 512, method
    counted.clear()
    again = drive.drive(study, METHODS, run_here(cache))
    assert counted == []
    assert again.results == outcome.results
    drive.drive(little_study(tmp_path, 512, epochs=2), ["snl"], run_here(cache))
    assert "little" not in counted  # only what the change decides about is done again
    assert counted


def test_a_killed_reduction_goes_on_where_it_stopped(tmp_path: Path, cache: Cache, counted: list[str]) -> None:
    study = little_study(tmp_path, 512)
    left = [3]

    def dies(tasks: list[Task]) -> dict[str, Result]:
        found = {}
        for task in tasks:
            if cache.result(task.key) is None:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
            found |= jobs.run_here([task], cache, lambda _text: None)
        return found

    with pytest.raises(KeyboardInterrupt):
        drive.drive(study, ["deepreduce"], dies)  # type: ignore[arg-type]
    before = list(counted)
    outcome = drive.drive(study, ["deepreduce"], run_here(cache))
    assert len(before) == 3
    assert not set(before) & set(counted[3:])
    assert len(counted) == len(outcome.tasks)


def test_the_plan_names_what_will_run_and_trains_nothing(tmp_path: Path, cache: Cache, counted: list[str]) -> None:
    study = little_study(tmp_path, 512)
    plan = forecast.forecast(study, METHODS, cache)
    assert counted == []
    assert plan.step_s > 0
    assert sum(plan.seconds.values()) > 0
    drive.drive(study, METHODS, run_here(cache))
    assert len(counted) == len(plan.outcome.tasks)
    assert forecast.forecast(study, METHODS, cache).left == []


@pytest.mark.parametrize(("settings", "steps"), [({}, {4, 3}), ({"samples": 64}, {2})])
def test_the_plan_expects_the_images_that_will_be_shown(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, counted: list[str],
    settings: dict[str, int], steps: set[int],
) -> None:  # fmt: skip
    monkeypatch.setattr(forecast, "_speed", lambda _study: (1.0, 0.0, 1.0))  # every step takes a second
    study = little_study(tmp_path, 512, settings=settings, overrides={"batch_size": 32})
    plan = forecast.forecast(study, ["deepreduce"], cache)
    assert set(plan.seconds.values()) == steps  # criticality does without the images held out


def test_criticality_is_judged_on_training_images_held_out(tmp_path: Path) -> None:
    data, study = noise(), little_study(tmp_path, 512)
    split = actions.held_out(data, int(study.alone("one", "One", little(culled=[2])).options["held_out"] or 0))
    everything = torch.cat([split.train_images, split.test_images])
    assert (len(split.train_labels), len(split.test_labels)) == (116, 12)
    assert sorted(map(bytes, everything.numpy())) == sorted(map(bytes, data.train_images.numpy()))
    again = actions.held_out(data, 10)
    assert torch.equal(split.test_images, again.test_images)  # all stages by the same images
    assert actions.held_out(data, 0) is data
    assert all("held_out" not in task.options for task in (study.base(), study.student("s", "S", little(), "snl")))


def test_the_test_images_do_not_decide_about_criticality(tmp_path: Path, cache: Cache) -> None:
    data = noise()
    alone = little_study(tmp_path, 512).alone("one", "One", little(culled=[2]))
    found = actions.perform(alone, cache, lambda _text: None, data)
    flipped = dataclasses.replace(data, test_labels=(data.test_labels + 1) % 10)
    other = actions.perform(alone, Cache(tmp_path / "other"), lambda _text: None, flipped)
    assert (found.accuracy, found.n_test) == (other.accuracy, 12)


def test_a_failed_task_is_tried_again_and_the_others_finish(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, counted: list[str]
) -> None:
    study, said = little_study(tmp_path, 512), list[str]()
    good, bad = study.base(), study.alone("bad", "Bad", little(culled=[2]))
    tries: list[str] = []

    def fails(task: Task, place: actions.Workplace) -> actions.Outcome:
        tries.append(task.name)
        if task.name == bad.name:
            raise RuntimeError("a loose cable")
        return actions._train(task, place)

    monkeypatch.setitem(actions.ACTIONS, "train", fails)
    with pytest.raises(ReductionFailed, match="a loose cable"):
        jobs.run_here([bad, good], cache, said.append)
    assert tries == [bad.name, bad.name, good.name]
    assert cache.result(good.key) is not None
    assert any("tried once more" in text for text in said)


@pytest.mark.timeout(300)
def test_processes_make_the_same_checkpoints(tmp_path: Path, cache: Cache) -> None:
    study = little_study(tmp_path, 512)
    tasks = [study.base(), study.alone("one", "One", little(culled=[2]))]
    elsewhere = Cache(tmp_path / "other")
    jobs.run_here(tasks, cache, lambda _text: None)
    results = jobs.run_processes(tasks, elsewhere, lambda _text: None, 2)
    assert {k: r.accuracy for k, r in results.items()} == {
        t.key: getattr(cache.result(t.key), "accuracy", None) for t in tasks
    }
    for task in tasks:
        ours, theirs = (actions.network_at(c.path(task.key))[1].state_dict() for c in (cache, elsewhere))
        assert all(ours[name].equal(theirs[name]) for name in ours)


def test_checkpoints_and_cards_come_out(tmp_path: Path, cache: Cache, counted: list[str]) -> None:
    outcome = drive.drive(little_study(tmp_path, 300), ["snl", "prune"], run_here(cache))
    rows = output.write(outcome, cache, tmp_path / "out")
    assert {row.task.method for row in rows} == {"full", "snl", "pruning"}
    for row in rows:
        card = load_card(tmp_path / "out" / "networks" / f"{row.task.name}.yaml")
        _, module = actions.network_at(tmp_path / "out" / "zoo" / f"{row.task.name}.safetensors")
        assert card.relu_count == row.relus
        assert card.network == row.result.network
        if card.method == "snl":
            assert sum(int(mask.sum()) for mask in masks_of(module).values()) == 300
    table = (tmp_path / "out" / "frontier.md").read_text(encoding="utf-8")
    assert table.count("\n") == len(rows) + 2
    assert "at most 300 ReLUs:\n  1." in output.ranking(rows, [300])


def test_a_given_checkpoint_is_taken_over(tmp_path: Path, cache: Cache, counted: list[str]) -> None:
    trained = jobs.run_here([little_study(tmp_path).base()], cache, lambda _text: None)
    file = next(cache.path(key) for key in trained)
    study = little_study(tmp_path, checkpoint=file, warm=True)
    base = study.base()
    assert base.action == "given"
    assert study.student("s", "S", little(culled=[1]), "deepreduce").start == base.key
    jobs.run_here([base], cache, lambda _text: None)
    assert counted == ["little", "little"]
    card = study.card.model_copy(update={"network": little(culled=[2])})
    with pytest.raises(DataError, match=r"culled is \[\], not \[2\]"):
        dataclasses.replace(study, card=card).base()
    with pytest.raises(DataError, match="cannot be read"):
        little_study(tmp_path, checkpoint=tmp_path / "nothing").base()


def test_ladder_has_no_twins_and_falls() -> None:
    ladder = deepreduce.candidates(little(multipliers=[2, 2], blocks=[1, 1, 1]), [2, 3, 1])
    assert len({candidate.network.model_dump_json() for candidate in ladder}) == len(ladder) == 13
    assert [c.name for c in ladder[:3]] == ["drd-b", "drd-c1", "drd-c1-b"]
    assert "drd-c13-b-a2-r2" in {candidate.name for candidate in ladder}


def test_a_hybrenet_fills_its_budget_with_few_coarse_steps() -> None:
    spec = little(base_width=16, multipliers=[2, 2, 2], blocks=[2, 2, 2, 2])
    solutions = solve((3, 2, 4, 1), spec.blocks)
    half, tenth = (choose(spec, solutions, (3, 2, 4, 1), budget) for budget in (4352, 870))
    assert 0.75 * 4352 <= half.relu_count <= 4352
    assert half.network.culled == []
    assert tenth.relu_count <= 870
    with pytest.raises(UsageError, match="no HybReNet"):
        choose(spec, solutions, (3, 2, 4, 1), 3)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    little_card(tmp_path)
    command = ["reduce", "hybrenet,snl", "little.yaml", "-b", "0.5"]
    assert cli.main([*command, "--dry-run"]) == 0
    assert "trainings left" in capsys.readouterr().out
    assert not (tmp_path / ".pibench").exists()
    assert cli.main([*command, "-o", "out", "-s", "recipe.batch_size=512"]) == 0
    shown = capsys.readouterr().out
    assert "on the frontier" in shown
    assert "at most 512 ReLUs:" in shown
    assert sorted(p.name for p in (tmp_path / "out" / "networks").iterdir()) == [
        "little-hrn-50.yaml", "little-snl-50.yaml", "little.yaml",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prune,shrink"], "no method 'shrink'"),
        (["snl", "-b", "many"], "no budget"),
        (["snl", "-b", "99999"], "not within"),
        (["snl", "--set", "growth"], "no setting"),
        (["snl", "--epochs", "0"], "trains nothing"),
    ],
)
def test_mistakes_get_one_message(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    little_card(tmp_path)
    assert cli.main(["reduce", words[0], "little.yaml", *words[1:]]) == 4
    assert message in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_no_worker_outlives_a_killed_reduction(tmp_path: Path) -> None:
    little_card(tmp_path)
    main = "import sys; from pibench.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "reduce", "deepreduce"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "little.yaml", "-j", "2", "--epochs", "5000"], cwd=tmp_path, stdout=log, stderr=log
        )
    try:
        workers = _wait_for(lambda: _children(process.pid), 120)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    _wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 60)


def _children(pid: int) -> list[int]:
    """Return a process's children that have loaded torch (the workers)."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if "libtorch" in Path(f"/proc/{child}/maps").read_text():
            found.append(int(child))
    return found


def _wait_for(what: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
    return value


def test_keys_do_not_depend_on_the_process(tmp_path: Path) -> None:
    task = little_study(tmp_path).base()
    script = (
        "import sys; from pibench.reduction.tasks import Task as T; print(T.model_validate_json(sys.stdin.read()).key)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    shown = subprocess.run(
        [sys.executable, "-c", script], input=task.model_dump_json(), capture_output=True, text=True, check=True,
        env=environment,
    )  # fmt: skip
    assert shown.stdout.strip() == task.key


def test_the_table_says_what_an_epoch_showed(tmp_path: Path, cache: Cache, counted: list[str]) -> None:
    whole = little_study(tmp_path, 512)
    given = jobs.run_here([whole.base()], cache, lambda _text: None)
    study = little_study(tmp_path, 512, settings={"samples": 64}, checkpoint=cache.path(*given))
    outcome = drive.drive(study, ["snl"], run_here(cache))
    rows = output.rows(outcome)
    assert [output.spent_epochs(row) for row in rows] == ["given", "2 of 64 images"]
    assert ["recipe" in output.card_document(row) for row in rows] == [False, True]
    outcome = drive.drive(whole, ["snl"], run_here(cache))
    assert [output.spent_epochs(row) for row in output.rows(outcome)] == ["1", "3"]


def test_a_search_that_meets_its_budget_early_counts_the_epochs_it_ran(tmp_path: Path, cache: Cache) -> None:
    study, data = little_study(tmp_path), noise()
    options = {"budget": 1024, "threshold": 0.01, "strength": 1e-5, "growth": 1.1}  # the budget is the whole network
    search = study.search("search", "snl", little(activation="masked"), options)
    search = search.model_copy(update={"recipe": {**search.recipe, "epochs": 5}})
    base, found = (actions.perform(task, cache, lambda _text: None, data) for task in (study.base(), search))
    assert (base.epochs_in_all, found.epochs, found.epochs_in_all) == (1, 1, 2)


def test_dominated_candidates_are_marked_and_may_be_left_out(tmp_path: Path, cache: Cache, counted: list[str]) -> None:
    outcome = drive.drive(little_study(tmp_path, 512), ["deepreduce", "prune"], run_here(cache))
    accuracies = {"little": 90.0, "little-drd-b": 80.0, "little-prune-50": 99.0}  # the others 10 %
    for task in [task for tasks in outcome.networks.values() for task in tasks]:
        changed = outcome.results[task.key].model_copy(update={"accuracy": accuracies.get(task.name, 10.0)})
        outcome.results[task.key] = changed
    found = output.write(outcome, cache, tmp_path / "out", everything=False)
    best = {row.task.name for row in output.front(found)}
    own = {row.task.name for row in output.own_front(found)}
    written = {path.stem for path in (tmp_path / "out" / "networks").iterdir()}
    smallest = min(found, key=lambda row: row.relus).task.name
    assert best == {smallest, "little-prune-50"}
    assert own == written == {"little", "little-drd-b", smallest, "little-prune-50"}
    marks = {line.split(" | ")[0][2:]: line.split(" | ")[-1][0] for line in output.table(found).splitlines()[2:]}
    assert {name for name, mark in marks.items() if mark == "x"} == best
    assert {name for name, mark in marks.items() if mark == "o"} == own - best


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_of_a_study_fits_the_screen(width: int) -> None:
    row = ("digits-tiny-snl-50", "snl", "48", "2", "0.049", "0.039", "93.06", "15 of 1,000 images", "x")
    lines = fitting([output.HEADINGS, row], width)
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    assert all(word in lines[1] for word in ("digits-tiny-snl-50", "48", "93.06", "x"))
    assert ("0.039" in lines[1]) == (width == 120)
