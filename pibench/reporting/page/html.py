"""The page: one self-contained HTML file with inline drawings, tables that sort, and nothing to fetch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pibench.errors import StoreError
from pibench.reporting.answer import Answer, answer, main_ladder
from pibench.reporting.captions import latency_interval, machine_words
from pibench.reporting.cells import NOISY, Cell
from pibench.reporting.onpaper.costcheck import WHERE_IT_DOES_NOT_FIT
from pibench.reporting.page.endtoend import endtoend_table, offline_figures, offline_table
from pibench.reporting.page.figures import NARROW, WIDE, Figure, figures_of
from pibench.reporting.page.prices import which_table
from pibench.reporting.page.raster import missing_extra
from pibench.reporting.page.tables import (
    Table,
    budget_table,
    case_table,
    check_table,
    paper_table,
    price_table,
    rival_table,
    whatif_table,
)
from pibench.reporting.page.theme import SANS, SERIF, colour_css, figure_css
from pibench.reporting.page.throughput import throughput_table
from pibench.reporting.view import View
from pibench.run.precision import FEWEST

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"

# The page's sections: what they are called and which figures and tables they hold, where a record has them.
SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("budgets", "By ReLU budget", ("table:budgets", "table:rivals", "frontier-latency", "frontier-relus")),
    ("cost", "What it costs, and where", ("price", "attribution", "profile", "table:prices", "table:which")),
    ("endtoend", "End to end, nobody trusted", ("table:endtoend", "offline-price", "table:offline")),
    (
        "compared",
        "Protocols, links, batches, phases",
        ("papers", "protocols", "links", "table:throughput", "batches", "phases"),
    ),
    ("what-if", "What if", ("table:whatif", "ranking", "paper")),
    ("on-paper", "Other systems, on paper", ("table:paper", "table:checks")),
    ("all", "All cases", ("table:cases",)),
)


OPEN = ("budgets",)  # the answer's own; what other sections say stands above their fold


@dataclass(frozen=True)
class Section:
    """A section with what it shows, in order."""

    key: str
    title: str
    items: tuple[dict[str, Any], ...]

    @property
    def says(self) -> list[str]:
        """What its figures show, a sentence each."""
        return [item["takeaway"] for item in self.items if item.get("takeaway")]

    @property
    def holds(self) -> str:
        """What there is to see."""
        return ", ".join(item["table"].title if item["kind"] == "table" else item["title"] for item in self.items)


def render(
    view: View, *, protocol: str | None = None, link: str | None = None, deadlines: Sequence[tuple[str, float]] = ()
) -> str:
    """Return the page for some records."""
    ladder = main_ladder(view.ladders(), protocol, link)
    found = answer(view, ladder) if ladder else None
    figures = [*figures_of(view, found), *offline_figures(view, found.ladder)] if found else []
    tables = _tables(view, found, deadlines)
    hero = figures[0] if figures else None
    page = _environment().get_template("page.html").render(
        headline=found.headline if found else "No case was measured",
        sentences=found.sentences if found else ("The cases below say why.",),
        hero=_drawn(hero) if hero else None, sections=_sections(figures[1:], tables), open=OPEN,
        troubles=_troubles(view),
        facts=_facts(view), kicker=_kicker(view), suites=[r.suite for r in view.records], misfits=WHERE_IT_DOES_NOT_FIT,
        interval=latency_interval(view.cells),
        css=_css(), js=(TEMPLATES / "page.js").read_text("utf-8").strip(),
    )  # fmt: skip
    return re.sub(r"\n\s*\n+", "\n", page)


def save_page(text: str, path: Path) -> None:
    """Write the page."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"the page cannot be written: {error.strerror}", where=str(path)) from error


def _environment() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise missing_extra("jinja2") from error
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def _css() -> str:
    text = (TEMPLATES / "page.css").read_text("utf-8")
    text = re.sub(r"/\*.*?\*/|\n\s*", "", text, flags=re.DOTALL)
    return colour_css() + figure_css() + text.replace("SANS", SANS).replace("SERIF", SERIF)


def _tables(view: View, found: Answer | None, deadlines: Sequence[tuple[str, float]]) -> dict[str, Table]:
    made: list[Table | None] = [case_table(view)]
    if found:
        ladder = found.ladder
        made += [budget_table(ladder, found.chosen), rival_table(ladder), price_table(view), which_table(view)]
        made += [endtoend_table(view, ladder), offline_table(view, ladder), throughput_table(view, ladder)]
        made += [whatif_table(view, ladder, deadlines)]
        if ladder.setting.batch == 1 and any(c.macs for c in ladder.cells):
            made += [paper_table(_exemplars(found)), check_table()]
    return {table.key: table for table in made if table and table.rows}


