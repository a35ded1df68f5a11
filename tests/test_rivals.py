"""Methods at equal budgets: each one's best within a budget, ranked by accuracy."""

from __future__ import annotations

from dataclasses import replace

from fakes import fake_record
from rich.console import Console

from pibench.records.record import Accuracy, Record
from pibench.reporting.page.draw_frontier import short_names
from pibench.reporting.page.tables import rival_table
from pibench.reporting.rivals import ranking_blocks, rankings
from pibench.reporting.screen.details import answer
from pibench.reporting.view import view_of

# 9,216 ReLUs (culled, 98.3 %) and 4,608 (thinned, 97.5) are within a factor of two; 2,048 (reshaped) and 512 (tiny) not
METHODS = {"full": "full", "culled": "snl", "thinned": "deepreduce", "reshaped": "deepreduce", "tiny": "pruning"}


def record_of(
    methods: dict[str, str], correct: dict[str, int] | None = None, relus: dict[str, int] | None = None, n: int = 360
) -> Record:
    """Return a record whose networks are of these methods, with so many images of `n` right and so many ReLUs."""
    record = fake_record(protocols=("masked", "crypten"), sessions=2)
    for case in record.cases:
        card = case.network.card
        network = case.network.model_copy(update={"method": methods[card]})
        if card in (correct or {}):
            network = network.model_copy(update={"plain_accuracy": Accuracy(correct=(correct or {})[card], n=n)})
        if card in (relus or {}):
            network = network.model_copy(update={"relu_count": (relus or {})[card]})
        record = record.with_case(case.model_copy(update={"network": network}))
    return record


def test_only_networks_within_a_factor_of_two_are_compared() -> None:
    (ladder, *_) = view_of([record_of(METHODS)]).ladders()
    (band,) = rankings(ladder)
    assert {cell.network for cell in band.cells} == {"culled", "thinned"}
    assert band.budget == 9216
    apart = record_of({**METHODS, "thinned": "senet"}, relus={"culled": 278_528, "thinned": 57_344, "full": 557_056})
    for ladder in view_of([apart]).ladders():
        assert not [r for r in rankings(ladder) if {"culled", "thinned"} <= {cell.network for cell in r.cells}]


def test_a_method_enters_a_band_once_with_its_most_accurate_network() -> None:
    relus = {"culled": 9_000, "thinned": 8_000, "reshaped": 7_000, "tiny": 4_500}
    (ladder, *_) = view_of([record_of(METHODS, relus=relus)]).ladders()
    (band,) = rankings(ladder)
    assert [cell.network for cell in band.cells] == ["culled", "thinned", "tiny"]  # reshaped is its method's second


def test_overlapping_intervals_share_a_place() -> None:
    same_band = {"culled": 9_000, "thinned": 8_000, "reshaped": 7_000, "tiny": 4_500}
    methods = {**METHODS, "reshaped": "senet"}
    # of 10,000 images: 90.0 ± 0.6, 89.5 ± 0.6, 88.5 ± 0.6 and 80.0 ± 0.8 %
    correct = {"culled": 9000, "thinned": 8950, "reshaped": 8850, "tiny": 8000}
    (ladder, *_) = view_of([record_of(methods, correct, same_band, 10_000)]).ladders()
    (band,) = rankings(ladder)
    # reshaped's interval meets thinned's, and lies below culled's alone
    assert [(band.place(cell), cell.network) for cell in band.cells] == [
        (1, "culled"), (1, "thinned"), (2, "reshaped"), (4, "tiny"),
    ]  # fmt: skip
    few = {card: right // 25 for card, right in correct.items()}  # the same shares of 400 images tell less
    (ladder, *_) = view_of([record_of(methods, few, same_band, 400)]).ladders()
    (band,) = rankings(ladder)
    assert [band.place(cell) for cell in band.cells] == [1, 1, 1, 4]


def test_one_method_alone_is_not_ranked() -> None:
    for methods in (dict.fromkeys(METHODS, "deepreduce") | {"full": "full"}, {**METHODS, "culled": "full"}):
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
    assert "within a factor of 2 in ReLUs" in " ".join(ranking[1:4])
    rows = [line.split() for line in ranking if line.split()[:1] == ["1"]]
    assert [row[1:3] for row in rows[:2]] == [["SNL", "culled"], ["DeepReDuce", "thinned"]]
    assert all(" ".join(row).count(" ms") == 2 for row in rows)


def test_labels_leave_out_the_name_of_the_network_that_most_were_made_from() -> None:
    (ladder, *_) = view_of([record_of(METHODS)]).ladders()
    names = ["full", "full-a", "full-a-b", "full-c", "other-d"]
    cells = [replace(cell, network=name) for cell, name in zip(ladder.cells, names, strict=True)]
    assert list(short_names(cells).values()) == ["full", "a", "a-b", "c", "other-d"]
    assert list(short_names(cells[:3]).values()) == names[:3]  # two are no crowd
    assert short_names([]) == {}
