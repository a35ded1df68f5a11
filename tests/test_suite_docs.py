"""The examples in the documentation are valid."""

from __future__ import annotations

import re
from pathlib import Path

from pibench.documents import read_yaml
from pibench.networks.card import Card
from pibench.networks.spec import AnyNetwork
from pibench.suite import Suite

PAGE = Path(__file__).resolve().parent.parent / "docs" / "suites-and-cards.md"


def examples() -> list[dict[str, object]]:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    complete = "classes: 100, input: [3, 32, 32], width_scale: 0.5"
    return [read_yaml(PAGE, block.replace("...", complete).encode())[0] for block in blocks]


def test_the_examples_are_a_suite_and_a_card() -> None:
    suite, card = examples()
    assert len(Suite.model_validate(suite).networks) == 4
    assert Card.model_validate(card).network.family == "resnet"


def test_every_key_is_described() -> None:
    text = PAGE.read_text("utf-8")
    suite, _ = examples()
    assert set(suite) == set(Suite.model_fields)
    fields = {name for family in AnyNetwork.__args__ for name in family.model_fields}
    assert {name for name in fields if f"`{name}`" not in text} <= {"family"}
