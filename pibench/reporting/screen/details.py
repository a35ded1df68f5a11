"""Everything that a record holds, on a wide screen: `pibench show last`.

First every measured case, network by network; then, for each setting, the ladder: what each ReLU budget buys under each
protocol, and the fitted price of 1,000 ReLUs. A speed without correctness is called INVALID and compared with nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pibench.mpc.spec import is_private, order
from pibench.numbers import bounds, count, digits, interval, seconds, size
from pibench.records.prices import Joint
from pibench.records.record import Record
from pibench.reporting.captions import interval_title, latency_interval
from pibench.reporting.cells import ORIGINS, Cell, Ladder, Setting
from pibench.reporting.rivals import ranking_blocks
from pibench.reporting.screen.phases import phases
from pibench.reporting.screen.plain import plain_table
from pibench.reporting.view import View, view_of

MISSING = "-"
WIDE = 120
EXPLAINED = 0.8  # R^2 below this: the line says little
IDLE_S = 1e-3  # an offline phase shorter than this, without traffic, made nothing
_STYLE = {"done": "green", "invalid": "bold red", "failed": "bold red"}


def answer(record: Record) -> RenderableType:
    """Return everything that the screen ends with."""
    view = view_of([record])
    blocks: list[RenderableType] = [_head(record), Text()]
    groups = _grouped(view.cells)
    for place, cells in groups.items():
        title = [Text(f"  {where(place)}", style="bold")] if len(groups) > 1 else []
        blocks += [*title, *_cases(cells, interval_title(view.cells))]
        blocks += [*map(Text, phases(cells, WIDE)), Text()]
    ladders = view.ladders()
    for place in groups:
        blocks += _frontier(place, [ladder for ladder in ladders if place_of(ladder.setting) == place], view)
    return Group(*blocks, *_notes(view, record))


def _head(record: Record) -> Text:
    """One line: which run, where."""
    machine, versions = record.machine, record.versions
    text = Text().append(record.suite.name, style="bold")
    text.append(f"  {record.created_utc}  {machine.cores} x {machine.cpu or 'unknown processor'}")
    text.append(f"  torch {versions.get('torch')}")
    if not record.finished:
        text.append("  NOT FINISHED", style="bold red")
    return text


# -- every case -------------------------------------------------------------------------------------------------------


def _cases(cells: Sequence[Cell], interval_column: str) -> list[RenderableType]:
    """Network by network: a line of what it is, then a row a protocol."""
    networks = dict.fromkeys(cell.network for cell in sorted(cells, key=lambda c: -c.relu_count))
    blocks: list[RenderableType] = [_detail([], interval_column, header=True)]
    for network in networks:
        rows = sorted((c for c in cells if c.network == network), key=lambda c: order(c.protocol))
        blocks += [_network_line(rows), _detail(rows, interval_column, header=False)]
    return blocks


def _network_line(rows: Sequence[Cell]) -> Text:
    cell = max(rows, key=lambda c: (c.online is not None, c.macs))
    text = Text().append(cell.network, style="bold cyan")
    if cell.macs:
        text.append(f"  {count(cell.relu_count)} ReLUs", style="bold")
        text.append(f"  {digits(cell.macs / 1e6)} M MACs")
    text.append(f"  {_accuracy(cell)}" if cell.macs else "  not prepared")
    return text


def _accuracy(cell: Cell) -> str:
    if cell.score is None:
        return "accuracy not known (no trained weights or no data set)"
    return f"{cell.score.percent:.1f} % of {count(cell.score.n)} images ({ORIGINS[cell.score.origin]})"


def _detail(rows: Sequence[Cell], interval_column: str, *, header: bool) -> Table:
    """Rows of one network; widths are fixed, so that the tables of all networks line up."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=header, header_style="dim")
    for title, width, right in (
        ("  protocol", 18, False), ("online", 8, True), (interval_column, 16, False), ("sent by S", 9, True),
        ("by client", 9, True), ("rounds", 7, True), ("ReLU", 5, True), ("wait", 5, True), ("offline", 8, True),
        ("off. data", 9, True), ("error", 7, True), ("valid", 7, False),
    ):  # fmt: skip
        heading = Text(title)  # not a str: rich would take [range] for markup
        table.add_column(heading, min_width=width, max_width=width, justify="right" if right else "left", no_wrap=True)
    for cell in rows:
        table.add_row(*_detail_row(cell), style="dim" if cell.online is None else "")
    return table


