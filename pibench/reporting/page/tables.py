"""The tables of a report: rows of texts with the values that they sort by; an empty cell is an empty cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pibench.numbers import axis_seconds, percent, seconds, short, size, times
from pibench.reporting.captions import latency_interval
from pibench.reporting.cells import ORIGINS, Cell, Ladder
from pibench.reporting.onpaper.costcheck import FITS_WITHIN, beyond, checks
from pibench.reporting.onpaper.costmodel import SYSTEMS, WIRES, estimate
from pibench.reporting.page.draw_frontier import published_points
from pibench.reporting.page.theme import METHOD_TITLES
from pibench.reporting.rivals import FACTOR, RULE, rankings
from pibench.reporting.view import View
from pibench.reporting.whatif import Option, best_within, of_setting, options, workload_of_cell


@dataclass(frozen=True)
class Entry:
    """One cell: what it says and what it sorts by."""

    text: str
    value: float | str | None = None
    note: str = ""  # small print beside it


@dataclass(frozen=True)
class Table:
    """A table; `numeric` columns align to the right."""

    key: str
    title: str
    note: str
    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Entry, ...], ...]
    marked: int | None = None  # the row that the headline speaks of


def table_of(
    key: str, title: str, note: str, columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[Entry]],
    marked: int | None = None,
) -> Table:  # fmt: skip
    """Return a table of columns (heading, whether numeric) and rows."""
    return Table(
        key, title, note, tuple(c[0] for c in columns), tuple(c[1] for c in columns),
        tuple(tuple(row) for row in rows), marked,
    )  # fmt: skip


def words(text: str | None) -> Entry:
    """Return an entry that sorts as text."""
    return Entry(text or "", text or "")


def count(value: int | None) -> Entry:
    """Return an entry for a count."""
    return Entry("" if value is None else f"{value:,}", value)


def duration(value: float | None, low: float | None = None, high: float | None = None) -> Entry:
    """Return an entry for seconds, with an interval where there is one."""
    if value is None or value != value:
        return Entry("")
    note = f"{seconds(low)} to {seconds(high)}" if low is not None and high is not None else ""
    return Entry(seconds(value), value, note)


def amount(value: float | None) -> Entry:
    """Return an entry for bytes."""
    return Entry(size(value) if value is not None else "", value)


def accuracy(cell: Cell) -> Entry:
    """Return an entry for a measured accuracy, with n."""
    score = cell.score
    if score is None:
        return Entry("")
    return Entry(f"{score.percent:.2f}", score.percent, f"of {score.n:,} images, {ORIGINS[score.origin]}")


def relu_share(cell: Cell) -> Entry:
    """Return the share of ReLUs in the online time, their waiting included."""
    share = cell.relu_share
    return Entry("" if share is None else percent(share), share)


def budget_table(ladder: Ladder, chosen: Cell | None) -> Table:
    """Return the answer by network, with published figures apart from measured ones."""
    columns = [
        ("Network", False), ("ReLUs", True), ("Accuracy, %", True), ("Online", True), ("Faster", True),
        ("Sent a party", True), ("Rounds", True), ("ReLU share", True), ("Method", False), ("Published", False),
    ]  # fmt: skip
    rows = []
    for cell in ladder.cells:
        online = cell.online
        ratio = ladder.full.online_s / cell.online_s
        rows.append((
            words(cell.network), count(cell.relu_count), accuracy(cell),
            duration(cell.online_s, online.low, online.high) if online else Entry(""),
            Entry("" if cell is ladder.full else times(ratio), ratio), amount(cell.sent_bytes), count(cell.rounds),
            relu_share(cell), words(METHOD_TITLES.get(cell.method, cell.method)), _published(cell),
        ))  # fmt: skip
    marked = ladder.cells.index(chosen) if chosen is not None and chosen is not ladder.full else None
    note = (
        f"Medians, {latency_interval(ladder.cells)}. Faster: than {ladder.reference}. Sent: online payload of the "
        "party that sends more. ReLU share: of the online time, waiting included. Published figures are others'."
    )
    return table_of("budgets", "By ReLU budget", note, columns, rows, marked)


def rival_table(ladder: Ladder) -> Table:
    """Return the methods' places within each band of budgets."""
    columns = [
        ("Band", True), ("Place", True), ("Method", False), ("Network", False), ("ReLUs", True),
        ("Accuracy, %", True), ("Online", True),
    ]  # fmt: skip
    rows = [
        (
            Entry(f"{short(ranking.budget / FACTOR)} to {short(ranking.budget)}", ranking.budget),
            count(ranking.place(cell)), words(METHOD_TITLES.get(cell.method, cell.method)),
            words(cell.network), count(cell.relu_count), accuracy(cell), duration(cell.online_s),
        )
        for ranking in rankings(ladder) for cell in ranking.cells
    ]  # fmt: skip
    return table_of("rivals", "Methods at equal budgets", f"{RULE}.", columns, rows)


