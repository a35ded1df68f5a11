"""What is asked of a reduction becomes tasks: recipes, schedules and which base networks are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reduction_fakes import little, little_card, little_study

from pibench import cli
from pibench.errors import UsageError
from pibench.reduction.forecast import _imagined
from pibench.reduction.study import Study
from pibench.reduction.tasks import Task


def tasks_of(study: Study) -> dict[str, Task]:
    """Return a task of each kind."""
    search = study.search("search", "snl", little(activation="masked"), {})
    result = _imagined(search)
    return {
        "base": study.base(), "alone": study.alone("a", "A", little(culled=[2])), "search": search,
        "student": study.student("s", "S", little(culled=[2]), "deepreduce"),
        "tuned": study.tuned("t", "T", result, "snl", retrain=False),
        "retrained": study.tuned("r", "R", result, "pruning", retrain=True),
    }  # fmt: skip


def values(study: Study, name: str) -> dict[str, Any]:
    """Return one setting of every kind of task's recipe."""
    return {kind: task.recipe[name] for kind, task in tasks_of(study).items()}


def test_methods_schedules_derive_from_the_recipe_that_was_given(tmp_path: Path) -> None:
    study = little_study(tmp_path, overrides={"epochs": 40, "lr": 0.5, "batch_size": 7})
    whole = dict.fromkeys(("base", "alone", "student", "retrained"))
    assert values(study, "epochs") == {**dict.fromkeys(whole, 40), "search": 20, "tuned": 30}
    assert values(study, "lr") == {**dict.fromkeys(whole, 0.5), "search": 0.5, "tuned": 0.1}
    assert set(values(study, "batch_size").values()) == {7}
    assert values(study, "schedule")["tuned"] == "cosine"


def test_epochs_of_every_student_are_those_that_searches_take_half_of(tmp_path: Path) -> None:
    found = values(little_study(tmp_path, epochs=8), "epochs")
    assert found == {"base": 1, "alone": 8, "student": 8, "retrained": 8, "search": 4, "tuned": 6}


def test_a_base_network_is_trained_and_described_without_its_cards_teacher(tmp_path: Path) -> None:
    taught = {"epochs": 1, "distillation": {"temperature": 2.0, "weight": 0.3}}
    card = little_card(tmp_path).model_copy(update={"teacher": "digits-full", "recipe": taught})
    base = Study(card, (512,)).base()
    assert (base.teacher, base.recipe["distillation"]) == (None, None)
    made = base.card(_imagined(base))
    assert made.teacher is None
    assert made.recipe is not None
    assert made.recipe["distillation"] is None


def test_parts_that_a_card_was_trained_with_frozen_are_not_frozen_in_a_reduction(tmp_path: Path) -> None:
    card = little_card(tmp_path).model_copy(update={"recipe": {"epochs": 1, "frozen": ["conv1"]}})
    assert all("frozen" not in task.recipe for task in tasks_of(Study(card, (512,))).values())
    with pytest.raises(UsageError, match="changes every part"):
        little_study(tmp_path, overrides={"frozen": ["conv1"]})


def test_a_masked_base_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = little_card(tmp_path).model_copy(update={"network": little(activation="masked")})
    with pytest.raises(UsageError, match="little is masked already"):
        Study(card, (512,))
    assert cli.main(["reduce", "snl", "digits-full-snl-50", "--dry-run"]) == 4
    assert "start from the network that it was made from" in capsys.readouterr().err
