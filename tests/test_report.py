"""The page and its exports: from the record alone, whole, self-contained, the same twice, honest about gaps."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pibench.cli import main
from pibench.errors import EXIT_NOTHING_SELECTED, EXIT_USAGE, UsageError
from pibench.records.files import save_record
from pibench.records.record import Case, Record
from pibench.reporting.answer import answer, fastest_within, main_ladder
from pibench.reporting.cells import Ladder
from pibench.reporting.page.figures import figures_of
from pibench.reporting.page.html import render
from pibench.reporting.paper.csv import COLUMNS, to_csv
from pibench.reporting.paper.latex import escape, to_latex
from pibench.reporting.view import View, view_of
from pibench.reporting.whatif import best_within, options, shifts, wire_named

sys.path.insert(0, str(Path(__file__).parent))
from fakes import fake_record

pytest.importorskip("jinja2", reason="needs the extra `report`")

VOID = {"meta", "link", "br", "img", "input", "hr", "rect", "path", "circle", "line"}
pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def record() -> Record:
    return fake_record(sessions=4, inferences=3)


@pytest.fixture(scope="module")
def view(record: Record) -> View:
    return view_of([record])


def ladder_for(view: View, protocol: str) -> Ladder:
    ladder = main_ladder(view.ladders(), protocol)
    assert ladder is not None
    return ladder


def changed(record: Record, case_id: str, **fields: object) -> Record:
    return record.with_case(record.case(case_id).model_copy(update=fields))


def test_parts_of_every_cell_add_up_to_its_median(view: View) -> None:
    for cell in view.cells:
        assert sum(cell.kinds.values()) == pytest.approx(cell.online_s, rel=1e-9)


def test_page_holds_the_answer_first_and_every_network(view: View) -> None:
    page = render(view, protocol="crypten")
    head = page[: page.index("<main>")]
    assert "1,000 ReLUs cost" in head
    assert "95 % interval" in head
    assert "Within 1 point of full" in head
    assert all(f">{name}<" in page for name in ("full", "culled", "thinned", "reshaped", "tiny"))


def test_page_is_self_contained(view: View) -> None:
    page = render(view)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", page)
    assert "@import" not in page
    assert not re.search(r"url\((?!data:)", page)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_page_is_well_formed_and_ids_are_unique(view: View) -> None:
    parser = _Checker()
    parser.feed(render(view))
    assert not parser.open
    assert len(parser.ids) == len(set(parser.ids))
    assert parser.described <= set(parser.ids)
    assert parser.figures == parser.captions > 5


class _Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.described: set[str] = set()
        self.figures = self.captions = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        self.described |= set(str(values.get("aria-labelledby") or "").split())
        self.figures += tag == "figure"
        self.captions += tag == "figcaption"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_same_record_gives_the_same_page(record: Record) -> None:
    assert render(view_of([record])) == render(view_of([record]))


def test_fifty_cases_stay_under_three_megabytes(record: Record) -> None:
    many = [fake_record(sessions=2, inferences=2, link=f"link{k}", seed=k) for k in range(3)]
    view = view_of(many)
    assert len(view.cells) >= 50
    assert len(render(view).encode()) < 3_000_000


def test_what_is_not_known_stays_empty(record: Record) -> None:
    bare = record
    for case in record.cases:
        network = case.network.model_copy(update={"checkpoint_accuracy": None, "plain_accuracy": None})
        sessions = tuple(s.model_copy(update={"accuracy": None}) for s in case.sessions)
        bare = bare.with_case(case.model_copy(update={"network": network, "sessions": sessions}))
    view = view_of([bare])
    assert all(cell.score is None for cell in view.cells)
    page = render(view)
    assert "No network of this record is trained" in page
    assert "fig-frontier-latency" not in page
    assert "nan" not in page.lower().replace("nano", "")


def test_failed_and_invalid_cases_are_told_first_and_their_speed_is_not_shown(record: Record) -> None:
    broken = changed(record, "culled/masked/loopback/cpu/b1", status="invalid", error="logit off by <0.3>")
    broken = changed(broken, "tiny/masked/loopback/cpu/b1", status="failed", error="client vanished", sessions=())
    view = view_of([broken])
    page = render(view, protocol="masked")
    head = page[: page.index("<main>")]
    assert "1 of 20 cases invalid" in head
    assert "1 of 20 cases failed" in head
    assert "&lt;0.3&gt;" in page
    assert "<0.3>" not in page
    assert {c.network for c in ladder_for(view, "masked").cells} == {"full", "thinned", "reshaped"}
    row = next(r for r in csv.DictReader(io.StringIO(to_csv(view))) if r["status"] == "invalid")
    assert row["online_s"] == ""


def test_markup_in_names_is_escaped(record: Record) -> None:
    case = record.cases[0]
    network = case.network.model_copy(update={"card": "<script>alert(1)</script>"})
    page = render(view_of([record.with_case(case.model_copy(update={"network": network}))]), protocol="plaintext")
    assert "<script>alert" not in page


def test_a_record_without_measurements_still_gives_a_page(record: Record, tmp_path: Path) -> None:
    empty = record
    for case in record.cases:
        empty = empty.with_case(case.model_copy(update={"sessions": (), "status": "failed", "error": "no port"}))
    page = render(view_of([empty]))
    assert "No case was measured" in page
    assert "no port" in page
    path = tmp_path / "empty.json"
    save_record(empty, path)
    assert main(["report", str(path), "-o", str(tmp_path / "x.html")]) == EXIT_NOTHING_SELECTED


def test_newest_measurement_of_a_case_counts(record: Record) -> None:
    later = fake_record(
        sessions=4, inferences=3, slowdown={"full/masked": 2.0}, created_utc="2026-11-21T12:00:00Z"
    )  # fmt: skip
    once, both = ladder_for(view_of([record]), "masked"), ladder_for(view_of([later, record]), "masked")
    assert both.full.online_s > 1.8 * once.full.online_s
    failed = changed(later, "full/masked/loopback/cpu/b1", sessions=(), status="failed")
    assert ladder_for(view_of([record, failed]), "masked").full.online_s == once.full.online_s


def test_price_recovers_the_planted_one(view: View) -> None:
    ladder = ladder_for(view, "crypten")
    assert ladder.explains
    assert ladder.joint is not None
    assert ladder.joint.relu_s == pytest.approx(1.4e-5 * 1000, rel=0.15)


def test_a_plane_with_a_price_below_nothing_is_no_price() -> None:
    """A network with few multiply-accumulates that was slow that day once made a million of them cost -1.67 ms."""
    view = view_of([fake_record(sessions=4, inferences=3, slowdown={"reshaped/crypten": 8.0})])
    slow, fine = ladder_for(view, "crypten").joint, ladder_for(view, "masked").joint
    assert slow is not None
    assert fine is not None
    assert not slow.firm
    assert fine.firm


def test_chosen_network_is_the_fastest_within_one_point(view: View) -> None:
    ladder = ladder_for(view, "masked")
    chosen = fastest_within(ladder)
    assert chosen is not None
    assert chosen.network == "culled"
    assert f"the fastest is {chosen.network}" in " ".join(answer(view, ladder).sentences)
    assert fastest_within(ladder, points=100.0).network == "tiny"  # type: ignore[union-attr]


def test_private_protocols_come_before_the_null_one(view: View) -> None:
    ladder = main_ladder(view.ladders())
    assert ladder is not None
    assert ladder.setting.protocol == "masked"
    assert main_ladder(view.ladders(), "nothing") is None


def test_what_if_picks_the_most_accurate_in_time(view: View) -> None:
    found = options(view, wire_named("loopback"))
    assert all(o.basis == "measured" and o.system != "plaintext" for o in found)
    slowest = max(found, key=lambda o: o.online_s)
    best = best_within(found, slowest.online_s)
    assert best is not None
    assert best.network == "full"
    assert best_within(found, 1e-9) is None
    tight = next(c for c in view.cells if c.network == "thinned" and c.protocol == "masked").online_s
    assert best_within(found, tight).network == "thinned"  # type: ignore[union-attr]


def test_measured_link_beats_prediction(record: Record) -> None:
    wan = fake_record(protocols=("masked",), sessions=2, inferences=2, link="wan")
    view = view_of([record, wan])
    assert {o.basis for o in options(view, wire_named("wan")) if o.system == "masked"} == {"measured"}
    assert not any(row.predicted for row in shifts(view, ladder_for(view, "masked")))


def test_masks_keep_rounds_where_culling_removes_them(record: Record) -> None:
    """The same ReLU count: over a WAN the network that kept its layers saves less, with garbled circuits the same."""
    case = record.case("thinned/masked/loopback/cpu/b1")
    masked = case.network.model_copy(update={"card": "pixels", "method": "snl", "relu_rounds": 9})
    sessions = tuple(
        s.model_copy(update={"inferences": tuple(
            i.model_copy(update={"client": i.client.model_copy(update={"rounds": 29})}) for i in s.inferences
        )}) for s in case.sessions
    )  # fmt: skip
    twin = case.model_copy(update={"id": "pixels/masked/loopback/cpu/b1", "network": masked, "sessions": sessions})
    view = view_of([record.with_case(twin)])
    rows = {row.network: row.shares for row in shifts(view, ladder_for(view, "masked"))}
    assert rows["pixels"]["ReLUs"] == rows["thinned"]["ReLUs"]
    assert rows["pixels"]["garbled circuits"] == pytest.approx(rows["thinned"]["garbled circuits"], rel=0.01)
    assert rows["pixels"]["WAN"] > 1.5 * rows["thinned"]["WAN"]


def test_csv_has_one_line_a_case_and_only_numbers_where_numbers_belong(view: View) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(view))))
    assert len(rows) == len(view.cells)
    assert set(rows[0]) == set(COLUMNS)
    assert all(math.isfinite(float(row["online_s"])) for row in rows)


def test_latex_escapes_and_balances(view: View) -> None:
    text = to_latex(view, answer(view, ladder_for(view, "masked")))
    assert text.count(r"\begin{") == text.count(r"\end{") == 2  # no name is so long that it is broken
    assert all(line.count("&") == 6 for line in text.splitlines() if line.endswith(r"\\"))
    assert escape("50 % & x_y") == r"50 \% \& x\_y"


def test_verb_writes_everything_it_is_asked_for(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    save_record(record, path)
    command = ["report", str(path), "-o", str(tmp_path / "a.html"), "--csv", str(tmp_path / "a.csv")]
    assert main([*command, "--latex", str(tmp_path / "a.tex"), "--deadline", "0.02", "--link", "lan"]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"run.json", "a.html", "a.csv", "a.tex"}
    out = capsys.readouterr().out
    assert "Within 20.0 ms over lan (digits, batch 1): " in out
    assert "within 20 ms" in (tmp_path / "a.html").read_text("utf-8")


def test_verb_shows_the_frontier_in_the_terminal(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    save_record(record, path)
    assert main(["report", str(path), "--terminal"]) == 0
    out = capsys.readouterr().out
    assert "accuracy, %" in out
    assert ">b  culled" in out
    assert max(map(len, out.splitlines())) <= 112
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("extra", [["--protocol", "none"], ["--deadline", "1", "--link", "moon"]])
def test_verb_refuses_what_it_cannot_do(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str]
) -> None:
    path = tmp_path / "run.json"
    save_record(record, path)
    assert main(["report", str(path), "-o", str(tmp_path / "a.html"), *extra]) == EXIT_USAGE
    assert "->" in capsys.readouterr().err


def test_missing_extra_says_how_to_install_it(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=r"pip install 'pibench\[report\]'"):
        render(view)


def test_reporting_imports_no_picture_library_and_no_torch() -> None:
    import subprocess

    code = "import sys, pibench.commands.report, pibench.commands.estimate\n"
    code += "import pibench.reporting.page.figures, pibench.reporting.page.html\n"
    code += "print([m for m in ('torch', 'matplotlib', 'jinja2') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_case_of_another_batch_is_not_mixed_in(record: Record) -> None:
    case: Case = record.case("full/masked/loopback/cpu/b1")
    batched = case.model_copy(update={"id": "full/masked/loopback/cpu/b16", "batch": 16})
    view = view_of([record.with_case(batched)])
    assert {cell.batch for cell in ladder_for(view, "masked").cells} == {1}


def test_a_noisy_record_quotes_no_price() -> None:
    view = view_of([fake_record(protocols=("crypten",), sessions=3, inferences=3, session_noise=0.8, seed=5)])
    found = answer(view, ladder_for(view, "crypten"))
    assert found.headline == "Too noisy here to price a ReLU"
    assert "latency is noisy" in render(view)


def test_two_networks_are_compared_without_a_line() -> None:
    view = view_of([fake_record(("full", "tiny"), ("masked",), sessions=3, inferences=3)])
    found = answer(view, ladder_for(view, "masked"))
    assert found.headline.startswith("With 3 % of the ReLUs, ")
    assert "fig-price" not in render(view)


def test_a_ladder_without_the_full_network_does_not_claim_one(record: Record) -> None:
    view = view_of([record.model_copy(update={"cases": tuple(c for c in record.cases if "full" not in c.id)})])
    page = render(view, protocol="masked")
    assert "full network" not in page
    assert "culled less 1 point" in page


def test_two_option_sets_of_one_protocol_are_two_settings(record: Record) -> None:
    more = record
    for case in record.cases:
        if case.protocol == "masked":
            more = more.with_case(case.model_copy(update={"id": case.id.replace("masked", "masked+tcp")}))
    view = view_of([more])
    assert {c.protocol for c in view.cells} >= {"masked", "masked+tcp"}
    ladder = main_ladder(view.ladders())
    assert ladder is not None
    assert ladder.setting.protocol == "masked"
    assert len(ladder.cells) == 5
    assert len(ladder_for(view, "masked+tcp").cells) == 5
    assert "masked+tcp" in render(view)


def test_published_points_without_a_latency_make_no_empty_latency_figure(record: Record) -> None:
    """Random weights, published accuracies: a frontier over ReLUs of hollow marks, none over latency."""
    bare = record
    for case in record.cases:
        published = ({"accuracy_percent": 70.0, "source": "a paper"},)
        changes = {"checkpoint_accuracy": None, "plain_accuracy": None, "published": published}
        sessions = tuple(s.model_copy(update={"accuracy": None}) for s in case.sessions)
        network = case.network.model_copy(update=changes)
        bare = bare.with_case(case.model_copy(update={"network": network, "sessions": sessions}))
    page = render(view_of([bare]), protocol="masked")
    assert "fig-frontier-latency" not in page
    assert "fig-frontier-relus" in page
    assert "full elsewhere in this record: " in page or "1,000 ReLUs elsewhere" in page


def test_a_figure_explains_hollow_marks_only_where_it_has_some(record: Record) -> None:
    given = record
    for case in record.cases:
        published = ({"accuracy_percent": 70.0, "source": "a paper"},)
        network = case.network.model_copy(update={"published": published})
        given = given.with_case(case.model_copy(update={"network": network}))
    view = view_of([given])
    captions = {f.key: f.caption for f in figures_of(view, answer(view, ladder_for(view, "masked")))}
    assert "Hollow: published" not in captions["frontier-latency"]
    assert "Hollow: published" in captions["frontier-relus"]
