"""`pibench choose`: the network for a deadline on a link, the nearest miss, and what would fit; nothing is run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pibench.commands.arguments import duration, percentage
from pibench.errors import EXIT_NOTHING_SELECTED, EXIT_OK, UsageError
from pibench.registry import DATASETS

if TYPE_CHECKING:
    from pibench.records.record import Record
    from pibench.reporting.choose import Candidate, Choice
    from pibench.reporting.onpaper.costmodel import Wire

THOUSAND = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("--deadline", type=duration, metavar="TIME", help="online time of one inference, such as 300ms or 1.5s")
    add("--link", default="wan", help="loopback, lan, wan, or round trip and rate: 80ms,50mbit (default wan)")
    add("--accuracy", type=percentage, metavar="PERCENT", help="at least so much, such as 65%%")
    add("--dataset", choices=DATASETS, default="cifar100", metavar="NAME", help="which task (default cifar100)")
    add("--protocol", metavar="NAME", help="this protocol alone")
    add("--record", action="append", metavar="RECORD", help="look into these records (default: the last ones here)")
    add("--core-hour", type=float, metavar="PRICE", help="price of a core for an hour: what 1,000 inferences cost")
    add("--gigabyte", type=float, metavar="PRICE", help="price of a gigabyte sent")
    add("--json", action="store_true", help="print data instead of sentences")
    add("--write-costs", type=Path, metavar="FILE", help="write what a --record says, as zoo/costs.json holds it")


def run(args: argparse.Namespace) -> int:
    """Answer; exit status 5 where no network fits."""
    from pibench.reporting.choose import choose, costs_of
    from pibench.reporting.whatif import wire_named

    records = _records(args.record)
    if args.write_costs:
        args.write_costs.write_text(json.dumps(costs_of(records[-1]), indent=1) + "\n", encoding="utf-8")
        return EXIT_OK
    wire = wire_named(args.link)
    found = [c.over(wire) for c in _candidates(records, wire, args)]
    if not found:
        raise UsageError(
            f"nothing is known of a trained network for {args.dataset}",
            remedy="`pibench zoo` lists the shipped ones; a record of your own counts too",
        )
    choice = choose(found, args.deadline, args.accuracy)
    if args.json:
        print(json.dumps(_data(choice, wire, args)))
    else:
        for line in _lines(choice, found, wire, args):
            print(line)
    return EXIT_OK if choice.fits else EXIT_NOTHING_SELECTED


def _records(names: list[str] | None) -> list[Record]:
    from pibench.records.files import open_record
    from pibench.records.store import record_paths
    from pibench.reporting.choose import load_recent

    return [open_record(name) for name in names] if names else load_recent(record_paths())


def _candidates(records: list[Record], wire: Wire, args: argparse.Namespace) -> list[Candidate]:
    """Return what was measured here, and of the zoo what was not."""
    from pibench.records.machine import machine
    from pibench.reporting.choose import record_candidates, zoo_candidates

    here = machine().key
    known = record_candidates(records, here, wire)
    names = {c.key for c in known}
    both = [*known, *(c for c in zoo_candidates() if c.key not in names)]
    return [c for c in both if c.dataset == args.dataset and args.protocol in (None, c.protocol)]


def _lines(choice: Choice, found: list[Candidate], wire: Wire, args: argparse.Namespace) -> list[str]:
    from pibench.numbers import seconds
    from pibench.reporting.choose import would_fit
    from pibench.reporting.screen.fitting import screen_width, wrapped

    within = f" within {seconds(args.deadline)}" if args.deadline else ""
    least = f" of at least {args.accuracy:g} %" if args.accuracy else ""
    where = wire.name if wire.name == args.link and "," in wire.name else f"{wire.name} ({_link(wire)})"
    lines = []
    if choice.fits is None:
        lines.append(f"No network{least} makes it{within} over {where}: {len(found)} were looked at.")
    else:
        lines.append(f"{_named(choice.fits)}{within} over {where}: {seconds(choice.fits.online_s)}.")
        lines += _details(choice.fits, args)
    if choice.miss is not None and args.deadline:
        more = " or ".join(would_fit(choice.miss, wire, args.deadline))
        lines.append(f"Nearest miss: {_named(choice.miss)}, {seconds(choice.miss.online_s)}. It would fit {more}.")
    width = screen_width()
    return [part for line in lines for part in wrapped(line, width)]


def _link(wire: Wire) -> str:
    rate = f"{wire.down_mbit_s:g}mbit" if wire.down_mbit_s else "no limit"
    return f"{wire.rtt_ms or 0:g}ms,{rate}"


def _named(one: Candidate) -> str:
    chosen = ", ".join(f"{name}: {_as_written(value)}" for name, value in (one.options or {}).items())
    protocol = f"{one.protocol} ({chosen})" if chosen else one.protocol
    return f"{one.network} ({one.percent:.1f} % of {one.n:,} images, {one.relu_count:,} ReLUs) under {protocol}"


def _details(one: Candidate, args: argparse.Namespace) -> list[str]:
    """Say how sure it is, its percentiles, its throughput, and what a thousand inferences take beforehand."""
    from pibench.mpc.spec import spec_of
    from pibench.numbers import seconds, size

    trust = spec_of(one.protocol).arrangement(one.options or {}).trust.line
    if one.samples:
        marks = ", ".join(f"{name} {seconds(value)}" for name, value in one.percentiles().items())
        basis = f"Measured over {len(one.samples)} inferences: {marks}"
    else:
        wire = f"{seconds(one.wire_s)} on the wire ({one.rounds} rounds)"
        basis = f"Predicted: {seconds(one.local_s)} locally and {wire}"
    many = costs_of_many(one, args.core_hour, args.gigabyte)
    price = f"; {many['price']:.4g} for cores and traffic." if "price" in many else "."
    stored = f"{size(many['offline_bytes'])} offline (stored until used), {size(many['online_bytes'])} online"
    return [
        f"{basis}; {one.source}.",
        f"Throughput at batch {one.batch}: {one.batch / one.online_s:.3g} images a second, one after another.",
        f"1,000 inferences: {seconds(many['offline_s'])} beforehand, {stored}{price}",
        f"Trust: {trust}.",
    ]


def costs_of_many(one: Candidate, core_hour: float | None, gigabyte: float | None) -> dict[str, float]:
    """Return what 1,000 inferences (of a batch) take; money where prices are given, a core a party and phase."""
    sent = THOUSAND * (one.server_bytes + one.client_bytes)
    made: dict[str, float] = {
        "offline_s": THOUSAND * one.offline_s, "offline_bytes": THOUSAND * one.offline_bytes, "online_bytes": sent,
    }  # fmt: skip
    if core_hour is not None or gigabyte is not None:
        hours = 2 * THOUSAND * (one.offline_s + one.online_s) / 3600
        made["price"] = hours * (core_hour or 0.0) + (sent + made["offline_bytes"]) / 1e9 * (gigabyte or 0.0)
    return made


def _data(choice: Choice, wire: Wire, args: argparse.Namespace) -> dict[str, Any]:
    def plain(one: Candidate | None) -> dict[str, Any] | None:
        if one is None:
            return None
        names = ("network", "dataset", "percent", "n", "relu_count", "protocol", "rounds", "online_s", "source")
        many = costs_of_many(one, args.core_hour, args.gigabyte)
        facts = {name: getattr(one, name) for name in names}
        return {**facts, "measured": bool(one.samples), "percentiles": one.percentiles(), "thousand": many}

    asked = {"deadline_s": args.deadline, "accuracy_percent": args.accuracy, "link": _link(wire)}
    return {"asked": asked, "fits": plain(choice.fits), "nearest_miss": plain(choice.miss)}


def _as_written(value: object) -> str:
    """Return a value as a suite writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
