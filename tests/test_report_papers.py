"""Measured garbled circuits beside published ones: what is drawn, and what never mixes."""

from __future__ import annotations

from fakes import fake_record

from pibench.records.record import Record
from pibench.reporting.answer import answer, main_ladder
from pibench.reporting.onpaper.costcheck import PUBLISHED
from pibench.reporting.page.draw_papers import over_relus, published_latencies
from pibench.reporting.page.figures import figures_of
from pibench.reporting.view import view_of


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