def _detail_row(cell: Cell) -> list[RenderableType]:
    name = cell.case_id.split("/")[-4] if cell.case_id.count("/") >= 4 else cell.protocol
    state = Text({"done": "yes"}.get(cell.status, cell.status.upper()), style=_STYLE.get(cell.status, "yellow"))
    if cell.online is None:
        return [f"  {name}", *[MISSING] * 10, state]
    offline = cell.offline
    worked = offline is not None and (offline.sent_bytes > 0 or offline.seconds > IDLE_S)
    offline_s = seconds(offline.seconds) if offline and worked else MISSING
    offline_bytes = size(offline.sent_bytes) if offline and worked else MISSING
    return [
        f"  {name}", Text(seconds(cell.online.point), style="bold"), interval(cell.online),
        _bytes(cell.server_bytes), _bytes(cell.client_bytes), str(cell.rounds), _share(cell.relu_share),
        _share(cell.kinds["waiting"] / cell.online_s), offline_s, offline_bytes, _error(cell.logit_error), state,
    ]  # fmt: skip


def _share(value: float | None) -> str:
    return f"{100 * value:.0f} %" if value is not None and math.isfinite(value) else MISSING


def _bytes(value: int | None) -> str:
    return MISSING if value is None else size(value)


def _error(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.1e}" if 0 < value < 1e-4 else f"{value:.4f}" if value < 10 else f"{value:.3g}"


# -- the ladder -------------------------------------------------------------------------------------------------------


def _frontier(place: Setting, ladders: Sequence[Ladder], view: View) -> list[RenderableType]:
    """Return what each ReLU budget buys: a row a network, a column a protocol, and the price of 1,000 ReLUs below."""
    if not ladders:
        return []
    ordered = sorted(ladders, key=lambda ladder: order(ladder.setting.protocol))
    cells = {(c.network, c.protocol): c for c in view.cells if place_of(c.setting) == place}
    rows = sorted({c.network: c for c in cells.values() if c.usable}.values(), key=lambda c: (-c.relu_count, -c.macs))
    protocols = list(dict.fromkeys(ladder.setting.protocol for ladder in ordered))
    table = plain_table()
    table.add_column("ReLUs", justify="right", no_wrap=True)
    table.add_column("network", no_wrap=True)
    table.add_column("accuracy", justify="right", no_wrap=True)
    for protocol in protocols:
        table.add_column(protocol, justify="right", no_wrap=True)
    for row in rows:
        score = f"{row.score.percent:.1f} %" if row.score else MISSING
        entries = [_entry(cells, row.network, protocol, protocols) for protocol in protocols]
        table.add_row(count(row.relu_count), row.network, score, *entries)
    title = Text("What a ReLU budget buys: online latency", style="bold")
    title.append(f"  {where(place)}", style="not bold")
    if best := _reference(protocols):
        title.append(f"  (x: of {best})", style="dim not bold")
    return [title, Padding(table, (0, 0, 0, 2)), *_prices(ordered), Text(), *ranking_blocks(ordered)]


def _entry(cells: dict[tuple[str, str], Cell], network: str, protocol: str, protocols: Sequence[str]) -> Text:
    """One latency, with its ratio to the reference protocol on the same network."""
    cell = cells.get((network, protocol))
    if cell is None or not cell.usable:
        word = MISSING if cell is None else cell.status.upper()
        return Text(word, style="dim" if cell is None else _STYLE.get(cell.status, "yellow"))
    text, best = Text(seconds(cell.online_s), style="bold"), _reference(protocols)
    reference = cells.get((network, best)) if best else None
    if reference is not None and reference.usable and protocol != best:
        text.append(f" ({digits(cell.online_s / reference.online_s, 2)}x)", style="not bold")
    return text


def _reference(protocols: Sequence[str]) -> str | None:
    """Return the protocol that others are compared with: the first private one, where there is anything to compare."""
    private = [name for name in protocols if is_private(name)]
    return private[0] if private and len(protocols) > 1 else None


