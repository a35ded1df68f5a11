"""Setup, offline and online side by side, where material is made without a third party."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import fake_record

from pibench.records.record import Held, Record, Sustained, Trust
from pibench.reporting.endtoend import an_hour, cold_s, offline_s, on_paper_mac_share, prices, shown, steady_s
from pibench.reporting.page.endtoend import endtoend_table, offline_figures, offline_table
from pibench.reporting.page.figures import NARROW, WIDE
from pibench.reporting.page.html import render
from pibench.reporting.screen.phases import phases
from pibench.reporting.view import plane_of, view_of


def alone(record: Record, protocol: str) -> Record:
    """Return the record with that protocol trusting nobody, and the others a dealer."""
    cases = [
        case.model_copy(update={"trust": Trust(short="none" if case.protocol == protocol else "dealer", line="-")})
        for case in record.cases
    ]
    return record.model_copy(update={"cases": tuple(cases)})


def test_there_is_no_table_where_every_case_has_a_third_party() -> None:
    record = fake_record(sessions=2)
    assert phases(view_of([record]).cells, 80) == []
    assert phases(view_of([alone(record, "nothing")]).cells, 80) == []


@pytest.mark.parametrize("width", [80, 120])
def test_the_three_phases_and_their_sums(width: int) -> None:
    record = alone(fake_record(protocols=("masked", "crypten"), sessions=2), "masked")
    cells = view_of([record]).cells
    lines = phases(cells, width)
    assert max(map(len, lines)) <= width
    assert lines[2].split()[:2] == ["network", "protocol"]
    assert {"setup", "offline", "online", "cold"} <= set(lines[2].split())
    rows = [line for line in lines if " masked " in line or " crypten " in line]
    assert len(rows) == len(cells)
    for cell in cells:
        assert cell.setup is not None
        assert cell.offline is not None
        assert steady_s(cell) == cell.offline.seconds + cell.online_s
        assert cold_s(cell) == pytest.approx(cell.setup.seconds + cell.offline.seconds + cell.online_s)


def test_a_plane_over_networks_finds_what_made_it() -> None:
    record = fake_record(protocols=("masked",), sessions=2)
    cells = [cell for cell in view_of([record]).cells if cell.usable]
    found = plane_of(cells, lambda c: 0.25 + 3e-6 * c.relu_count * c.batch + 2e-9 * c.macs_run * c.batch)
    assert found is not None
    assert found.relu_s == pytest.approx(3e-3)
    assert found.mmac_s == pytest.approx(2e-3)
    assert plane_of(cells[:4], lambda c: c.online_s) is None


def test_offline_work_has_a_price_where_five_networks_tell() -> None:
    record = alone(fake_record(protocols=("masked",), sessions=2), "masked")
    lines = " ".join(phases(view_of([record]).cells, 100))
    assert "Offline, masked: 1,000 ReLUs cost" in lines


def overlapped(record: Record, protocol: str, seconds: float) -> Record:
    """Return the record with that protocol's offline work beside its online phase: so many seconds an inference."""
    cases = []
    for case in record.cases:
        if case.protocol == protocol:
            sessions = [
                s.model_copy(
                    update={
                        "sustained": Sustained(inferences=4, seconds=4 * seconds),
                        "offline": s.offline.model_copy(update={"held_bytes": Held(server=3 << 20, client=5 << 20)}),
                    }
                )
                for s in case.sessions
            ]
            case = case.model_copy(update={"sessions": tuple(sessions)})
        cases.append(case)
    return record.model_copy(update={"cases": tuple(cases)})


def test_a_rate_that_was_measured_stands_for_itself() -> None:
    record = overlapped(alone(fake_record(protocols=("masked",), sessions=2), "masked"), "masked", 0.25)
    cells = view_of([record]).cells
    assert {round(an_hour(cell)) for cell in cells} == {14_400}
    assert all(cell.held_bytes == (3 << 20, 5 << 20) for cell in cells)
    text = "\n".join(phases(cells, 120))
    assert "14,400*" in text
    assert "measured, the next offline phase beside" in " ".join(text.split())
    assert "waits" in text
    assert prices(cells) == []  # both phases share the cores: no price of one of them


def test_the_page_tells_all_phases_and_what_offline_costs() -> None:
    record = alone(fake_record(protocols=("masked", "crypten"), sessions=2), "masked")
    view = view_of([record])
    page = render(view)
    for words in ("End to end, nobody trusted", "All phases together", "What offline work costs", "on paper: DELPHI"):
        assert words in page, words
    ladder = next(one for one in view.ladders() if one.setting.protocol == "masked")
    table = endtoend_table(view, ladder)
    assert len(table.rows) == 2 * len(ladder.cells)
    [figure] = offline_figures(view, ladder)
    for width in (WIDE, NARROW):
        drawn = figure.svg(width)
        assert "Multiply-accumulates" in drawn
        assert all(cell.network in drawn for cell in ladder.cells)
    plane, paper = offline_table(view, ladder).rows
    assert plane[1].note
    assert 0 <= float(str(paper[5].value)) <= 1


def test_a_page_of_dealers_alone_has_no_such_part() -> None:
    view = view_of([fake_record(protocols=("masked",), sessions=2)])
    assert "End to end, nobody trusted" not in render(view)
    assert offline_figures(view, view.ladders()[0]) == []


def test_the_intercept_and_shares_are_those_of_the_plane() -> None:
    record = alone(fake_record(protocols=("masked",), sessions=2), "masked")
    [price] = prices(view_of([record]).cells)
    for cell in price.cells:
        made = price.intercept_s + price.relu_s(cell) + price.mac_s(cell)
        assert made == pytest.approx(offline_s(cell), rel=0.2)
    assert 0 < on_paper_mac_share(price.cells[0]) < 1


def test_a_table_longer_than_a_screen_is_named_not_printed() -> None:
    record = alone(fake_record(protocols=("masked", "crypten"), sessions=1), "masked")
    cells = [replace(c, network=f"{c.network}-{n}") for n in range(9) for c in view_of([record]).cells]
    (line,) = phases(cells, 100)
    assert line.startswith(f"Setup, offline and online of {len(shown(cells))} cases")
