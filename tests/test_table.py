"""The screen's last words: the answer, honest about what is invalid, missing or doubtful."""

from __future__ import annotations

import math

import pytest
from fakes import fake_record
from rich.console import Console

from pibench.numbers import digits, duration, interval, seconds, size
from pibench.records.record import Record
from pibench.records.stats import Estimate
from pibench.reporting.screen.details import answer


def shown(record: Record, width: int = 120) -> str:
    console = Console(width=width, record=True, file=None, highlight=False, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(answer(record))
    return capture.get()


def test_every_network_and_protocol_is_there_with_its_numbers() -> None:
    text = shown(fake_record(sessions=4))
    for word in (
        "full  18,432 ReLUs",
        "98.9 % of 360 images",
        "crypten-cached",
        "3.39 MB",
        "164",
        "What a ReLU budget",
    ):
        assert word in text, word
    assert "INVALID" not in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_an_invalid_speed_is_called_so_and_compared_with_nothing() -> None:
    record = fake_record(networks=("full", "tiny"), protocols=("masked", "crypten"), sessions=3)
    case = record.cases[0]
    wrong = {"status": "invalid", "error": "session 0: a logit is off by 0.7 (tolerance 0.05)"}
    text = shown(record.with_case(case.model_copy(update=wrong)))
    ladder = text[text.index("What a ReLU budget") :]
    (row,) = [line for line in ladder.splitlines() if line.split()[1:2] == ["full"]]
    assert "INVALID" in row
    assert "x)" not in row
    assert "a logit is off by 0.7" in text
    (price,) = [line for line in ladder.splitlines() if line.split()[:1] == ["masked"] and "ms" in line] or [""]
    assert price == "", "one valid network is no line"


def test_a_failed_case_without_sessions_has_a_row_and_a_reason() -> None:
    record = fake_record(networks=("full", "tiny"), protocols=("masked",), sessions=2)
    failed = record.cases[1].model_copy(
        update={"status": "failed", "error": "server: killed by SIGKILL in online 3\n  more", "sessions": ()}
    )
    text = shown(record.with_case(failed))
    assert "tiny/masked/loopback/cpu/b1: FAILED  server: killed by SIGKILL in online 3" in text
    assert "more" not in text.replace("or more", "")


def test_unknown_accuracy_is_said_and_not_made_up() -> None:
    record = fake_record(networks=("full",), protocols=("masked",), sessions=2)
    case = record.cases[0]
    blank = {"plain_accuracy": None, "checkpoint_accuracy": None, "note": "random weights: no accuracy"}
    sessions = tuple(session.model_copy(update={"accuracy": None}) for session in case.sessions)
    network = case.network.model_copy(update=blank)
    text = shown(record.with_case(case.model_copy(update={"network": network, "sessions": sessions})))
    assert "accuracy not known" in text
    assert "random weights: no accuracy" in text
    assert "% of" not in text


def test_a_price_that_should_not_be_quoted_says_why() -> None:
    two = shown(fake_record(networks=("full", "tiny"), protocols=("crypten",), sessions=2))
    assert "two networks always lie on a line" in two
    flat = shown(fake_record(protocols=("plaintext",), sessions=2))
    assert "ReLUs alone do not explain the latency" in flat
    good = shown(fake_record(protocols=("crypten",), sessions=2))
    assert "explain the latency" not in good


def test_multiplications_are_priced_apart_where_networks_allow_it() -> None:
    text = shown(fake_record(protocols=("crypten",), sessions=2))
    row = next(line for line in text.split("a plane through the medians")[1].splitlines() if "crypten" in line)
    assert float(row.split()[-1]) > 0.9
    two = shown(fake_record(networks=("full", "tiny"), protocols=("crypten",), sessions=2))
    assert "a plane through" not in two


def test_an_unfinished_run_says_so() -> None:
    assert "NOT FINISHED" in shown(fake_record(sessions=2).model_copy(update={"finished": False}))
    assert "one session" in shown(fake_record(sessions=1))


def test_a_record_without_cases_can_be_shown() -> None:
    shown(fake_record(sessions=1).model_copy(update={"cases": ()}))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 s"), (12.3456, "12.3 s"), (0.0098765, "9.88 ms"), (4.2e-5, "42.0 µs"), (1234.0, "20.6 min")],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


def test_numbers() -> None:
    assert size(999) == "999 B"
    assert size(3_390_000) == "3.39 MB"
    assert digits(math.nan) == "?"
    assert digits(0.00012345) == "0.000123"
    assert duration(3725) == "1 h 02 min"
    assert interval(Estimate(0.0123, 0.0119, 0.0131, 5, 25, 0.95)) == "[11.9, 13.1]"
