"""Figures of every shipped suite by geometry: no label on another or on a mark, every point named, captions that count.

Nothing is run: records have the suites' networks, names and accuracies, and a model's latencies.
"""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from suite_records import SHIPPED, record_of_suite

from pibench.reporting.answer import answer, main_ladder
from pibench.reporting.page.canvas import Canvas, Shape, Words
from pibench.reporting.page.draw_frontier import short_names
from pibench.reporting.page.figures import COLUMNS, NARROW, WIDE, Figure, figures_of
from pibench.reporting.page.labels import Label, mark_box, overlap, place, words_box
from pibench.reporting.view import view_of

WIDTHS = (WIDE, NARROW, *COLUMNS.values())
POINTS = ("budget", "frontier-latency", "frontier-relus", "price")  # figures whose labels stand in the plot
TOUCH = 4.0  # square pixels: less than a hair's breadth along a letter


@pytest.fixture(scope="module", params=SHIPPED)
def figures(request: pytest.FixtureRequest) -> list[Figure]:
    view = view_of([record_of_suite(request.param)])
    ladder = main_ladder(view.ladders())
    assert ladder
    return figures_of(view, answer(view, ladder))


def marks(canvas: Canvas) -> list[Shape]:
    return [item for item in canvas.items if isinstance(item, Shape) and item.tip and item.closed]


@pytest.mark.parametrize("width", dict.fromkeys(WIDTHS))
def test_no_words_cover_others_or_a_mark(figures: list[Figure], width: float) -> None:
    for figure in figures:
        canvas = figure.draw(width)
        lines = [item for item in canvas.items if isinstance(item, Words)]
        hits = [(a.text, b.text) for a, b in combinations(lines, 2) if overlap(words_box(a), words_box(b)) > TOUCH]
        assert not hits, figure.key
        if figure.key in POINTS:
            on = [(w.text, m.tip) for w in lines for m in marks(canvas) if overlap(words_box(w), mark_box(m)) > TOUCH]
            assert not on, figure.key


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_point_is_named_or_in_a_legend(figures: list[Figure], width: float) -> None:
    for figure in (f for f in figures if f.key in POINTS):
        canvas = figure.draw(width)
        words = [item.text for item in canvas.items if isinstance(item, Words)]
        measured = [mark.tip for mark in marks(canvas) if not mark.tip.startswith("published: ")]
        assert len(measured) == len(marks(canvas)) or "published" in words
        for tip in measured:
            parts = tip[: tip.rindex(":", 0, tip.index(" ReLUs"))].split("-")
            assert any(set(word.split(" ")[0].split("-")) <= set(parts) for word in words), tip


def test_captions_count_the_networks_that_are_drawn(figures: list[Figure]) -> None:
    for figure in (f for f in figures if f.key in POINTS):
        measured = [m.tip for m in marks(figure.draw(WIDE)) if not m.tip.startswith("published: ")]
        drawn = {tip[: re.search(r": [\d,]+ ReLUs", tip).start()] for tip in measured}  # type: ignore[union-attr]
        if counted := re.search(r"(\d+) networks \(", figure.caption):
            assert int(counted[1]) == len(drawn), figure.key
        else:
            assert all(name in figure.caption for name in drawn), figure.key


def test_a_crowd_is_labelled_with_lines_to_its_points() -> None:
    crowd = [Label(150 + k, 120 + k, f"network-number-{k}") for k in range(12)]
    canvas = Canvas(400, 300)
    place(canvas, crowd, (0, 0, 400, 300))
    words = [item for item in canvas.items if isinstance(item, Words)]
    assert {w.text for w in words} == {label.text for label in crowd}
    assert not [1 for a, b in combinations(words, 2) if overlap(words_box(a), words_box(b))]
    lines = [item for item in canvas.items if isinstance(item, Shape)]
    assert 0 < len(lines) < len(crowd)


def test_short_names_are_told_apart() -> None:
    view = view_of([record_of_suite("c100")])
    names = short_names(view.cells)
    assert len(set(names.values())) == len(names)
