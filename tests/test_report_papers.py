"""Measured garbled circuits beside published ones: what is drawn, and what never mixes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import fake_record

from pibench.numbers import seconds
from pibench.records.record import Record
from pibench.reporting.answer import answer, main_ladder
from pibench.reporting.cells import Cell
from pibench.reporting.onpaper.costcheck import PUBLISHED
from pibench.reporting.onpaper.costmodel import WIRES, estimate
from pibench.reporting.onpaper.published import published_latencies, published_line, with_published
from pibench.reporting.onpaper.recordcheck import verdicts
from pibench.reporting.page.draw_papers import over_relus
from pibench.reporting.page.figures import figures_of
from pibench.reporting.screen.published import published
from pibench.reporting.view import view_of
from pibench.reporting.whatif import workload_of_cell

LAN = WIRES["lan"]


def renamed(record: Record, dataset: str) -> Record:
    """Return the record as if its crypten had been delphi, on another data set."""
    cases = []
    for case in record.cases:
        protocol = case.protocol.replace("crypten", "delphi")
        changes = {"protocol": protocol, "id": case.id.replace("crypten", "delphi")}
        network = case.network.model_copy(update={"dataset": dataset})
        cases.append(case.model_copy(update={**changes, "network": network}))
    return record.model_copy(update={"cases": tuple(cases)})


def test_published_latencies_are_those_of_the_data_set_and_no_calibration() -> None:
    names = [row.load.name for row in published_latencies("cifar100")]
    assert "DeepReDuce 12K, CIFAR-100" in names
    assert all(name.endswith("CIFAR-100") for name in names)
    assert {row.role for row in published_latencies("tinyimagenet")} == {"check"}
    assert published_latencies("digits") == []
    assert len(published_latencies("cifar100")) < len(PUBLISHED)


def test_every_network_and_every_published_one_is_a_mark() -> None:
    view = view_of([renamed(fake_record(protocols=("masked", "crypten"), sessions=1), "cifar100")])
    published = published_latencies("cifar100")
    drawn = over_relus(view.ladders(), published, 720).to_svg("papers", "title", "words", standalone=True)
    for row in published:
        assert drawn.count(f"{row.load.name}: ") == 1
    for ladder in view.ladders():
        for cell in ladder.cells:
            if cell.relu_count:
                assert f"{cell.network} under {cell.protocol}: {cell.relu_count:,} ReLUs" in drawn


def test_the_figure_is_there_where_delphi_was_run() -> None:
    for dataset, protocols, wanted in (
        ("cifar100", ("masked", "crypten"), True), ("digits", ("masked", "crypten"), False),
        ("cifar100", ("masked",), False),
    ):  # fmt: skip
        view = view_of([renamed(fake_record(protocols=protocols, sessions=1), dataset)])
        ladder = main_ladder(view.ladders(), None, None)
        assert ladder is not None
        keys = [figure.key for figure in figures_of(view, answer(view, ladder))]
        assert ("papers" in keys) == wanted


def test_a_run_ends_with_published_beside_measured() -> None:
    """Both latencies of a network that was published, and both lines; nothing where no garbled ReLU ran."""
    cells = view_of([renamed(fake_record(protocols=("masked", "crypten"), sessions=1), "cifar100")]).cells
    source = {"online_s": 4.61, "source": "a paper"}
    cells = [replace(c, published=(source,) if c.relu_count == max(d.relu_count for d in cells) else ()) for c in cells]
    (row,) = with_published(cells)
    assert row.cell.base_protocol == "delphi"
    lines = published(cells, 80)
    (line,) = (line for line in lines if line.startswith(row.cell.network))
    for text in ("4.61 s", seconds(row.cell.online_s), f"{4.61 / row.cell.online_s:.1f}"):
        assert text in line
    text = " ".join(lines)
    assert "19.2 µs a ReLU and 215 ms" in text
    assert "a paper; other machines" in text
    assert max(map(len, lines)) <= 80
    assert published([c for c in cells if c.base_protocol != "delphi"], 80) == []


def test_the_published_line_goes_through_both_points() -> None:
    line = published_line()
    for relus, online_s in ((229_376, 4.61), (12_288, 0.45)):
        assert line.intercept_s + line.slope_s * relus / 1e3 == pytest.approx(online_s)


def priced(cell: Cell, online_s: float) -> Cell:
    assert cell.online
    return replace(cell, online=replace(cell.online, point=online_s))


def test_the_model_on_paper_is_held_against_what_ran() -> None:
    """One factor for all networks where they cost what the model says, a spread where they do not."""
    view = view_of([renamed(fake_record(protocols=("masked", "crypten"), sessions=1), "cifar100")])
    made = verdicts(view.ladders())
    wanted = [("masked", "online"), ("masked", "offline"), ("delphi", "online")]  # this one's offline phase is empty
    assert sorted((found.protocol, found.phase) for found in made) == sorted(wanted)
    for found in made:
        (ladder,) = (one for one in view.ladders() if one.setting.protocol == found.protocol)
        assert [row.network for row in found.rows] == [cell.network for cell in ladder.cells if cell.relu_count]
        for row, cell in zip(found.rows, ladder.cells, strict=True):
            whole = estimate(workload_of_cell(cell), "delphi", WIRES["loopback"])
            phase, measured = (whole.online, cell.online_s) if found.phase == "online" else (whole.offline, 0.0)
            if cell.offline and found.phase == "offline":
                measured = cell.offline.seconds
            assert row.factor == pytest.approx(phase.total_s / measured)
    (ladder, *_) = view.ladders()
    far = [replace(cell, link="lan", rtt_ms=LAN.rtt_ms, mbit_s=LAN.down_mbit_s) for cell in ladder.cells if cell.online]
    cells = [priced(cell, estimate(workload_of_cell(cell), "delphi", LAN).online.total_s / 16) for cell in far]
    online = verdicts([replace(ladder, cells=tuple(cells))])[0]
    assert online.factor == pytest.approx(16)
    assert online.spread == pytest.approx(1)
    slow = priced(cells[0], 2 * cells[0].online_s)
    assert verdicts([replace(ladder, cells=(slow, *cells[1:]))])[0].spread == pytest.approx(2)
