"""Figures: the same bytes twice, the setting in every caption, contrast, labels that stay inside, no overlap."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pibench.numbers import percent, seconds, short, size
from pibench.reporting.answer import answer, main_ladder
from pibench.reporting.page.canvas import Canvas, Words, words_width
from pibench.reporting.page.figures import NARROW, WIDE, Figure, figures_of, save_figures
from pibench.reporting.page.labels import Label, place
from pibench.reporting.page.theme import COLOURS, MARKERS, method_marker, method_role
from pibench.reporting.scales import Scale, linear_ticks, log_ticks, spread
from pibench.reporting.view import View, view_of

sys.path.insert(0, str(Path(__file__).parent))
from fakes import fake_record

TEXT_ROLES = ("ink", "muted", "accent", "link", "good")
pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def view() -> View:
    wan = fake_record(("full", "tiny"), ("masked",), sessions=2, inferences=2, link="wan", seed=7)
    return view_of([fake_record(sessions=3, inferences=3), wan])


@pytest.fixture(scope="module")
def figures(view: View) -> list[Figure]:
    return drawn(view)


def drawn(view: View) -> list[Figure]:
    ladder = main_ladder(view.ladders(), "masked", "loopback")
    assert ladder is not None
    return figures_of(view, answer(view, ladder))


def test_everything_that_the_record_holds_is_drawn(figures: list[Figure]) -> None:
    assert [f.key for f in figures] == [
        "budget", "frontier-latency", "frontier-relus", "price", "attribution", "profile", "protocols", "links",
        "phases", "paper", "ranking",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["digits", "masked", "loopback", "Fake CPU @ 2.0 GHz", "n = ", "batch 1", "cpu"])
def test_every_caption_states_its_setting(figures: list[Figure], word: str) -> None:
    for figure in figures:
        assert word in figure.caption, figure.key
        assert re.search(r"full|networks", figure.caption), figure.key


def test_every_figure_has_words_for_those_who_cannot_see_it(figures: list[Figure]) -> None:
    for figure in figures:
        assert len(figure.alt) > 60, figure.key
        assert re.search(r"\d", figure.alt), figure.key


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_svg_is_well_formed_and_nothing_leaves_it(figures: list[Figure], width: float) -> None:
    for figure in figures:
        root = ET.fromstring(figure.svg(width))
        assert root.get("role") == "img"
        canvas = figure.draw(width)
        for item in canvas.items:
            if isinstance(item, Words):
                wide = words_width(item.text, item.size)
                left = item.x - {"start": 0.0, "middle": wide / 2, "end": wide}[item.anchor]
                assert left > -12, (figure.key, item.text)
                assert left + wide < width + 14, (figure.key, item.text)
                assert 0 < item.y <= canvas.height + 1, (figure.key, item.text)


def test_files_are_byte_identical_twice(view: View, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra `report`")
    chosen = {"budget"}  # a PNG takes a second
    first = save_figures([f for f in drawn(view) if f.key in chosen], tmp_path / "a")
    second = save_figures([f for f in drawn(view) if f.key in chosen], tmp_path / "b")
    assert [p.name for p in first] == ["budget.svg", "budget.pdf", "budget.png"]
    for one, other in zip(first, second, strict=True):
        assert _hash(one) == _hash(other), one.name
    assert first[2].read_bytes().startswith(b"\x89PNG")


def test_every_svg_is_identical_twice(view: View, figures: list[Figure]) -> None:
    again = {f.key: f for f in drawn(view)}
    for figure in figures:
        assert figure.svg(WIDE) == again[figure.key].svg(WIDE)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_brings_its_colours_title_and_caption(figures: list[Figure]) -> None:
    figure = figures[0]
    text = figure.alone().to_svg(figure.key, figure.title, figure.alt, standalone=True)
    assert "prefers-color-scheme:dark" in text
    words = " ".join("".join(e.itertext()) for e in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text"))
    assert figure.title in words
    assert "protocol masked" in words


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb (WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2): 1 to 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1])
def test_contrast_of_text_and_marks(mode: int) -> None:
    paper, panel = COLOURS["paper"][mode], COLOURS["panel"][mode]
    for role in TEXT_ROLES:
        assert contrast(COLOURS[role][mode], paper) >= 4.5, role
        assert contrast(COLOURS[role][mode], panel) >= 4.5, role
    for role, pair in COLOURS.items():
        if role.startswith(("m-", "k-", "p-")):
            assert contrast(pair[mode], paper) >= 3.0, role


def test_contrast_of_black_and_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


def test_every_method_has_a_colour_and_its_own_marker() -> None:
    assert len(set(MARKERS.values())) == len(MARKERS)
    assert all(method_role(method) in COLOURS for method in [*MARKERS, "a new one"])
    assert method_marker("a new one") not in MARKERS.values(), "nobody takes it for the full network"
    assert method_role("a new one") not in {method_role(method) for method in MARKERS}


def test_labels_do_not_cover_each_other() -> None:
    canvas = Canvas(300, 200)
    place(canvas, [Label(100 + 3 * k, 100 + 2 * k, f"network {k}") for k in range(4)], (0, 0, 300, 200))
    words = [item for item in canvas.items if isinstance(item, Words)]
    assert len(words) >= 3
    assert len({(w.x, w.y, w.anchor) for w in words}) == len(words)


def test_ticks_are_round_and_inside() -> None:
    assert linear_ticks(0.0, 1.0, 5) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert log_ticks(0.003, 0.2, 6) == pytest.approx([0.005, 0.01, 0.02, 0.05, 0.1, 0.2])
    assert all(500 <= t <= 600_000 for t in log_ticks(500, 600_000, 6))
    assert Scale(1.0, 100.0, 0.0, 200.0, True)(10.0) == pytest.approx(100.0)
    assert Scale(0.0, 10.0, 0.0, 100.0)(20.0) == 100.0  # clamped


def test_numbers_as_words() -> None:
    assert [seconds(v) for v in (1e-5, 0.00123, 0.1234, 0.9999, 12.34, 123.0)] == [
        "10.0 µs", "1.23 ms", "123 ms", "1.00 s", "12.3 s", "2.05 min",
    ]  # fmt: skip
    assert seconds(-0.001) == "−1.00 ms"
    assert seconds(None) == seconds(float("nan")) == size(None) == ""
    assert [size(v) for v in (0, 12, 10_900_000, 9.51e9)] == ["0 B", "12 B", "10.9 MB", "9.51 GB"]
    assert [short(v) for v in (512, 12_288, 557_056, 2_228_224)] == ["512", "12.3K", "557K", "2.23M"]
    shares = [percent(v) for v in (0.0, 0.0001, 0.123, 0.9997, 1.0)]
    assert shares == ["0 %", "under 0.1 %", "12 %", "over 99.9 %", "100 %"]


def test_spread_keeps_distance_and_order() -> None:
    placed = spread([10.0, 11.0, 50.0], 8.0, 0.0, 100.0)
    assert placed[1] - placed[0] >= 8.0
    assert placed == sorted(placed)


def test_a_file_has_literal_colours_that_every_program_draws(figures: list[Figure]) -> None:
    """Renderers without CSS variables (rsvg, Inkscape) drew everything black."""
    for figure in figures:
        for white in (False, True):
            text = figure.alone().to_svg(figure.key, figure.title, figure.alt, standalone=True, white=white)
            assert "var(" not in text
            shown = [e for e in ET.fromstring(text).iter() if e.tag.rpartition("}")[2] in {"path", "circle", "text"}]
            assert all(e.get("fill") for e in shown)
            assert {e.get("fill") for e in shown} - {"none", "#1b1d22"}, "not all of it is ink"
            assert ("prefers-color-scheme:dark" in text) is not white


def test_figures_for_a_paper_are_white_without_caption_in_column_widths_with_embedded_fonts(
    figures: list[Figure], tmp_path: Path
) -> None:
    [figure] = [f for f in figures if f.key == "budget"]
    paths = save_figures([figure], tmp_path, paper=True)
    assert [p.name for p in paths] == ["budget.svg", "budget.pdf", "budget-wide.svg", "budget-wide.pdf"]
    for svg, points in ((paths[0], 252.0), (paths[2], 515.5)):
        root = ET.parse(svg).getroot()
        assert float(str(root.get("width")).removesuffix("pt")) == pytest.approx(points, abs=0.3)
        words = list(root.iter("{http://www.w3.org/2000/svg}text"))
        assert not any(figure.title in "".join(e.itertext()) for e in words)
        assert min(float(str(e.get("font-size"))) for e in words) * 0.72 >= 7.0
        assert root.find("{http://www.w3.org/2000/svg}rect").get("fill") == "#ffffff"  # type: ignore[union-attr]
    pdf = paths[1].read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"/FontFile2" in pdf, "TrueType, embedded"
    assert b"CreationDate" not in pdf
    if opener := shutil.which("pdftoppm"):
        subprocess.run([opener, "-png", "-r", "50", str(paths[1]), str(tmp_path / "page")], check=True, timeout=60)
        assert list(tmp_path.glob("page*.png"))
