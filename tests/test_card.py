"""Cards: what is right is read as written, what is wrong is named with its line, all at once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pibench.documents import read_yaml
from pibench.errors import UsageError
from pibench.library import find_documents
from pibench.networks.card import load_card
from pibench.networks.spec import ResNetSpec

GOOD: dict[str, Any] = {
    "name": "good",
    "title": "A card",
    "method": "full",
    "dataset": "digits",
    "network": {
        "family": "resnet",
        "base_width": 16,
        "multipliers": [2, 2],
        "blocks": [1, 1, 1],
        "classes": 10,
        "input": [1, 8, 8],
    },
    "relu_count": 4608,
    "provenance": "confirmed",
}


def write(folder: Path, data: Any, name: str = "good") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False))
    return path


def message(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_card(path)
    return str(caught.value)


def test_every_shipped_card_is_valid_and_known_by_name() -> None:
    cards = [load_card(path) for path in find_documents("networks")]
    assert len(cards) > 90
    assert load_card("drd-c100-12k").relu_count == 12288
    assert len({card.sha256 for card in cards}) == len(cards)


def test_a_good_card_is_read_as_written(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, GOOD))
    assert isinstance(card.network, ResNetSpec)
    assert card.network.widths == [16, 32, 64]
    assert card.network.input_shape == (1, 8, 8)


def test_all_errors_come_at_once_with_line_and_suggestion(tmp_path: Path) -> None:
    bad = (
        "name: good\ntitel: x\ntitle: 3\nmethod: deepreduced\ndataset: digits\nnetwork:\n  family: resnet\n"
        "  base_widht: 64\n  width_scale: wide\n  classes: 10\n  input: [1, 8]\nrelu_count: -1\nprovenance: confirmed\n"
        "recipe:\n  epoch: 3\n"
    )
    path = write(tmp_path, bad)
    text = message(path)
    assert "8 problems" in text
    for line, part in (
        (2, "unknown key 'titel'; did you mean 'title'?"),
        (3, "title: input should be a valid string (given: 3)"),
        (4, "method: 'deepreduced' is not known; did you mean 'deepreduce'?"),
        (8, "unknown key 'base_widht'; did you mean 'base_width'?"),
        (9, "network.width_scale: input should be a valid number (given: 'wide')"),
        (11, "network.input: list should have at least 3 items, not 2"),
        (12, "relu_count: input should be greater than or equal to 0 (given: -1)"),
        (15, "unknown key 'epoch'; did you mean 'epochs'?"),
    ):
        assert f"{path}:{line}: {part}" in text


def test_an_unknown_family_is_named_with_the_near_one(tmp_path: Path) -> None:
    data = copy.deepcopy(GOOD)
    data["network"]["family"] = "resnt"
    assert "there is no family 'resnt'; did you mean 'resnet'?" in message(write(tmp_path, data))
    del data["network"]["family"]
    assert "'family' is missing" in message(write(tmp_path, data))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"multipliers": [2]}, "3 stages need 2 multipliers"),
        ({"culled": [4]}, "culled names a stage beyond the 3 there are"),
        ({"culled": [1, 1]}, "culled names a stage twice"),
        ({"base_width": 1, "width_scale": 0.5}, "leaves less than one channel"),
        ({"inner_widths": [[1], [2]]}, "inner_widths needs one width a block"),
        ({"multipliers": [60000, 60000]}, "the last stage would have"),
        ({"stem_stride": 3}, "stem_stride"),
        ({"base_width": True}, "base_width"),
        ({"base_width": "64"}, "base_width"),
    ],
)
def test_networks_that_cannot_be(tmp_path: Path, changes: dict[str, Any], part: str) -> None:
    data = copy.deepcopy(GOOD)
    data["network"].update(changes)
    assert part in message(write(tmp_path, data))


def test_name_and_file_must_agree(tmp_path: Path) -> None:
    text = message(write(tmp_path, GOOD, "other"))
    assert text.startswith(f"{tmp_path / 'other.yaml'}:1: the card is named 'good'")


def test_a_teacher_must_be_a_card(tmp_path: Path) -> None:
    text = message(write(tmp_path, {**GOOD, "teacher": "resnet18-c10O"}))
    assert f"{tmp_path / 'good.yaml'}:22: teacher: there is no card 'resnet18-c10O'; did you mean" in text


def test_unknown_card_names_the_near_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'digits-full'"):
        load_card("digits-ful")
    with pytest.raises(UsageError, match="no such card file"):
        load_card("nowhere/card.yaml")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "the file is empty"),
        ("a: 1\na: 2\n", ":2: key 'a' stands twice (first in line 1)"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: &x [*x]\n", "not valid YAML"),
        ("a: !!python/object:os.system 1\n", "not valid YAML"),
        ("a: !!timestamp x\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("- " * 5000, "not valid YAML"),
        ("[" * 50_000, "too large or too deep"),
        ("- 1\n", ":1: keys with values are expected here"),
        ("just text\n", ":1: keys with values are expected here"),
    ],
)
def test_broken_yaml_is_one_clear_message(tmp_path: Path, text: str, part: str) -> None:
    assert part in message(write(tmp_path, text))


def test_numbers_are_read_by_the_rules_of_yaml_1_2(tmp_path: Path) -> None:
    text = b"a: [010, 1e3, on, yes, 12:30, 2020-01-01, 1_000, ~, true, -4, .5]"
    assert read_yaml(tmp_path / "x.yaml", text)[0]["a"] == [
        10, 1000.0, "on", "yes", "12:30", "2020-01-01", "1_000", None, True, -4, 0.5,
    ]  # fmt: skip


def test_a_card_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UsageError, match="no such card file"):
        load_card(tmp_path / "folder.yaml")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["resnet", "vgg"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def broken(draw: st.DrawFn, good: dict[str, Any]) -> dict[str, Any]:
    """A document with some of its values, at any depth, replaced, removed or joined by junk."""
    data = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        place: Any = data
        while True:
            key = draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
                break
            place = inner
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove" and len(place) > 1:
            del place[key]
        elif action == "add" and isinstance(place, dict):
            place[draw(st.text(max_size=8))] = draw(JUNK)
        else:
            place[key] = draw(JUNK)
    return data


@given(data=broken(GOOD))
def test_broken_cards_only_ever_give_usage_errors(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    path = write(tmp_path_factory.getbasetemp(), yaml.dump(data, allow_unicode=True))
    try:
        load_card(path)
    except UsageError as error:
        assert str(path) in str(error)


@given(text=st.binary(max_size=200))
def test_any_bytes_only_ever_give_usage_errors(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(text)
    with pytest.raises(UsageError):
        load_card(path)
