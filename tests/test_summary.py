"""What a run ends with: the answer first, in 80 columns and 24 lines, with `valid` and trust, and nothing cut."""

from __future__ import annotations

import re

import pytest
from fakes import FakeNetwork, fake_record

from pibench.cli import main
from pibench.records.files import save_record
from pibench.records.record import Record, Trust
from pibench.reporting.answer import answer, main_ladder
from pibench.reporting.screen.fitting import MOST_ROWS, fitted, wrapped
from pibench.reporting.screen.summary import summary
from pibench.reporting.view import view_of

PROTOCOLS = ("plaintext", "masked", "crypten-cached", "crypten")


def trusted(record: Record) -> Record:
    trust = Trust(short="first party", line="the server deals")
    return record.model_copy(update={"cases": tuple(c.model_copy(update={"trust": trust}) for c in record.cases)})


@pytest.mark.parametrize("width", [60, 80, 100, 132, 200])
def test_the_answer_fits_the_screen_whatever_its_width(width: int) -> None:
    lines = summary(trusted(fake_record(protocols=PROTOCOLS, sessions=2)), width)
    assert max(map(len, lines)) <= width
    assert width < 80 or len(lines) <= 20, "with the three lines after it, below 24"
    text = "\n".join(lines)
    assert all(word in text for word in ("valid", "masked", "first party", "full", "tiny", "98.9 %"))
    assert lines[2].endswith("."), "the answer comes before any table"


def test_a_wider_screen_has_more_columns_and_a_narrower_one_says_what_it_leaves_out() -> None:
    record = trusted(fake_record(protocols=PROTOCOLS, sessions=2))
    narrow, wide = summary(record, 60), summary(record, 160)
    assert "rounds" in "".join(wide)
    assert "rounds" not in "".join(narrow)
    assert any(line.startswith("not shown in 60 columns: ") for line in narrow)


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_a_long_table_leaves_out_more_than_the_line_that_says_so(left_out: int) -> None:
    many = [FakeNetwork(f"n{k}", 5000 - 100 * k, 20_000_000, 9, 350) for k in range(MOST_ROWS + left_out)]
    lines = summary(fake_record(networks=many, protocols=("masked",), sessions=2), 80)
    rows = [line for line in lines if re.match(r"n\d+ ", line)]
    assert len(rows) == len(many) - (left_out if left_out > 1 else 0)
    assert (f"and {left_out} more networks" in lines) == (left_out > 1)


def test_wrong_answers_are_no_latency_and_are_said() -> None:
    record = fake_record(networks=("full", "tiny"), protocols=("masked", "crypten"), sessions=2)
    wrong = record.cases[0].model_copy(update={"status": "invalid", "error": "a logit is off by 0.7"})
    lines = summary(record.with_case(wrong), 80)
    row = next(line for line in lines if line.startswith("full "))
    assert "INVALID" in row
    assert "1 of 2" in row
    assert any("a logit is off by 0.7" in line for line in lines)


def test_show_last_prints_a_record_and_its_summary_on_a_narrow_screen(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    save_record(fake_record(sessions=2), tmp_path / ".pibench/runs/20260101T000000Z-quick.json")
    assert main(["show", "last"]) == 0
    assert "The price of a ReLU" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["show", "20260101T000000Z-quick"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert "120 columns show every figure" in out


def test_columns_go_by_importance_and_none_is_cut() -> None:
    columns = [(0, ["name", "a"]), (1, ["one", "1"]), (2, ["two", "2"])]
    assert fitted(columns, 80) == (["name  one  two", "a       1    2"], [])
    assert fitted(columns, 10) == (["name  one", "a       1"], ["two"])
    assert wrapped("x" * 50, 20) == ["x" * 50]


@pytest.mark.parametrize(("sessions", "noise"), [(5, 0.05), (9, 0.3), (2, 0.3), (1, 0.3)])
def test_headlines_of_noisy_runs_do_not_contradict_one_another(sessions: int, noise: float) -> None:
    """Twelve runs of the same networks: two firm prices never exclude each other, and nobody slower is named faster."""
    prices, truth = [], ["culled", "thinned", "reshaped", "tiny"]  # all are faster than the full one
    for seed in range(12):
        record = fake_record(
            protocols=("masked", "crypten-cached"), sessions=sessions, inferences=8, seed=seed, session_noise=noise,
            noise=noise,
        )  # fmt: skip
        ladder = main_ladder(view_of([record]).ladders())
        assert ladder
        found = answer(view_of([record]), ladder)
        assert "does not decide" not in found.headline
        if found.headline.startswith("1,000 ReLUs cost"):
            prices.append(ladder.fit.slope_interval)
        named = found.sentences[1].partition("the fastest is ")[2].partition(":")[0]
        assert not named or named in truth
        assert sessions > 1 or not named, "one session says nothing about another run"
    assert max((low for low, _ in prices), default=0.0) <= min((high for _, high in prices), default=1.0)


def test_networks_of_other_data_have_a_table_of_their_own_while_there_is_room() -> None:
    record = trusted(fake_record(networks=("full", "tiny"), protocols=("masked",), sessions=2))
    cases = [c.model_copy(update={"network": c.network.model_copy(update={"dataset": "other"})})
             if c.network.card == "tiny" else c for c in record.cases]  # fmt: skip
    lines = summary(record.model_copy(update={"cases": tuple(cases)}), 80)
    assert sum(line.startswith("Online latency: ") for line in lines) == 2
    assert not any(line.startswith("Measured too") for line in lines)
    assert any(line.startswith("tiny ") for line in lines)
    assert not any("none is firmly faster" in line for line in lines), "one network alone is compared with none"
