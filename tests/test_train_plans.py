"""What `pibench train` makes: what is missing, the teacher first; plans of several rounds; the verb's own mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_train import QUICK, make_card, make_data

from pibench.cli import main
from pibench.errors import DataError, UsageError
from pibench.networks.card import Card, load_card
from pibench.training import ensure_trained
from pibench.training.checkpoint import read_metadata, save_checkpoint
from pibench.training.find_checkpoint import find_checkpoint, target_of, train_card
from pibench.training.plan import Plan, Round, TeacherChoice, load_plan
from pibench.training.recipe import recipe_for
from pibench.training.runs import Job, read_teacher, run_job, run_plan


@pytest.fixture
def card(in_tmp: Path) -> Card:
    return make_card(in_tmp)


def test_widening_needs_a_start() -> None:
    with pytest.raises(ValueError, match="widen needs a start"):
        Round(card="small", widen=True)


# -- what is missing is trained ------------------------------------------------------------------------------------


@pytest.fixture
def small_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data()
    monkeypatch.setattr("pibench.training.runs.load_dataset", lambda name: data)


@pytest.mark.usefixtures("small_digits")
def test_what_is_missing_is_trained_the_teacher_first(in_tmp: Path) -> None:
    recipe = "recipe: {epochs: 1, batch_size: 16, crop: 1}"
    make_card(in_tmp, "big", recipe)
    pupil = make_card(in_tmp, "pupil", f"teacher: big\n{recipe}")
    told: list[str] = []
    path = ensure_trained(pupil, told.append)
    assert path == find_checkpoint(pupil) == target_of(pupil)
    assert [line.split(":")[0] for line in told] == ["training big", "training pupil"]
    meta = read_metadata(target_of(pupil))
    assert meta["teachers"][0]["name"] == "big"
    assert meta["recipe"]["distillation"] is not None
    assert ensure_trained(pupil, told.append) == path
    assert len(told) == 2


@pytest.mark.usefixtures("small_digits")
def test_every_teacher_has_a_checkpoint_of_its_own(in_tmp: Path) -> None:
    recipe = "recipe: {epochs: 1, batch_size: 16, crop: 1}"
    for name in ("big", "bigger"):
        make_card(in_tmp, name, recipe)
    pupil = make_card(in_tmp, "pupil", f"teacher: big\n{recipe}")
    own = train_card(pupil)
    weights = find_checkpoint(load_card("bigger")) or ensure_trained(load_card("bigger"))
    given = [
        train_card(pupil, teacher=TeacherChoice(card="bigger")),
        train_card(pupil, teacher=TeacherChoice(card="big", checkpoint=str(weights))),
        train_card(pupil, alone=True),
    ]
    assert own == target_of(pupil) == train_card(pupil, teacher=TeacherChoice(card="big"))
    assert len({own, *given}) == 4
    taught = [[t["name"] for t in read_metadata(path)["teachers"]] for path in (own, *given)]
    assert taught == [["big"], ["bigger"], ["big"], []]
    with pytest.raises(DataError, match="taught by big, which has no checkpoint"):
        train_card(pupil, teacher=TeacherChoice(card="big", checkpoint="gone.safetensors"))


def test_shipped_checkpoints_are_found_and_long_training_is_left_to_the_user(in_tmp: Path) -> None:
    path = in_tmp / "networks" / "far.yaml"
    make_card(in_tmp, "far")
    path.write_text(path.read_text().replace("dataset: digits", "dataset: cifar100"))
    far = load_card(path)
    assert ensure_trained(far) is None
    (in_tmp / "zoo").mkdir()
    shipped = in_tmp / "zoo" / "far.safetensors"
    save_checkpoint(shipped, {}, {"network": far.network.model_dump()})
    assert ensure_trained(far) == shipped
    path.write_text(path.read_text().replace("family: resnet", "family: resnet, culled: [2]"))
    assert ensure_trained(load_card(path)) is None  # what is shipped computes something else


@pytest.mark.usefixtures("small_digits")
def test_a_teacher_of_another_function_is_refused(card: Card, in_tmp: Path) -> None:
    recipe = recipe_for("digits", {**QUICK, "epochs": 1})
    path = run_job(Job(card, recipe, in_tmp / "t.safetensors", in_tmp), data=make_data())
    card.path.write_text(card.path.read_text().replace("family: resnet", "family: resnet, thinning: top"))
    command = ["train", "small", "--teacher", f"small={path}"]
    assert main(command) == 4
    with pytest.raises(DataError, match="thinning is none, not top"):
        read_teacher(TeacherChoice(card="small", checkpoint=str(path)), in_tmp, card)


# -- plans and the verb --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_digits")
def test_a_plan_trains_in_order_and_only_what_is_missing(in_tmp: Path) -> None:
    make_card(in_tmp)
    quick = {"epochs": 1, "batch_size": 16, "crop": 1}
    plan = Plan(
        recipe=quick,
        rounds=[
            Round(card="small", name="first", teachers=[]),
            Round(card="small", start="first"),
        ],
        teachers=[{"card": "small", "checkpoint": "first"}],  # type: ignore[list-item]
    )
    state = in_tmp / "state"
    assert [path.name for path in run_plan(lambda: plan, state)] == ["first.safetensors", "small.safetensors"]
    assert read_metadata(state / "small.safetensors")["epochs_before"] == 1
    taught = [len(read_metadata(state / f"{name}.safetensors")["teachers"]) for name in ("first", "small")]
    assert taught == [0, 1]
    assert run_plan(lambda: plan, state) == []


@pytest.mark.usefixtures("small_digits")
def test_rounds_of_a_plan_are_chosen_by_name(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_card(in_tmp)
    rounds = "".join(f"  - {{card: small, name: {name}}}\n" for name in ("one", "two", "three"))
    (in_tmp / "p.yaml").write_text(f"recipe: {{epochs: 1, batch_size: 16, crop: 1}}\nrounds:\n{rounds}")
    assert main(["train", "--plan", "p.yaml", "--state", "state", "three", "one"]) == 0
    assert sorted(path.name for path in (in_tmp / "state").glob("*.safetensors")) == [
        "one.safetensors", "three.safetensors"
    ]  # fmt: skip
    capsys.readouterr()
    assert main(["train", "--plan", "p.yaml", "--state", "state", "four"]) == 4
    assert "the plan has no round four" in capsys.readouterr().err


@pytest.mark.usefixtures("small_digits")
def test_a_plans_rounds_take_each_other_and_not_the_zoo(card: Card, in_tmp: Path) -> None:
    """What is shipped under a round's name is another training's result."""
    recipe = {"epochs": 1, "batch_size": 16, "crop": 1}
    run_job(Job(card, recipe_for("digits", recipe), in_tmp / "zoo" / "small.safetensors", in_tmp), data=make_data())
    last = Round(card="small", name="last", recipe=recipe)
    first = Round(card="small", recipe=recipe)
    for change, message in (
        ({"start": "small"}, "last starts from 'small', which was not trained yet"),
        ({"teachers": [TeacherChoice(card="small")]}, "last is taught by 'small', which was not trained yet"),
    ):
        item = last.model_copy(update=change)
        with pytest.raises(UsageError, match=message):
            run_plan(lambda item=item: Plan(rounds=[first, item]), in_tmp / "state", only=["last"])  # type: ignore[misc]
        run_plan(lambda item=item: Plan(rounds=[item]), in_tmp / "alone")  # type: ignore[misc]
        (in_tmp / "alone" / "last.safetensors").unlink()


@pytest.mark.usefixtures("small_digits")
def test_a_plan_is_checked(in_tmp: Path) -> None:
    (in_tmp / "p.yaml").write_text("rounds:\n  - card: small\n    recipe: {epochs: 0}\n")
    with pytest.raises(UsageError, match="the recipe of small: epochs"):
        load_plan(in_tmp / "p.yaml")
    make_card(in_tmp)
    with pytest.raises(UsageError, match="starts from 'gone'"):
        run_plan(lambda: Plan(rounds=[Round(card="small", start="gone")]), in_tmp)
    teachers = [{"card": "small", "checkpoint": "gone"}]
    with pytest.raises(DataError, match="no checkpoint 'gone' of teacher small"):
        run_plan(lambda: Plan(rounds=[Round(card="small", name="x", teachers=teachers)]), in_tmp)  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_digits")
def test_the_verb_trains_once(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_card(in_tmp, more="recipe: {epochs: 1, batch_size: 16, crop: 1}")
    assert main(["train", "small"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"of 30 test images \(of the worst class [\d.]+ %\), .pibench/checkpoints/small-", told)
    assert main(["train", "small"]) == 0
    assert "trained already" in capsys.readouterr().out
    assert main(["train", "small", "--epochs", "2", "--no-resume"]) == 0
    assert "trained already" not in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [[], ["small", "--epochs", "0"], ["--plan", "x", "--force"]])
def test_wrong_options_are_refused(in_tmp: Path, wrong: list[str]) -> None:
    assert main(["train", *wrong]) == 4
