"""Prices of a ReLU and of a multiplication, and accuracies: what a view derives, and when it is worth quoting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import fake_record
from rich.console import Console

from pibench.records.prices import Joint
from pibench.records.record import Accuracy, Record
from pibench.records.stats import student
from pibench.reporting.answer import answer
from pibench.reporting.cells import Cell, Ladder
from pibench.reporting.page.prices import which_table
from pibench.reporting.screen.details import answer as on_screen
from pibench.reporting.view import View, ladder_of, plane_of, view_of


def ladder(record: Record, batch: int = 1) -> tuple[View, Ladder]:
    """Return the view of a record of one protocol, all of it with such batches, and its ladder."""
    view = view_of([record.model_copy(update={"cases": tuple(
        case.model_copy(update={"batch": batch}) for case in record.cases
    )})])  # fmt: skip
    (found,) = view.ladders()
    return view, found


def screen(record: Record) -> str:
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(on_screen(record))
    return capture.get()


def test_a_price_is_that_of_one_relu_whatever_the_batch() -> None:
    record = fake_record(protocols=("crypten",), sessions=2)
    (_, one), (_, eight) = ladder(record), ladder(record, 8)  # the same seconds, for eight times the ReLUs
    assert eight.fit.slope_s == pytest.approx(one.fit.slope_s / 8)
    assert eight.fit.intercept_s == pytest.approx(one.fit.intercept_s)
    assert eight.line_s(4_000) == pytest.approx(one.line_s(4_000))  # where the drawn line goes
    assert one.joint is not None
    assert eight.joint is not None
    assert eight.joint.relu_s == pytest.approx(one.joint.relu_s / 8)
    assert eight.joint.mmac_s == pytest.approx(one.joint.mmac_s / 8)


def test_two_networks_of_a_batch_are_priced_by_all_of_its_relus() -> None:
    view, two = ladder(fake_record(("full", "tiny"), ("crypten",), sessions=2), 10)
    (full, tiny) = two.cells
    price_ms = 1e3 * (full.online_s - tiny.online_s) * 1e3 / (10 * (full.relu_count - tiny.relu_count))
    assert f"{price_ms:.2f} ms for 1,000" in answer(view, two).sentences[0]
    assert "batch 10" in answer(view, two).sentences[0]


def test_intervals_of_the_plane_are_students() -> None:
    """By Frisch, Waugh and Lovell: the slope of what the other columns leave over, with the plane's residuals."""
    _, found = ladder(fake_record(protocols=("masked",), sessions=2))
    y = np.array([cell.online_s for cell in found.cells])
    relus, macs = (np.array(v) for v in zip(*((c.relu_count / 1e3, c.macs / 1e6) for c in found.cells), strict=True))
    joint = found.joint
    assert joint is not None
    for own, other, point, interval in (
        (relus, macs, joint.relu_s, joint.relu_interval), (macs, relus, joint.mmac_s, joint.mmac_interval),
    ):  # fmt: skip
        rest = np.stack([np.ones_like(other), other], axis=1)
        own_left, y_left = (v - rest @ np.linalg.lstsq(rest, v, rcond=None)[0] for v in (own, y))
        slope = float(own_left @ y_left / (own_left @ own_left))
        residual = float(((y_left - slope * own_left) ** 2).sum())
        reach = student(0.95, len(y) - 3) * np.sqrt(residual / (len(y) - 3) / (own_left @ own_left))
        assert point == pytest.approx(slope)
        assert interval == pytest.approx((slope - reach, slope + reach))


def test_a_plane_whose_interval_includes_nothing_is_not_a_price() -> None:
    record = fake_record(protocols=("crypten",), sessions=2, slowdown={"culled/crypten": 1.5})
    _, found = ladder(record)
    joint = found.joint
    assert joint is not None
    assert joint.relu_s > 0
    assert joint.mmac_s > 0
    assert joint.r2 > 0.9  # and yet nothing is known of either
    assert not joint.firm
    plane = screen(record).split("a plane through the medians")[1].splitlines()
    row = next(line for line in plane if "crypten" in line)
    assert row.split()[1] == "-"
    assert row.count("[") == 2
    assert "an interval includes 0" in "".join(plane)
    assert "an interval includes 0" not in screen(fake_record(protocols=("crypten",), sessions=2))


