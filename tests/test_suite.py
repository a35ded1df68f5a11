"""Suites: what they expand to, and that everything wrong with one is named with its line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pibench.errors import UsageError
from pibench.library import find_documents
from pibench.registry import LINKS, MEASURES, OWN_SOCKETS_ONLY
from pibench.suite import Suite, load_suite

GOOD: dict[str, Any] = {
    "name": "good",
    "networks": ["digits-full", {"model": "package.module:factory", "input": [3, 32, 32]}],
    "protocols": ["plaintext", {"name": "masked", "label": "wide", "options": {"range_bits": 10}}],
    "links": ["loopback", {"name": "slow", "rtt_ms": 20, "mbit_s": 50.5}],
    "batches": [1, 2],
    "sessions": 2,
    "thresholds": [{"measure": "online_s", "tolerance": "3%", "cases": "*/masked*"}],
}


def write(folder: Path, data: Any, name: str = "good") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False))
    return path


def message(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_suite(path)
    return str(caught.value)


@pytest.mark.parametrize("path", find_documents("suites"), ids=lambda path: path.stem)
def test_every_shipped_suite_is_valid(path: Path) -> None:
    suite = load_suite(path)
    assert suite.name == path.stem
    assert suite.cases()


def test_shipped_suites() -> None:
    assert {"quick", "c100", "tiny", "protocols"} <= {path.stem for path in find_documents("suites")}
    quick = load_suite("quick")
    assert len(quick.cards) >= 5
    assert {case.protocol for case in quick.cases()} >= {"plaintext", "crypten", "crypten-cached"}
    assert "resnet18-c100" in load_suite("c100").cards


def test_cases_are_the_product_and_their_ids_name_the_cell(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, GOOD))
    ids = [case.id for case in suite.cases()]
    assert len(ids) == 2 * 2 * 2 * 2 == len(set(ids))
    assert ids[0] == "digits-full/plaintext/loopback/cpu/b1"
    assert "package.module:factory/masked+wide/slow/cpu/b2" in ids
    last = suite.cases()[-1]
    assert last.options == {"range_bits": 10}
    assert last.link.given == {"name": "slow", "rtt_ms": 20, "mbit_s": 50.5}
    assert suite.thresholds[0].tolerance == pytest.approx(0.03)
    assert suite.text == (tmp_path / "good.yaml").read_text()


def test_patterns_name_many_cards(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, {**GOOD, "networks": ["digits-*", "digits-full"], "batches": [1]}))
    assert len(suite.cards) == len(set(suite.cards)) >= 6


def test_a_protocol_may_keep_to_some_networks(tmp_path: Path) -> None:
    data = {"name": "good", "networks": ["digits-full", "digits-tiny"], "protocols": ["masked"]}
    data["protocols"] = ["masked", {"name": "crypten", "networks": ["*-full"]}]
    ids = [case.id.rsplit("/", 3)[0] for case in load_suite(write(tmp_path, data)).cases()]
    assert ids == ["digits-full/masked", "digits-full/crypten", "digits-tiny/masked"]
    data["protocols"] = ["masked", {"name": "crypten", "networks": ["digits-ful"]}]
    path = write(tmp_path, data)
    assert "no network of the suite fits 'digits-ful'; did you mean 'digits-full'?" in message(path)


def test_a_card_file_beside_the_suite(tmp_path: Path) -> None:
    from pibench.networks.card import load_card

    card = load_card("digits-tiny").path
    suite = load_suite(write(tmp_path, {**GOOD, "networks": [str(card)]}))
    assert suite.cases()[0].id.startswith("digits-tiny/")


def test_all_errors_come_at_once_with_line_and_suggestion(tmp_path: Path) -> None:
    bad = (
        "name: bad\nnetworks:\n  - digits-full\nprotocls: [masked]\nprotocols:\n  - cryten\n"
        "  - {name: masked, label: a/b}\n"
        "links:\n  - {name: slow, rtt: 3}\ndevices: [gpu]\nbatches: [0]\nsessions: many\nthresholds:\n"
        "  - {measure: online, tolerance: 3%}\n"
    )
    path = write(tmp_path, bad, "bad")
    text = message(path)
    for line, part in (
        (4, "unknown key 'protocls'; did you mean 'protocols'?"),
        (6, "no protocol is named 'cryten'; did you mean 'crypten'?"),
        (7, "protocols[1].label: string should match pattern"),
        (9, "unknown key 'rtt'; did you mean 'rtt_ms'?"),
        (10, "devices[0]: string should match pattern"),
        (11, "batches[0]: input should be greater than or equal to 1"),
        (12, "sessions: input should be a valid integer (given: 'many')"),
        (14, "no measure is named 'online'; did you mean 'online_s'?"),
    ):
        where = next((row for row in text.splitlines() if row.strip().startswith(f"{path}:{line}: ")), "")
        assert part in where, text


@pytest.mark.parametrize(
    ("changes", "line", "part"),
    [
        ({"networks": ["digits-ful"]}, 3, "there is no card 'digits-ful'; did you mean 'digits-full'?"),
        ({"networks": ["nothing-*"]}, 3, "no card fits the pattern 'nothing-*'"),
        ({"networks": [{"model": "a.b:c"}]}, 3, "a model needs its input"),
        ({"networks": [{"card": "digits-full", "input": [1, 8, 8]}]}, 3, "a card knows its input"),
        ({"networks": [{"weights": "x.safetensors"}]}, 3, "a network needs a card or a model"),
        ({"networks": ["digits-full", "digits-full"]}, 2, "the suite names the case digits-full/plaintext"),
    ],
)
def test_what_shows_only_against_the_cards(tmp_path: Path, changes: dict[str, Any], line: int, part: str) -> None:
    path = write(tmp_path, {**GOOD, **changes})
    text = message(path)
    assert f"{path}:{line}: {part}" in text


def test_a_link_without_numbers_must_be_a_known_one(tmp_path: Path) -> None:
    assert "no link is named 'lam'; did you mean 'lan'?" in message(write(tmp_path, {**GOOD, "links": ["lam"]}))


def test_card_and_model_exclude_each_other(tmp_path: Path) -> None:
    both = {"card": "digits-full", "model": "a:b", "input": [1, 8, 8]}
    assert "a card or a model, not both" in message(write(tmp_path, {**GOOD, "networks": [both]}))


def test_a_missing_suite_names_the_near_one() -> None:
    with pytest.raises(UsageError, match="there is no suite 'quik'; did you mean 'quick'"):
        load_suite("quik")


def test_names_known_without_imports_are_the_real_ones() -> None:
    from pibench.hosts.hosts import HostsUp
    from pibench.links.link import _MAKERS, PROFILES
    from pibench.records.measures import MEASURES as REAL_MEASURES

    assert set(MEASURES) == set(REAL_MEASURES)
    assert set(LINKS) == set(PROFILES)
    makers = {how: maker for how, maker in _MAKERS.items() if how != "network"} | {"network": HostsUp}
    assert {how for how, maker in makers.items() if not maker.any_socket} == set(OWN_SOCKETS_ONLY)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["*", "cpu", "3%"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(Suite.model_fields)), junk=JUNK, second=st.sampled_from(sorted(GOOD)), more=JUNK)
def test_broken_suites_only_ever_give_usage_errors(
    tmp_path_factory: pytest.TempPathFactory, key: str, junk: Any, second: str, more: Any
) -> None:
    data = copy.deepcopy(GOOD)
    data[key] = junk
    if isinstance(data[second], list):
        data[second].append(more)
    path = write(tmp_path_factory.getbasetemp(), yaml.dump(data, allow_unicode=True))
    try:
        load_suite(path).cases()
    except UsageError as error:
        assert str(path) in str(error)
