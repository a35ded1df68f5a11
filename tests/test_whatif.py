"""What if: a link's time is that of run/predict.py, and only one data set and batch are set side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import fake_record

from pibench.cli import main
from pibench.records.files import save_record
from pibench.records.record import Record
from pibench.reporting.cells import Cell
from pibench.reporting.page.html import render
from pibench.reporting.view import view_of
from pibench.reporting.whatif import of_setting, options, predicted_s, wire_named


def full(protocol: str, **changes: object) -> Cell:
    """Return the cell of the full network under a protocol, over loopback, with these changes to its case."""
    record = fake_record(("full",), (protocol,), sessions=2, inferences=2)
    return view_of([record.with_case(record.cases[0].model_copy(update=changes))]).cells[0]


def batched(record: Record, batch: int) -> Record:
    """Return the record as if all of its cases had run with such batches."""
    cases = [
        case.model_copy(update={"id": case.id.replace("/b1", f"/b{batch}"), "batch": batch}) for case in record.cases
    ]
    return record.model_copy(update={"cases": tuple(cases)})


@pytest.mark.parametrize(
    ("protocol", "wire", "hops"), [("masked", {}, 1), ("crypten-cached", {}, 4), ("crypten", {"wire": "channel"}, 1)]
)
def test_a_round_over_gloo_takes_four_one_ways(protocol: str, wire: dict[str, str], hops: int) -> None:
    cell = full(protocol, options=wire)
    seconds = predicted_s(cell, wire_named("40ms,1000000mbit"))
    assert seconds is not None
    assert seconds - cell.online_s == pytest.approx((cell.rounds or 0) * hops * 0.020, rel=1e-3)


@pytest.mark.parametrize(("protocol", "together"), [("masked", sum), ("crypten", max)])
def test_bytes_go_one_after_the_other_where_parties_take_turns(
    protocol: str, together: Callable[[list[int]], int]
) -> None:
    cell = full(protocol)
    n_bytes = together([cell.server_bytes or 0, cell.client_bytes or 0])
    seconds = predicted_s(cell, wire_named("0ms,100mbit"))
    assert seconds == pytest.approx(cell.online_s + n_bytes * 8 / 100e6)


def test_what_was_not_measured_over_a_link_is_called_predicted() -> None:
    view = view_of([fake_record(("full",), sessions=1)])
    assert {o.basis for o in options(view, wire_named("wan"))} == {"predicted"}


def test_each_direction_has_its_own_rate() -> None:
    cell = full("masked")
    seconds = predicted_s(cell, wire_named("asplos-slots"))  # 165 Mbit/s down, 835 up
    each = (cell.server_bytes or 0) * 8 / 165e6 + (cell.client_bytes or 0) * 8 / 835e6
    assert seconds == pytest.approx(cell.online_s + each)


def test_a_protocol_that_is_not_known_here_is_not_predicted() -> None:
    record = fake_record(("full", "tiny"), ("masked",), sessions=2, inferences=2)
    cases = [
        case.model_copy(update={"id": case.id.replace("masked", "elsewhere"), "protocol": "elsewhere"})
        for case in record.cases
    ]
    view = view_of([record.model_copy(update={"cases": tuple(cases)})])
    assert [predicted_s(cell, wire_named("wan")) for cell in view.cells] == [None, None]
    pytest.importorskip("jinja2", reason="needs the extra `report`")
    assert "elsewhere over loopback" in render(view)


def test_a_deadline_is_answered_for_one_data_set_and_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, four = (fake_record(("full", "tiny"), ("masked",), sessions=2, inferences=2, seed=seed) for seed in (1, 2))
    other = fake_record(("culled",), ("masked",), sessions=2, inferences=2)
    case = other.cases[0]
    other = other.with_case(
        case.model_copy(update={"network": case.network.model_copy(update={"dataset": "cifar10"})})
    )  # fmt: skip
    for name, record in (("one", one), ("four", batched(four, 4)), ("other", other)):
        save_record(record, tmp_path / f"{name}.json")
    paths = {name: str(tmp_path / f"{name}.json") for name in ("one", "four", "other")}

    assert main(["report", *paths.values(), "--terminal", "--deadline", "1"]) == 0
    out = capsys.readouterr().out
    found = out[out.index("Within 1.00 s over loopback (digits, batch 1)") :]
    assert len(re.findall("under masked, measured", found)) == 2
    assert found.count(", on paper") == 2
    assert "culled" not in found

    assert main(["report", paths["four"], "--terminal", "--deadline", "1"]) == 0
    out = capsys.readouterr().out
    found = out[out.index("Within 1.00 s over loopback (digits, batch 4)") :]
    assert len(re.findall("under masked, measured", found)) == 2
    assert "on paper" not in found  # one image each


def test_systems_on_paper_answer_one_image() -> None:
    view = view_of([batched(fake_record(("full", "tiny"), ("masked",), sessions=2, inferences=2), 16)])
    found = options(view, wire_named("loopback"), systems=("delphi",))
    (setting,) = {cell.setting for cell in view.cells}
    assert {o.system for o in found} == {"masked", "delphi"}
    assert {o.system for o in of_setting(found, setting)} == {"masked"}
    assert {o.system for o in of_setting(found, replace(setting, batch=1))} == {"delphi"}
