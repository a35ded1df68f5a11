"""`pibench estimate CARD`: what a system on paper would cost for a network, from published constants."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pibench.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from pibench.reporting.onpaper.costmodel import PaperEstimate, Workload


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("cards", nargs="*", metavar="CARD", help="network card, by name or file")
    parser.add_argument("--system", default="delphi", help="delphi, delphi-lphe, client-garbler, circa, or all")
    parser.add_argument("--link", default="loopback", help="loopback, lan, wan, asplos, or as 40ms,100mbit")
    parser.add_argument(
        "--client", choices=["server-class", "atom"], default="server-class", help="the client's machine"
    )
    parser.add_argument("--check", action="store_true", help="set the model beside published latencies")
    parser.add_argument("--constants", action="store_true", help="list the constants, their ranges and sources")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the estimates; nothing is measured."""
    from pibench.reporting.onpaper.costmodel import SYSTEMS, estimate
    from pibench.reporting.whatif import wire_named

    if not (args.cards or args.check or args.constants):
        raise UsageError(
            "no card is named", remedy="name one (`pibench ls` lists them), or give --check or --constants"
        )
    wire = wire_named(args.link)
    systems = list(SYSTEMS) if args.system == "all" else [args.system]
    atom = args.client == "atom"
    made = [estimate(_workload(card), system, wire, atom_client=atom) for card in args.cards for system in systems]
    if args.json:
        print(json.dumps(_plain(made, args), indent=1))
        return EXIT_OK
    for cost in made:
        _print_estimate(cost)
    if args.constants:
        _print_constants()
    if args.check:
        _print_checks()
    return EXIT_OK


def _workload(name: str) -> Workload:
    """Lower a card's network without weights, but with the masks of its checkpoint, and count it."""
    from pibench.lowering.lower import lower
    from pibench.networks.card import load_card
    from pibench.networks.census import census
    from pibench.reporting.onpaper.costmodel import workload_of
    from pibench.training.find_checkpoint import find_checkpoint, with_masks

    card = load_card(name)
    program, _ = lower(with_masks(card, find_checkpoint(card)), card.network.input_shape)
    counts = census(program)
    return workload_of(program, card.name, counts.macs, counts.relu_rounds)


def _print_estimate(cost: PaperEstimate) -> None:
    from pibench.numbers import seconds, size
    from pibench.reporting.onpaper.costcheck import beyond
    from pibench.reporting.onpaper.costmodel import SYSTEMS

    load, system = cost.workload, SYSTEMS[cost.system]
    print(f"{load.name} under {system.title} over {cost.wire.name}: on paper, not measured")
    print(f"  {load.relu_count:,} ReLUs, {load.macs / 1e6:.1f} million MACs, {load.linear_layers} linear layers")
    if warning := beyond(load):
        print(f"  {warning}")
    phases = (("offline", cost.offline, cost.offline_range_s), ("online", cost.online, cost.online_range_s))
    for name, phase, (low, high) in phases:
        print(
            f"  {name:8} {seconds(phase.total_s):>9} ({seconds(low)} to {seconds(high)}): computing "
            f"{seconds(phase.compute_s)}, wire {_or_dash(seconds, phase.wire_s)}; "
            f"server sends {size(phase.down_bytes)}, client {size(phase.up_bytes)}; {phase.round_trips} round trips"
        )
    for step in cost.steps:
        busy, sent = step.server_s + step.client_s, step.down_bytes + step.up_bytes
        print(f"    {step.phase:8} {step.what:30} {_or_dash(seconds, busy):>9}  {_or_dash(size, sent):>9}")
    stored = ", ".join(f"{side} {size(amount)}" for side, amount in cost.storage_bytes.items())
    print(f"  stored for one inference: {stored}\n  {system.note}\n")


def _or_dash(write: Callable[[float], str], value: float) -> str:
    return write(value) if value else "-"


def _print_constants() -> None:
    from pibench.reporting.onpaper.constants import CONSTANTS

    for name, c in CONSTANTS.items():
        print(f"{name:20} {c.value:>12g} ({c.low:g} to {c.high:g}) {c.unit:12} {c.what}\n{'':20} {c.tag}; {c.source}")


def _print_checks() -> None:
    from pibench.numbers import seconds
    from pibench.reporting.onpaper.costcheck import WHERE_IT_DOES_NOT_FIT, checks

    print(f"{'network':32} {'published':>10} {'model':>10} {'error':>7}  role")
    for c in checks():
        flag = "" if c.fits else "  DOES NOT FIT"
        note = "  (ReLU steps alone)" if c.note else ""
        line = f"{c.network:32} {seconds(c.published_s):>10} {seconds(c.model_s):>10} {c.error:>+7.1%}  {c.role}"
        print(line + note + flag)
    print("\nWhere the model does not fit:")
    for line in WHERE_IT_DOES_NOT_FIT:
        print(f"  - {line}")


def _plain(made: list[PaperEstimate], args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from pibench.reporting.onpaper.constants import CONSTANTS
    from pibench.reporting.onpaper.costcheck import checks

    plain: dict[str, Any] = {"on_paper": True, "estimates": [_plain_estimate(cost) for cost in made]}
    if args.constants:
        plain["constants"] = {name: asdict(constant) for name, constant in CONSTANTS.items()}
    if args.check:
        plain["checks"] = [{**asdict(c), "error": c.error, "fits": c.fits} for c in checks()]
    return plain


def _plain_estimate(cost: PaperEstimate) -> dict[str, Any]:
    from dataclasses import asdict

    plain = asdict(cost)
    plain["workload"].pop("layers")
    for phase in ("offline", "online"):
        plain[phase]["total_s"] = getattr(cost, phase).total_s
    return plain
