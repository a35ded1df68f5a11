"""The census of a network on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from pibench.numbers import seconds, size

if TYPE_CHECKING:
    from pibench.networks.card import Card
    from pibench.networks.census import Census, Site


def stage_table(counted: Census) -> Table:
    """Return ReLUs and MACs by stage; MACs also as papers count them, after merging."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("stage", "ReLUs", "share", "MACs", "in papers"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    merged = counted.macs_merged_by_stage
    for stage in counted.stages:
        relus = counted.relus_by_stage[stage]
        share = f"{100 * relus / counted.relu_count:.1f} %" if counted.relu_count else "-"
        table.add_row(
            stage or "-", f"{relus:,}", share, millions(counted.macs_by_stage[stage]), millions(merged[stage])
        )
    table.add_section()
    table.add_row(
        "all", f"{counted.relu_count:,}", "", millions(counted.macs), millions(counted.macs_merged), style="bold"
    )
    return table


def site_table(counted: Census) -> Table:
    """Return every activation site with its count and shape."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("site", "stage", "kind", "evaluated", "of", "shape"):
        table.add_column(heading, justify="right" if heading in {"evaluated", "of"} else "left")
    for site in counted.sites:
        shape = "x".join(str(size) for size in site.shape)
        table.add_row(site.site, site.stage, site.kind, f"{site.count:,}", f"{site.elements:,}", shape)
    return table


def counts(counted: Census) -> Iterator[str]:
    """Yield what is to be said beside the counts of any network."""
    yield f"{counted.relu_rounds} ReLU rounds, {counted.parameters:,} parameters (BatchNorm folded)"
    doubled = [sites for sites in _by_place(counted).values() if len(sites) > 1 and len({s.count for s in sites}) == 1]
    if twice := sum(sites[0].count for sites in doubled):
        yield f"{twice:,} scalars are compared twice (ReLU6, or a bound on both sides), and counted so"
    if counted.poly_count:
        yield f"{counted.poly_count:,} elements under a polynomial"
    if counted.maxpool_comparisons:
        yield f"{counted.maxpool_comparisons:,} comparisons in max pools, not in the ReLU count"


def _by_place(counted: Census) -> dict[str, list[Site]]:
    found: dict[str, list[Site]] = {}
    for site in counted.sites:
        if site.kind == "relu":
            found.setdefault(site.site, []).append(site)
    return found


def lines(card: Card, counted: Census, facts: dict[str, Any]) -> Iterator[str]:
    """Yield what is to be said beside the counts, in rich's markup."""
    yield (
        f"{counted.relu_rounds} ReLU rounds, {counted.parameters:,} parameters (BatchNorm folded), "
        f"{card.dataset}, input {'x'.join(map(str, card.network.input))}"
    )
    if counted.poly_count:
        yield f"{counted.poly_count:,} elements under a polynomial"
    if counted.maxpool_comparisons:
        yield f"{counted.maxpool_comparisons:,} comparisons in max pools, not in the ReLU count"
    if card.provenance == "reconstructed" or card.note:
        yield f"{card.provenance}: {escape(card.note or 'see the card')}"
    for item in card.published:
        parts = [f"{item.accuracy_percent} %" if item.accuracy_percent is not None else ""]
        parts.append(f"{item.online_s} s online" if item.online_s is not None else "")
        parts.append(f"at {item.relu_count:,} ReLUs" if item.relu_count is not None else "")
        yield f"published: {', '.join(part for part in parts if part)} ({escape(item.source)})"
    if facts["merged"]:
        yield escape(facts["merged"])
    yield _checkpoint(facts["checkpoint"])


def prediction(predicted: dict[str, Any] | None) -> Iterator[str]:
    """Yield what a network would cost, in units that people read, the total first."""
    rows = dict(predicted or {})
    if not rows:
        return
    link = next(name for name in rows if name.startswith("latency on ")).removeprefix("latency ").removesuffix(", s")
    total = f"online {link}, s"
    wire = sum(value for name, value in rows.items() if name.startswith(("latency on ", "transfer on ")))
    if total in rows:
        yield f"predicted online {link}: {seconds(rows.pop(total))}"
    else:
        yield f"predicted online {link}: at least {seconds(wire)} on the wire, computing not known"
    for name, value in rows.items():
        plain, _, unit = name.rpartition(", ")
        write = {"s": seconds, "bytes": size}.get(unit)
        yield f"  {plain}: {write(value)}" if write and not isinstance(value, str) else f"  {plain or name}: {value}"


def _checkpoint(trained: dict[str, Any] | None) -> str:
    if trained is None:
        return "no checkpoint: `pibench train` makes one"
    accuracy = trained["accuracy"]
    measured = "accuracy not known" if accuracy is None else f"{accuracy:.2f} % of {trained['n_test']:,} test images"
    return f"checkpoint: {escape(trained['path'])}, {measured}"


def millions(macs: int) -> str:
    """Return a number of MACs in millions."""
    return f"{macs / 1e6:,.2f}M"