def test_the_plane_makes_the_headline_only_with_firm_prices() -> None:
    view, found = ladder(fake_record(protocols=("masked",), sessions=2))
    flat = replace(found, fit=replace(found.fit, r2=0.3))
    firm = Joint(1e-3, 1e-4, 0.95, (5e-4, 2e-3), (5e-5, 2e-4))
    said = answer(view, replace(flat, joint=firm))
    assert said.headline == "1,000 ReLUs cost 1.00 ms, and are not what decides here"
    assert "1.00 ms (95 % interval 500 µs to 2.00 ms)" in said.sentences[0]
    unsure = answer(view, replace(flat, joint=replace(firm, mmac_interval=(-1e-5, 2e-4))))
    assert unsure.headline == "No firm price of a ReLU here", "five networks show no more than that"
    assert "may be chance" in unsure.sentences[0]
    many = replace(unsure.ladder, fit=replace(flat.fit, r2=0.01, n=14))
    assert answer(view, many).headline == "The ReLU count does not decide latency here"
    assert "multiply-accumulates" not in " ".join(unsure.sentences)


def test_the_plane_fits_the_screen() -> None:
    text = screen(fake_record(sessions=2))
    plane = text.split("a plane through the medians")[1].split("Medians;")[0]
    assert max(len(line.rstrip()) for line in plane.splitlines()) <= 100


def scored(private: tuple[int, int], plain: Accuracy | None, trained: dict[str, float] | None) -> Cell:
    """Return a cell with so many right of so many private answers, and such other scores."""
    record = fake_record(("full",), ("masked",), sessions=1)
    case = record.cases[0]
    session = case.sessions[0].model_copy(update={"accuracy": Accuracy(correct=private[0], n=private[1])})
    network = case.network.model_copy(update={"plain_accuracy": plain, "checkpoint_accuracy": trained})
    return view_of([record.with_case(case.model_copy(update={"network": network, "sessions": (session,)}))]).cells[0]


def test_answers_to_the_same_images_again_do_not_outrank_the_test_set() -> None:
    plain = Accuracy(correct=356, n=360)
    cell = scored((2_107, 2_232), plain, {"accuracy": 99.0, "n": 360})
    assert cell.score is not None
    assert (cell.score.origin, cell.score.n) == ("plaintext", 360)
    assert "of 360 images (in plaintext)" in screen(fake_record(("full",), ("masked",), sessions=100))
    assert cell.score.margin > 1.0  # points; 2,232 answers would make it 0.4


@pytest.mark.parametrize(
    ("private", "plain", "trained", "origin"),
    [
        ((90, 100), Accuracy(correct=45, n=50), None, "plaintext"),
        ((90, 100), Accuracy(correct=45, n=50), {"accuracy": 90.0, "n": 10_000}, "training"),
        ((360, 360), Accuracy(correct=356, n=360), None, "private"),
        ((90, 100), None, None, "private"),
    ],
)
def test_the_accuracy_over_most_images_is_shown(
    private: tuple[int, int], plain: Accuracy | None, trained: dict[str, float] | None, origin: str
) -> None:
    score = scored(private, plain, trained).score
    assert score is not None
    assert score.origin == origin


def test_four_networks_make_no_plane() -> None:
    _, found = ladder(fake_record(protocols=("crypten",), sessions=2))
    assert ladder_of(found.setting, found.cells[:4]).joint is None


def test_a_network_at_chance_is_not_shown_as_perfect() -> None:
    score = scored((0, 1), None, {"accuracy": 1.0, "n": 10_000}).score
    assert score is not None
    assert score.percent == 1.0


def test_which_protocol_which_answer_prices_both_phases() -> None:
    record = fake_record(protocols=("masked", "crypten"), sessions=2)
    view = view_of([record])
    table = which_table(view)
    assert len(table.rows) == 2
    for row, found in zip(table.rows, view.ladders(), strict=True):
        assert found.joint is not None
        before = plane_of(found.cells, lambda cell: cell.offline.seconds if cell.offline else 0.0)
        assert before is not None
        assert row[0].text == found.setting.protocol
        assert [entry.value for entry in row[3:]] == [
            found.joint.relu_s, found.joint.mmac_s, found.joint.r2, before.relu_s, before.mmac_s, before.r2,
        ]  # fmt: skip
    assert not which_table(view_of([fake_record(("full", "tiny"), ("masked",), sessions=1)])).rows
