"""`pibench party`: keys for two hosts, and this host's side of sessions that the other one leads."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from pibench.commands.own_networks import add_own_networks, own_networks
from pibench.errors import EXIT_OK, UsageError

ACTIONS = ("keygen", "fingerprint")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pibench party`."""
    parser.add_argument(
        "action", nargs="?", choices=ACTIONS, help="keygen NAME: make a key; fingerprint FILE: show one"
    )
    parser.add_argument("name", nargs="?", help="name of the key pair (NAME.key, NAME.crt), or a .crt file")
    parser.add_argument("--folder", type=Path, default=Path(), help="where keygen writes (default: here)")
    parser.add_argument("--listen", metavar="HOST:PORT", help="wait for the host that runs `pibench run --peer`")
    parser.add_argument("--key", type=Path, metavar="FILE", help="this host's key, with its certificate beside it")
    parser.add_argument(
        "--trust", type=Path, action="append", default=[], metavar="FILE", help="certificate of a host that may call"
    )
    parser.add_argument(
        "--cards", action="append", default=[], metavar="NAME",
        help="card of this host that callers may use: a name, a pattern or a file; none unless named",
    )  # fmt: skip
    add_own_networks(parser, "modules of this host that callers may use; none unless named")
    parser.add_argument(
        "--deal", action="store_true", help="with --listen: deal for sessions of two other hosts, and lend no card"
    )
    parser.add_argument("--dealer", metavar="HOST", help="host whose `party --deal` this host's servers may dial")
    parser.add_argument("--trust-dealer", type=Path, metavar="FILE", help="certificate of that host")
    parser.add_argument(
        "--data-port", type=int, metavar="N", help="port of the parties' own connection (default: the next one)"
    )


def run(args: argparse.Namespace) -> int:
    """Make a key, show a fingerprint, or listen until interrupted."""
    if args.action and args.listen:
        raise UsageError(f"{args.action} and --listen are two things", remedy="give one of them")
    if args.listen:
        return _listen(args)
    if args.action and not args.name:
        raise UsageError(f"{args.action} needs a name", remedy=f"pibench party {args.action} NAME")
    if args.action == "keygen":
        return _keygen(args.name, args.folder)
    if args.action == "fingerprint":
        from pibench.links.tls import fingerprint

        print(fingerprint(Path(args.name)))
        return EXIT_OK
    raise UsageError("nothing to do", remedy="`pibench party keygen NAME`, or `pibench party --listen HOST:PORT`")


def _keygen(name: str, folder: Path) -> int:
    from pibench.links.tls import generate

    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise UsageError(f"{name!r} is no name for a file", remedy="letters, digits, dots and dashes")
    key, certificate, shown = generate(name, folder)
    print(f"{key}: keep it here\n{certificate}: give it to the other host\n{shown}: compare it by another way")
    return EXIT_OK


def _listen(args: argparse.Namespace) -> int:
    from pibench.hosts.dealing import DealingHost
    from pibench.hosts.hosts import Elsewhere, identity, parse_address
    from pibench.hosts.lender import Lender, default_data_port, log_line
    from pibench.links.tls import fingerprint

    if args.key is None:
        raise UsageError("--listen needs this host's key", remedy="pibench party keygen NAME, then --key NAME.key")
    place = parse_address(args.listen)
    who = identity(args.key, args.trust)
    data_port = default_data_port(place) if args.data_port is None else args.data_port
    if bool(args.dealer) != bool(args.trust_dealer) or (args.deal and (args.dealer or args.cards or args.own_networks)):
        raise UsageError(
            "--dealer HOST and --trust-dealer FILE go together, and with --deal neither they, nor --cards, nor --model",
            remedy="a host lends a server, or deals",
        )
    if args.deal:
        lender: Lender = DealingHost(place, data_port, who)
    else:
        dealer = Elsewhere((args.dealer, 0), identity(args.key, [args.trust_dealer])) if args.dealer else None
        models = own_networks(args.own_networks)
        lender = Lender(place, data_port, who, cards=tuple(args.cards), models=models, dealer=dealer)
    log_line(f"listening on {place[0]}:{place[1]}, data on port {data_port}, as {fingerprint(who.certificate)}")
    lent = ", ".join(sorted(lender.lent)) or "nothing: name cards with --cards, modules with --model"
    log_line("deals, and lends nothing" if args.deal else f"lends {lent}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_OK))
    try:
        lender.serve()
    except KeyboardInterrupt:
        log_line("interrupted")
    finally:
        lender.close()
    return EXIT_OK
