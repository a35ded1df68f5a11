"""What a latency's interval is called: 95 % from five sessions on, before that a range, and said everywhere alike."""

from __future__ import annotations

import pytest
from fakes import fake_record
from rich.console import Console

from pibench.pytest_plugin_support import table
from pibench.records.compare import Options, compare
from pibench.records.record import Record
from pibench.reporting.answer import answer, main_ladder
from pibench.reporting.captions import bars, interval_title, latency_interval
from pibench.reporting.page.figures import figures_of
from pibench.reporting.page.html import render
from pibench.reporting.paper.latex import to_latex
from pibench.reporting.screen.comparison import as_text
from pibench.reporting.screen.details import answer as on_screen
from pibench.reporting.view import view_of

FEW = "which may cover far less than 95 % below 5"
ALONE = "bootstrap over the inferences of one session, which says nothing about another run"


def record_of(sessions: int, networks: tuple[str, ...] = ("full", "tiny")) -> Record:
    return fake_record(networks, ("masked",), sessions=sessions, inferences=2)


@pytest.mark.parametrize(
    ("sessions", "words"),
    [
        ((1,), f"range: {ALONE}"),
        ((2,), f"range: bootstrap over 2 sessions, {FEW}"),
        ((4, 6), f"range: bootstrap over 4 to 6 sessions, {FEW}"),
        ((1, 6), f"range: bootstrap over 1 to 6 sessions, {FEW}; of one, it says nothing about another run"),
        ((5,), "95 % interval: bootstrap over 5 sessions"),
        ((), ""),
    ],
)
def test_an_interval_is_named_by_its_sessions(sessions: tuple[int, ...], words: str) -> None:
    cells = [view_of([record_of(n, ("full",))]).cells[0] for n in sessions]
    assert latency_interval(cells) == words
    assert (interval_title(cells) == "[95 % CI]") == words.startswith("95 %")


@pytest.mark.parametrize(("sessions", "title"), [(1, "[range]"), (4, "[range]"), (5, "[95 % CI]")])
def test_the_screen_calls_it_what_it_is(sessions: int, title: str) -> None:
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(on_screen(record_of(sessions)))
    head = next(line for line in capture.get().splitlines() if "sent by S" in line)
    assert head.split("online")[1].startswith(f" {title} ")
    assert head.index("sent by S") == 45  # the columns stay where they were
    said = " ".join(capture.get().split())
    assert f"Medians; {latency_interval(view_of([record_of(sessions)]).cells)}. S: server." in said


@pytest.mark.parametrize("sessions", [1, 3, 6])
def test_page_captions_and_latex_say_the_same(sessions: int) -> None:
    pytest.importorskip("jinja2", reason="needs the extra `report`")
    view = view_of([record_of(sessions)])
    words = latency_interval(view.cells)
    ladder = main_ladder(view.ladders())
    assert ladder is not None
    page = render(view)
    assert f"of a latency, {words}." in page
    assert f"Medians, {words}." in page
    assert bars(ladder.cells) in page
    assert ("95 % interval: bootstrap" in page) == (sessions >= 5)
    found = answer(view, ladder)
    assert all(words in f.caption for f in figures_of(view, found) if f.key in {"budget", "frontier-latency"})
    latex = to_latex(view, found)
    assert (r"(95 \% interval: bootstrap" in latex) == (sessions >= 5)
    assert ("(range: bootstrap" in latex) == (sessions < 5)


def test_a_page_warns_of_cases_with_few_sessions() -> None:
    pytest.importorskip("jinja2", reason="needs the extra `report`")
    assert "2 cases rest on fewer than 5 sessions" in render(view_of([record_of(4)]))
    assert "fewer than 5 sessions" not in render(view_of([record_of(5)]))


def test_a_comparison_names_the_interval_that_it_has() -> None:
    base, head = (fake_record(("full",), ("masked",), sessions=8, seed=seed) for seed in (1, 2))
    apart, paired = as_text(compare(base, head)), as_text(compare(base, head, Options.of(None, paired=True)))
    assert "ratio of medians with its 95% bootstrap interval over sessions" in apart
    assert "Mann-Whitney" in apart
    assert "Hodges and Lehmann's ratio over pairs with its 95% signed-rank interval" in paired
    assert "ratio of medians" not in paired


def test_the_plugins_table_says_what_its_range_is() -> None:
    assert (
        list(table(record_of(2).cases))[-1] == f"online: median over sessions; range: bootstrap over 2 sessions, {FEW}"
    )
    assert "95 % interval: bootstrap over 6 sessions" in list(table(record_of(6).cases))[-1]
