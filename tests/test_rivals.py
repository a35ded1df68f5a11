"""Methods at equal budgets: each one's best within a budget, ranked by accuracy."""

from __future__ import annotations

from dataclasses import replace

from fakes import fake_record
from rich.console import Console

from pibench.records.record import Accuracy, Record
from pibench.reporting.page.draw_frontier import short_names
from pibench.reporting.page.tables import rival_table
from pibench.reporting.rivals import ranking_blocks, rankings
from pibench.reporting.screen.table import answer
from pibench.reporting.view import view_of

# 18,432 ReLUs in full: 9,216 are half (culled 98.3 %, thinned 97.5, reshaped 96.9), 1,843 a tenth (tiny 93.9)
METHODS = {"full": "full", "culled": "snl", "thinned": "deepreduce", "reshaped": "deepreduce", "tiny": "pruning"}


def record_of(methods: dict[str, str], accuracy: dict[str, int] | None = None) -> Record:
    """Return a record whose networks are of these methods."""
    record = fake_record(protocols=("masked", "crypten"), sessions=2)
    for case in record.cases:
        network = case.network.model_copy(update={"method": methods[case.network.card]})
        if case.network.card in (accuracy or {}):
            plain = Accuracy(correct=(accuracy or {})[case.network.card], n=360)
            network = network.model_copy(update={"plain_accuracy": plain})
        record = record.with_case(case.model_copy(update={"network": network}))
    return record


def test_each_method_has_one_place_within_a_budget() -> None:
    (ladder, *_) = view_of([record_of(METHODS)]).ladders()
    half, *rest = rankings(ladder)
    assert half.budget == 9216
    assert [cell.network for cell in half.cells] == ["culled", "thinned", "tiny"]  # reshaped is its method's second
    assert [half.place(cell) for cell in half.cells] == [1, 2, 3]
    assert rest == []  # one method alone within a tenth is no competition


def test_equal_accuracies_share_a_place_and_fewer_relus_come_first() -> None:
    (ladder, *_) = view_of([record_of({**METHODS, "reshaped": "senet"}, {"thinned": 349, "reshaped": 349})]).ladders()
    (half,) = rankings(ladder)
    assert [(half.place(c), c.network) for c in half.cells] == [
        (1, "culled"), (2, "reshaped"), (2, "thinned"), (4, "tiny"),
    ]  # fmt: skip


def test_one_method_or_no_full_network_is_not_ranked() -> None:
    for methods in (dict.fromkeys(METHODS, "deepreduce") | {"full": "full"}, {**METHODS, "full": "snl"}):
        ladders = view_of([record_of(methods)]).ladders()
        assert all(not rankings(ladder) for ladder in ladders)
        assert not ranking_blocks(ladders)
        assert not rival_table(ladders[0]).rows


def test_the_screen_shows_the_ranking_with_every_protocol() -> None:
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(answer(record_of(METHODS)))
    text = capture.get()
    ranking = text[text.index("Methods at equal budgets") :].splitlines()
    assert "full: 18,432 ReLUs, 98.9 ±" in ranking[1]
    assert ranking[3].split()[:4] == ["9,216", "1", "SNL", "culled"]
    assert ranking[3].count(" ms") == 2
    assert ranking[4].split()[:2] == ["2", "DeepReDuce"]


def test_labels_leave_out_the_name_of_the_network_that_most_were_made_from() -> None:
    (ladder, *_) = view_of([record_of(METHODS)]).ladders()
    names = ["full", "full-a", "full-a-b", "full-c", "other-d"]
    cells = [replace(cell, network=name) for cell, name in zip(ladder.cells, names, strict=True)]
    assert list(short_names(cells).values()) == ["full", "a", "a-b", "c", "other-d"]
    assert list(short_names(cells[:3]).values()) == names[:3]  # two are no crowd
    assert short_names([]) == {}
