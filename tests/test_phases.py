"""Setup, offline and online side by side, where material is made without a third party."""

from __future__ import annotations

import pytest
from fakes import fake_record

from pibench.records.record import Record, Trust
from pibench.reporting.screen.phases import cold_s, phases, steady_s
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
    assert phases(record, view_of([record]).cells, 80) == []
    assert phases(alone(record, "nothing"), view_of([record]).cells, 80) == []


@pytest.mark.parametrize("width", [80, 120])
def test_the_three_phases_and_their_sums(width: int) -> None:
    record = alone(fake_record(protocols=("masked", "crypten"), sessions=2), "masked")
    cells = view_of([record]).cells
    lines = phases(record, cells, width)
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
    lines = " ".join(phases(record, view_of([record]).cells, 100))
    assert "Offline, masked: 1,000 ReLUs cost" in lines