def _published(cell: Cell) -> Entry:
    points = published_points([cell])
    if not points:
        return Entry("")
    first = points[0]
    parts = [f"{first.percent:g} %" if first.percent is not None else "", seconds(first.online_s)]
    return Entry(", ".join(p for p in parts if p), first.percent, first.source)


def price_table(view: View) -> Table:
    """Return the price of 1,000 ReLUs in every setting."""
    columns = [
        ("Protocol", False), ("Link", False), ("1,000 ReLUs", True), ("Without any", True), ("R²", True),
    ]  # fmt: skip
    rows = []
    for ladder in sorted(view.ladders(), key=lambda ladder: (ladder.setting.link, -ladder.fit.slope_s)):
        fit, setting = ladder.fit, ladder.setting
        if fit.n < 3:
            continue
        rows.append((
            words(setting.protocol), words(setting.link),
            duration(fit.slope_s, *fit.slope_interval), duration(fit.intercept_s),
            Entry(f"{fit.r2:.3f}", fit.r2, _networks(ladder)),
        ))  # fmt: skip
    note = (
        "Least squares over the networks of a setting. A low R² means that something else than ReLUs decides there. "
        "Without any: a batch of a network without ReLUs."
    )
    return table_of("prices", "The price of 1,000 ReLUs", note, columns, rows)


def _networks(ladder: Ladder) -> str:
    setting = ladder.setting
    batch = f", batch {setting.batch}" if setting.batch > 1 else ""
    device = f", {setting.device}" if setting.device != "cpu" else ""
    return f"n = {ladder.fit.n}, {setting.dataset or 'no data'}{batch}{device}"


def case_table(view: View) -> Table:
    """Return every case of the records, also those that failed."""
    columns = [
        ("Network", False), ("Protocol", False), ("Link", False), ("Device", False), ("Batch", True), ("ReLUs", True),
        ("Online", True), ("Server sent", True), ("Client sent", True), ("Rounds", True), ("Offline", True),
        ("Offline sent", True), ("Agreement", True), ("Logit error", True), ("n", True), ("Status", False),
    ]  # fmt: skip
    rows = [_case_row(cell) for cell in view.cells]
    note = (
        "Bytes are payload by sender. Agreement: images whose private class is the plaintext one. n: sessions × "
        "inferences. The speed of a case that is not the network's function is left out."
    )
    return table_of("cases", "All cases", note, columns, rows)


def _case_row(cell: Cell) -> tuple[Entry, ...]:
    online, fine = cell.online, cell.usable
    right, n = cell.agreeing or (0, 0)
    status = cell.status + (f": {cell.error}" if cell.error else "")
    return (
        words(cell.network), words(cell.protocol), words(cell.link), words(cell.device), count(cell.batch),
        count(cell.relu_count), duration(online.point, online.low, online.high) if fine and online else Entry(""),
        amount(cell.server_bytes), amount(cell.client_bytes), count(cell.rounds),
        duration(cell.offline.seconds) if cell.offline else Entry(""),
        amount(cell.offline.sent_bytes) if cell.offline else Entry(""),
        Entry(f"{right} of {n}", right / n) if n else Entry(""),
        Entry(f"{cell.logit_error:.1e}", cell.logit_error) if cell.logit_error is not None else Entry(""),
        Entry(f"{online.n_sessions} × {online.n // max(online.n_sessions, 1)}", online.n) if online else Entry(""),
        words(status),
    )  # fmt: skip


