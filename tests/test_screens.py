"""Every verb's screen in 80 columns: nothing is wider, the answer stands first, long lists say what they leave out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes import fake_record
from suite_records import record_of_suite

from pibench.cli import main
from pibench.library import summary
from pibench.links.link import link_from
from pibench.networks.card import load_card
from pibench.records.files import save_record
from pibench.registry import nearest
from pibench.reporting.answer import answer, main_ladder
from pibench.reporting.page.figures import figures_of
from pibench.reporting.page.tables import budget_table
from pibench.reporting.screen.frontier import terminal
from pibench.reporting.view import view_of
from pibench.reporting.whatif import wire_named
from pibench.suite import load_suite

RECORDS = ("20260101T000000Z-base", "20260101T000001Z-head")


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Return a function from a command to its lines, with two records in the folder that it runs in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    (tmp_path / ".pibench/runs").mkdir(parents=True)
    for seed, name in enumerate(RECORDS):
        slower = {"full/masked": 1.0 + seed}
        save_record(fake_record(seed=seed, sessions=2, slowdown=slower), tmp_path / f".pibench/runs/{name}.json")

    def shown(*command: str) -> list[str]:
        main(list(command))
        return capsys.readouterr().out.splitlines()

    return shown


@pytest.mark.parametrize(
    "command",
    [
        "ls", "ls networks", "show last", "report last --terminal", "compare last~1 last", "compare last~1 last --all",
        "choose --deadline 300ms --link wan", "choose --deadline 2s --link wan", "data", "zoo", "history",
        "history full/masked", "run quick --dry-run", "run protocols --dry-run", "validate quick",
        "show drd-c100-12k --protocol masked --link wan", f"gate last --baseline .pibench/runs/{RECORDS[0]}.json",
    ],
)  # fmt: skip
def test_nothing_is_wider_than_the_screen(lines, command: str) -> None:  # type: ignore[no-untyped-def]
    found = lines(*command.split())
    assert found
    wide = [line for line in found if len(line) > 80 and " " in line.strip()]  # a path or an address stays whole
    assert not wide


def test_the_answer_stands_first(lines) -> None:  # type: ignore[no-untyped-def]
    assert lines("compare", "last~1", "last")[0].startswith(("REGRESSION", "OK", "INCOMPLETE"))
    assert lines("show", "drd-c100-12k", "--protocol", "masked", "--link", "wan")[1].startswith("predicted online")
    assert "24 cases" in lines("run", "protocols", "--dry-run")[0]
    assert len(lines("show", "last")) <= 22


def test_a_comparison_of_many_cases_is_short_and_says_what_it_leaves_out(lines) -> None:  # type: ignore[no-untyped-def]
    short, whole = lines("compare", "last~1", "last"), lines("compare", "last~1", "last", "--all")
    assert len(short) < 45 < len(whole)
    assert any(line.startswith("not shown: ") and "(--all)" in line for line in short)


def test_a_list_of_everything_shows_what_is_trained_and_counts_the_rest(lines) -> None:  # type: ignore[no-untyped-def]
    found = lines("ls")
    assert any(line.startswith("  and ") and line.endswith("more: pibench ls networks") for line in found)
    assert len([line for line in found if " cifar100 " in line]) == 15
    assert sum(" cifar100 " in line for line in lines("ls", "networks")) > 50


@pytest.mark.parametrize("height", [24, 30, 50])
def test_the_plot_of_a_report_fits_the_terminal(height: int) -> None:
    view = view_of([record_of_suite("quick")])
    ladder = main_ladder(view.ladders())
    assert ladder
    found = answer(view, ladder)
    text = terminal(found, 80, height).splitlines()
    assert len(text) + 1 <= height
    assert text[0] == found.headline
    assert "accuracy, %" in "\n".join(text)


def test_a_link_without_a_protocol_is_refused_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "drd-c100-12k", "--link", "wan"]) == 4
    assert "--protocol masked" in capsys.readouterr().err


def test_a_link_is_written_in_one_way_everywhere(lines, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    written = "80ms,50mbit"
    link = link_from(written)
    assert (link.name, link.rtt_ms, link.mbit_s) == ("80ms-50mbit", 80.0, 50.0)
    assert (wire_named(written).rtt_ms, wire_named(written).up_mbit_s) == (80.0, 50.0)
    suite = tmp_path / "mine.yaml"
    suite.write_text(f"name: mine\nnetworks: [digits-tiny]\nprotocols: [masked]\nlinks: ['{written}']\n")
    (case,) = load_suite(str(suite)).cases()
    assert (case.link.name, case.link.rtt_ms, case.link.mbit_s) == ("80ms-50mbit", 80.0, 50.0)
    assert "80ms,50mbit" in lines("show", "drd-c100-12k", "--protocol", "masked", "--link", written)[1]
    assert "80ms,50mbit" in " ".join(lines("choose", "--deadline", "5s", "--link", written))


def test_a_system_on_paper_never_makes_a_deadline(lines) -> None:  # type: ignore[no-untyped-def]
    found = lines("report", "last", "--terminal", "--deadline", "100s")
    paper = [line for line in found if line.endswith(", on paper")]
    assert paper
    assert all(line.strip().startswith("on paper") for line in paper)
    assert any(line.strip().startswith("makes it") for line in found)


def test_validate_counts_a_cards_file_and_reads_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = load_card("digits-tiny").path.read_text("utf-8")
    (tmp_path / "digits-tiny.yaml").write_text(card.replace("relu_count: 96", "relu_count: 97"))
    (tmp_path / "mine.yaml").write_text("name: other\nnetworks: [digits-tiny]\nprotocols: [masked]\n")
    assert main(["validate", str(tmp_path / "digits-tiny.yaml"), str(tmp_path / "mine.yaml")]) == 4
    said = capsys.readouterr().err
    assert "the card says 97 ReLUs, its network has 96" in said
    assert "it is named 'other', its file mine.yaml" in said
    (tmp_path / "digits-tiny.yaml").write_text(card)
    assert main(["validate", str(tmp_path / "digits-tiny.yaml")]) == 0


@pytest.mark.parametrize("verb", ["show", "reduce"])
def test_help_writes_relus_as_everybody_does(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "ReLUs" in (said := capsys.readouterr().out)
    assert " relus" not in said


def test_factors_have_no_exponent_and_accuracies_say_what_of() -> None:
    view = view_of([fake_record(protocols=("masked", "crypten"), slowdown={"full/crypten": 9.0})])
    ladder = main_ladder(view.ladders())
    assert ladder
    said = " ".join(f.takeaway for f in figures_of(view, answer(view, ladder)))
    assert re.search(r"\d{2,} times as long under crypten", said)
    assert "e+" not in said
    table = budget_table(ladder, None)
    assert any("of 360 images, " in entry.note for row in table.rows for entry in row)


def test_a_title_in_a_list_is_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("name: a\ntitle: 'on scikit-learn''s digits: SNL'\nmethod: \"snl\"\n")
    assert summary(path) == {"name": "a", "title": "on scikit-learn's digits: SNL", "method": "snl"}


def test_a_name_with_a_part_left_out_is_understood() -> None:
    cards = ["drd-c100-12k", "drd-c100-29k", "drd-tiny-115k"]
    assert nearest("drd-12k", cards) == "; did you mean 'drd-c100-12k'?"
    assert nearest("drd-c100-12", cards) == "; did you mean 'drd-c100-12k'?"
    assert nearest("nothing-of-the-kind", cards) == ""