def _prices(ladders: Sequence[Ladder]) -> list[RenderableType]:
    """Return the fitted price of 1,000 ReLUs, protocol by protocol, and how well a line explains the ladder."""
    fitted = [ladder for ladder in ladders if ladder.fit.n >= 2 and math.isfinite(ladder.fit.slope_s)]
    if not fitted:
        return []
    table = _price_table("1,000 ReLUs cost", "all else costs", "R^2", "networks")
    table.add_column("", no_wrap=True)
    for ladder in fitted:
        fit = ladder.fit
        price = Text(seconds(fit.slope_s), style="bold" if ladder.explains else "")
        table.add_row(
            ladder.setting.protocol, price, seconds(fit.intercept_s), f"{fit.r2:.3f}", str(fit.n),
            Text(_doubt(ladder), style="yellow"),
        )  # fmt: skip
    heading = Text("The price of a ReLU: a line through the medians above", style="bold")
    return [Text(), heading, Padding(table, (0, 0, 0, 2)), *_joint_prices(fitted)]


def _joint_prices(ladders: Sequence[Ladder]) -> list[RenderableType]:
    """Return the price of a ReLU beside that of a multiplication: reshaping a network removes both at once."""
    table = _price_table("1,000 ReLUs", "[95 % CI]", "a million MACs", "[95 % CI]", "R^2")
    planes = [(ladder.setting.protocol, ladder.joint) for ladder in ladders if ladder.joint]
    if not planes:
        return []
    for protocol, joint in planes:
        relu, mac = (seconds(price) if joint.firm else MISSING for price in (joint.relu_s, joint.mmac_s))
        around = bounds(joint.relu_s, *joint.relu_interval), bounds(joint.mmac_s, *joint.mmac_interval)
        table.add_row(protocol, relu, around[0], mac, around[1], f"{joint.r2:.3f}")
    heading = Text("The same with multiplications priced apart: a plane through the medians", style="bold")
    note = [Text(f"  {MISSING}: {why}, so the plane prices neither", style="dim")] if (why := _unsure(planes)) else []
    return [Text(), heading, Padding(table, (0, 0, 0, 2)), *note]


def _unsure(planes: Sequence[tuple[str, Joint]]) -> str:
    """Say why some plane prices nothing: an interval includes 0, or lies below it."""
    doubted = [i for _, joint in planes if not joint.firm for i in (joint.relu_interval, joint.mmac_interval)]
    around = any(low <= 0 <= high for low, high in doubted)
    below = any(high < 0 for _, high in doubted)
    return " or ".join(["an interval includes 0"] * around + ["a price would be below 0"] * below)


def _price_table(*numbers: str) -> Table:
    """Return an empty table: a protocol, then columns of numbers."""
    table = plain_table()
    table.add_column("protocol", no_wrap=True)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _doubt(ladder: Ladder) -> str:
    """Say why a price should not be quoted, or nothing."""
    fit = ladder.fit
    if fit.n < 3:
        return "two networks always lie on a line"
    if fit.r2 < EXPLAINED:
        return "ReLUs alone do not explain the latency"
    if fit.slope_interval[0] <= 0:
        return "too few networks to be sure"
    return ""


# -- notes ------------------------------------------------------------------------------------------------------------


def _notes(view: View, record: Record) -> Iterable[RenderableType]:
    """Yield what the reader must know: cases without a result and why, missing accuracy, what the columns mean."""
    for cell in view.cells:
        if cell.status != "done":
            line = Text().append(f"{cell.case_id}: {cell.status.upper()}", style=_STYLE.get(cell.status, "yellow"))
            line.append(f"  {(cell.error or 'no reason is recorded').splitlines()[0]}")
            yield line
    missing = {case.network.card: case.network.note for case in record.cases if case.network.note}
    for network, note in missing.items():
        yield Text(f"{network}: {note}", style="dim")
    if spread := latency_interval(view.cells):
        yield Text(
            f"Medians; {spread}. S: server. error: worst logit against plaintext. ReLU, wait: shares of the online "
            "time. Offline figures are for one inference.",
            style="dim",
        )


# -- settings ---------------------------------------------------------------------------------------------------------


def place_of(setting: Setting) -> Setting:
    """Return a setting but for its protocol: what stands in one table."""
    return dataclasses.replace(setting, protocol="")


def where(setting: Setting) -> str:
    """Return a setting in words."""
    data = f"{setting.dataset}, " if setting.dataset else ""
    threads = "1 thread" if setting.threads == 1 else f"{setting.threads} threads"
    return f"{data}{setting.link}, {setting.device}, batch {setting.batch}, {threads} a party"


def _grouped(cells: Sequence[Cell]) -> dict[Setting, list[Cell]]:
    groups: dict[Setting, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(place_of(cell.setting), []).append(cell)
    return groups
