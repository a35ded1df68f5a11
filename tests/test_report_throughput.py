"""Images a second by batch size: what is divided by what, and where it is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import fake_record

from pibench.numbers import digits
from pibench.reporting.answer import main_ladder
from pibench.reporting.cells import Cell
from pibench.reporting.page.throughput import throughput_table
from pibench.reporting.screen.throughput import throughput
from pibench.reporting.throughput import rates
from pibench.reporting.view import View, view_of


def batched(view: View, batch: int, times: float) -> list[Cell]:
    """Return a view's cells as if a batch had taken so many times as long as one image."""
    made = []
    for cell in view.cells:
        assert cell.online
        made.append(replace(cell, batch=batch, online=replace(cell.online, point=times * cell.online.point)))
    return made


def test_a_rate_is_images_over_a_batch_and_its_gain_is_over_the_smallest_batch() -> None:
    view = view_of([fake_record(protocols=("masked", "plaintext"), sessions=2)])
    ladder = main_ladder(view.ladders())
    assert ladder is not None
    cells = [*batched(view, 8, 4.0), *view.cells]
    found = rates(cells, ladder.setting)
    assert len(found) == len(cells)
    for rate in found:
        single = next(c for c in view.cells if (c.network, c.protocol) == (rate.cell.network, rate.cell.protocol))
        assert rate.gain == pytest.approx(2.0 if rate.cell.batch == 8 else 1.0)
        assert rate.images_s == pytest.approx(rate.gain / single.online_s)
        if single.offline and rate.cell.batch == 8:
            assert rate.offline_s == pytest.approx(single.offline.seconds / 8)
    lines = throughput(cells, ladder.setting, 80)
    assert max(map(len, lines)) <= 80
    for rate in found:
        assert any(
            {rate.cell.network, rate.cell.protocol, digits(rate.images_s)} <= set(line.split()) for line in lines
        )
    assert len(throughput_table(replace(view, cells=tuple(cells)), ladder).rows) == len(cells)


def test_one_batch_size_has_no_table_and_wrong_answers_no_rate() -> None:
    view = view_of([fake_record(protocols=("masked",), sessions=2)])
    ladder = main_ladder(view.ladders())
    assert ladder is not None
    assert throughput(view.cells, ladder.setting, 80) == []
    assert throughput_table(view, ladder).rows == ()
    wrong = [replace(cell, status="invalid") for cell in batched(view, 8, 4.0)]
    assert throughput([*wrong, *view.cells], ladder.setting, 80) == []