def _exemplars(found: Answer) -> list[Cell]:
    """Return the networks that stand for a ladder: full, the headline's choice, the least ReLUs."""
    cells = [found.ladder.full, found.chosen or found.ladder.full, found.ladder.cells[-1]]
    return [cell for cell in dict.fromkeys(cells) if cell.macs]


def _drawn(figure: Figure) -> dict[str, Any]:
    from markupsafe import Markup

    return {
        "kind": "figure", "key": figure.key, "title": figure.title, "caption": figure.caption,
        "takeaway": figure.takeaway, "wide": Markup(figure.svg(WIDE)), "narrow": Markup(figure.svg(NARROW, "-n")),
    }  # fmt: skip


def _sections(figures: Sequence[Figure], tables: dict[str, Table]) -> list[Section]:
    drawn = {figure.key: figure for figure in figures}
    made = []
    for key, title, names in SECTIONS:
        items: list[dict[str, Any]] = []
        for name in names:
            if name in drawn:
                items.append(_drawn(drawn[name]))
            elif name.removeprefix("table:") in tables and name.startswith("table:"):
                items.append({"kind": "table", "table": tables[name.removeprefix("table:")]})
        if items:
            made.append(Section(key, title, tuple(items)))
    return made


def _troubles(view: View) -> list[str]:
    """Return what a reader must know before trusting the page."""
    said = []
    for status in ("failed", "invalid", "skipped", "pending"):
        cells = [c for c in view.cells if c.status == status]
        if cells:
            names = ", ".join(c.case_id for c in cells[:3]) + (" …" if len(cells) > 3 else "")
            said.append(f"{len(cells)} of {len(view.cells)} cases {status}: {names}")
    said += [f"run {r.id} did not finish" for r in view.records if not r.finished]
    few = sum(c.online.n_sessions < FEWEST for c in view.cells if c.usable and c.online)
    if few:
        said.append(f"{few} cases rest on fewer than {FEWEST} sessions: their ranges may cover far less than 95 %")
    said += [
        f"the machine was busy when run {r.id} began (load {r.machine.load_1min:.1f} on {r.machine.cores} cores)"
        for r in view.records
        if r.machine.load_1min and r.machine.cores and r.machine.load_1min > 0.75 * r.machine.cores
    ]
    wide = [c for c in view.cells if c.usable and c.noisy]
    if wide:
        bound = f"±{NOISY * 100:.0f} % of the median"
        said.append(f"latency is noisy: the intervals of {len(wide)} cases reach beyond {bound}")
    if len(view.machines) > 1:
        said.append("the records come from several machines: latencies compare within one machine only")
    return said


def _kicker(view: View) -> str:
    suites = ", ".join(dict.fromkeys(r.suite.name for r in view.records))
    days = ", ".join(dict.fromkeys(r.created_utc[:10] for r in view.records))
    machines = "; ".join(machine_words(m) for m in view.machines.values())
    return f"Suite {suites} · {days} · {machines}"


def _facts(view: View) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what is needed to run each record again."""
    made = []
    for record in view.records:
        commit = f"{(record.git.commit or '')[:12]}{' (with changes)' if record.git.dirty else ''}"
        rows = [
            ("created", record.created_utc), ("command", " ".join(record.command)),
            ("suite", f"{record.suite.name}, sha256 {record.suite.sha256[:16]}"), ("seed", str(record.seed)),
            ("commit", commit), ("pibench", record.pibench_version),
            ("versions", ", ".join(f"{k} {v}" for k, v in record.versions.items() if v)),
            ("machine", f"{machine_words(record.machine)}, {record.machine.os}, key {record.machine.key}"),
            ("links", _links(record.id, view)),
        ]  # fmt: skip
        made.append((record.id, [(name, text) for name, text in rows if text.strip()]))
    return made


def _links(run_id: str, view: View) -> str:
    """Return the links of a run as they were asked for and made."""
    seen = dict.fromkeys(
        f"{c.link}: {c.rtt_ms:g} ms, {f'{c.mbit_s:g} Mbit/s' if c.mbit_s else 'no limit'}, made by {c.link_how}"
        for c in view.cells if c.run_id == run_id
    )  # fmt: skip
    return "; ".join(seen)