def paper_table(cells: Sequence[Cell]) -> Table:
    """Return what every system on paper would cost for some networks."""
    columns = [
        ("Network", False), ("System, on paper", False), ("Online, no wire", True), ("LAN", True), ("WAN", True),
        ("Online bytes", True), ("Offline, no wire", True), ("Offline bytes", True), ("Stored by client", True),
    ]  # fmt: skip
    rows = []
    for cell in cells:
        for name, system in SYSTEMS.items():
            load = workload_of_cell(cell)
            near, lan, wan = (estimate(load, name, WIRES[w]) for w in ("loopback", "lan", "wan"))
            rows.append((
                words(cell.network), words(system.title), duration(near.online.total_s, *near.online_range_s),
                duration(lan.online.total_s), duration(wan.online.total_s),
                amount(near.online.up_bytes + near.online.down_bytes),
                duration(near.offline.total_s, *near.offline_range_s),
                amount(near.offline.up_bytes + near.offline.down_bytes), _stored(near.storage_bytes),
            ))  # fmt: skip
    note = (
        "Computed from published constants (AMD EPYC 7502), nothing measured here. Ciphertexts are left out of the "
        "offline bytes: a record does not hold layer shapes; pibench estimate CARD counts them."
    )
    warnings = {c.network: warning for c in cells if (warning := beyond(workload_of_cell(c)))}
    if warnings:
        note += f" {', '.join(warnings)}: {next(iter(warnings.values()))}."
    return table_of("paper", "Systems on paper", note, columns, rows)


def _stored(by_side: dict[str, float]) -> Entry:
    return Entry(size(by_side["client"]), by_side["client"], f"server {size(by_side['server'])}")


def check_table() -> Table:
    """Return the cost model beside published latencies."""
    columns = [
        ("Network", False), ("ReLUs", True), ("Published", True), ("Model", True), ("Error", True), ("Role", False),
        ("Source", False),
    ]  # fmt: skip
    rows = [
        (
            words(c.network), count(c.relu_count), duration(c.published_s), duration(c.model_s),
            Entry(f"{c.error:+.0%}" + ("" if c.fits else " (does not fit)"), c.error),
            Entry(c.role, c.role, c.note.split(":")[0]), Entry("", c.source, c.source),
        )
        for c in checks()
    ]  # fmt: skip
    note = f"A check is independent of the constants; it fits within {FITS_WITHIN:.0%}."
    return table_of("checks", "The cost model against published latencies", note, columns, rows)


DEADLINES_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def whatif_table(view: View, ladder: Ladder, extra: Sequence[tuple[str, float]] = ()) -> Table | None:
    """Return the most accurate network that makes a deadline on a link, for round deadlines and the asked ones."""
    from pibench.reporting.whatif import wire_named

    wires = list(dict.fromkeys([c.link for c in view.cells if c.usable] + ["lan", "wan"] + [w for w, _ in extra]))
    found = {name: of_setting(options(view, wire_named(name)), ladder.setting) for name in wires if _known(name)}
    deadlines = sorted({d for d in DEADLINES_S if _decides(found.values(), d)} | {d for _, d in extra})
    if not deadlines or not any(o.percent is not None for row in found.values() for o in row):
        return None
    asked = {deadline for _, deadline in extra}
    deadlines = _telling(found, deadlines, asked)
    rows = [
        [words(name), *(_choice(best_within(row, deadline)) for deadline in deadlines)]
        for name, row in found.items() if row
    ]  # fmt: skip
    columns = [("Link", False), *((f"within {axis_seconds(d)}", False) for d in deadlines)]
    note = (
        "The most accurate network whose online latency makes the deadline, under any private protocol of these "
        "records. Predicted: loopback measurement plus bytes over the rate and, a round, half a round trip (over "
        "gloo: two). Empty: none makes it."
    )
    return table_of("whatif", "What if there is a deadline", note, columns, rows)


def _telling(found: dict[str, list[Option]], deadlines: Sequence[float], asked: set[float]) -> list[float]:
    """Leave out deadlines at which no link's answer changes, but none that was asked for."""
    kept: list[float] = []
    last: list[Option | None] = [None] * len(found)
    for deadline in deadlines:
        now = [best_within(row, deadline) for row in found.values()]
        if now != last or deadline in asked:
            kept.append(deadline)
        last = now
    return kept


def _known(name: str) -> bool:
    from pibench.errors import UsageError
    from pibench.reporting.whatif import wire_named

    try:
        wire_named(name)
    except UsageError:
        return False
    return True


def _decides(rows: Iterable[Sequence[Option]], deadline_s: float) -> bool:
    """Whether a deadline leaves some but not all options on some link."""
    return any(row and row[0].online_s <= deadline_s and row[-1].online_s > deadline_s / 3.5 for row in rows)


def _choice(option: Option | None) -> Entry:
    if option is None or option.percent is None:
        return Entry("")
    note = f"{option.percent:.1f} %, {seconds(option.online_s)}, {option.system}, {option.basis}"
    return Entry(option.network, option.percent, note)
