"""`pibench run`: measure every case of a suite, keep the record, end with the answer."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pibench.commands.arguments import positive
from pibench.commands.own_networks import add_own_networks, own_networks
from pibench.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, PibenchError, UsageError

if TYPE_CHECKING:
    from pibench.hosts.hosts import Peer
    from pibench.records.record import Record
    from pibench.run.runner import Run
    from pibench.run.settings import RunPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pibench run`."""
    parser.add_argument("suite", nargs="?", help="a suite's name or file (default: quick; with --resume the record's)")
    parser.add_argument("-k", metavar="EXPR", help="run the cases whose id fits, such as 'masked and not wan'")
    parser.add_argument("--sessions", type=positive, metavar="N", help="sessions a case, instead of the suite's")
    parser.add_argument("--inferences", type=positive, metavar="N", help="inferences a session, instead of the suite's")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="decides order and random weights, instead of the suite's"
    )
    parser.add_argument(
        "--precision", metavar="SHARE", help="add sessions until intervals are within ±SHARE, such as 2%%"
    )
    parser.add_argument(
        "--budget", type=float, default=1800.0, metavar="SECONDS", help="time that --precision may take (default 1800)"
    )
    parser.add_argument("--resume", metavar="RECORD", help="go on with an unfinished record (a path, an id, or last)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the record here, not to .pibench/runs/")
    parser.add_argument("--dry-run", action="store_true", help="show what would run and how long it may take")
    parser.add_argument("--json", action="store_true", help="print the record instead of the tables")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, only the answer")
    two = parser.add_argument_group("two hosts: the server's party runs on the other one")
    two.add_argument(
        "--peer", metavar="HOST:PORT", help="where `pibench party --listen` waits; the link is the network"
    )
    two.add_argument("--key", type=Path, metavar="FILE", help="this host's key (`pibench party keygen NAME`)")
    two.add_argument("--trust", type=Path, metavar="FILE", help="the other host's certificate")
    two.add_argument("--dealer", metavar="HOST:PORT", help="where `pibench party --deal --listen` waits, a third host")
    two.add_argument("--trust-dealer", type=Path, metavar="FILE", help="the dealing host's certificate")
    add_own_networks(parser, "your own networks, on any suite's settings")


def run(args: argparse.Namespace) -> int:
    """Run a suite; status 2 when a case failed or is invalid."""
    from pibench.records.store import find_record
    from pibench.run.fromsuite import plan_of

    own = own_networks(args.own_networks)
    resumed = find_record(args.resume) if args.resume else None
    if resumed is None and args.record and args.record.exists():
        remedy = f"go on with it: --resume {args.record}; or give another name, or remove it"
        raise UsageError("there is a record already", where=str(args.record), remedy=remedy)
    plan = plan_of(
        args.suite or _suite_of(resumed), expression=args.k, sessions=args.sessions, inferences=args.inferences,
        seed=args.seed, own=own, resumed=resumed, command=args.command,
    )  # fmt: skip
    peer = _peer(args)
    if peer is not None:
        from pibench.hosts.hosts import deals, over_network

        plan = over_network(plan)
        if peer.dealer is not None and not any(map(deals, plan.cases)):
            raise UsageError("no case of this suite has a dealer", remedy="options: {provider: dealer}, under masked")
    if args.dry_run:
        return _dry_run(plan, args.json)
    return _measure(plan, args, resumed, peer)


def _suite_of(resumed: Path | None) -> str:
    """Return the suite of a run that names none: that of the record to go on with, by name or file, else quick."""
    if resumed is None:
        return "quick"
    from pibench.library import find_documents
    from pibench.records.files import load_record

    suite = load_record(resumed).suite
    known = {path.stem for path in find_documents("suites")}
    return suite.path if Path(suite.path).is_file() else suite.name if suite.name in known else str(resumed)


def _measure(plan: RunPlan, args: argparse.Namespace, resumed: Path | None, peer: Peer | None) -> int:
    from pibench.records.store import new_record_path
    from pibench.records.thresholds import parse_share
    from pibench.reporting.screen.progress import Screen
    from pibench.run.precision import cheap_plan, next_plan, verdict
    from pibench.run.prepare import preparer
    from pibench.run.runner import Run

    precision = parse_share(args.precision) if args.precision else 0.0
    path = resumed or args.record or new_record_path(plan.suite.name)
    spoken = contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext()
    with spoken, Screen(quiet=args.quiet or args.json) as screen:  # what a user's factory prints is no JSON
        work = Run(plan, path, _record(plan, path, resumed), preparer(plan.sources, screen.told), screen)
        if peer is not None:
            work.opener, work.dealer_elsewhere = peer.open, peer.dealer is not None
        interrupted, until = False, time.monotonic() + args.budget
        try:
            work.execute()
            left = min(args.budget, plan.firm_s if args.sessions is None and not precision else 0.0) + time.monotonic()
            while more := cheap_plan(plan, work.record, left - time.monotonic()):
                work = _again(work, more)
                work.execute()
            while precision and (more := next_plan(plan, work.record, precision, until - time.monotonic())):
                work = _again(work, more)
                work.execute()
        except KeyboardInterrupt:
            interrupted = True
    _show(work.record, path, args.json)
    for line in verdict(work.record, precision) if precision else ():
        print(line, file=sys.stderr)
    if interrupted:
        print(f"interrupted; go on with: {shlex.join([*plan.command, '--resume', str(path)])}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK if all(case.status == "done" for case in work.record.cases) else EXIT_FAILED


def _again(work: Run, plan: RunPlan) -> Run:
    """Return the run that adds sessions to a finished one's record."""
    from pibench.run.runner import Run

    return Run(
        plan, work.path, work.record, work.prepare, work.listener, work.opener, dealer_elsewhere=work.dealer_elsewhere
    )


def _record(plan: RunPlan, path: Path, resumed: Path | None) -> Record:
    """Return the record to fill: a new one, or the one to go on with."""
    from pibench.records.files import load_record
    from pibench.records.machine import machine, versions
    from pibench.run.begin import blank

    if resumed is None:
        return blank(plan, path.stem)
    old = load_record(resumed)
    if old.machine.key != machine().key or old.versions != versions():
        raise UsageError(
            "the record is of another machine or of other versions", where=str(resumed),
            remedy="sessions that cannot be compared do not belong into one record; start a new run",
        )  # fmt: skip
    return old


def _show(record: Record, path: Path, as_json: bool) -> None:
    """End with the answer, as wide as the screen, and with where the rest is."""
    from pibench.records.files import dump_record
    from pibench.records.store import runs_folder
    from pibench.reporting.screen.fitting import screen_width
    from pibench.reporting.screen.summary import summary

    if as_json:
        print(dump_record(record))
        return
    name = "last" if path.parent == runs_folder() else str(path)
    print("\n".join(summary(record, screen_width())))
    print(f"\nEvery figure: pibench show {name}   As a page: pibench report {name}\nRecord: {path}")


def _dry_run(plan: RunPlan, as_json: bool) -> int:
    """Show the plan, timed by earlier records of this folder, and every fault of one's own networks."""
    from pibench.reporting.screen.fitting import screen_width
    from pibench.reporting.screen.progress import plan_lines
    from pibench.run.rehearsal import faults
    from pibench.run.settings import estimate_s

    estimates, wrong = estimate_s(plan, _earlier()), faults(plan)
    if as_json:
        cases = [
            {"id": case.id, "estimate_s": estimates[case.id][0], "known": estimates[case.id][1]} for case in plan.cases
        ]
        facts = {"suite": plan.suite.name, "sessions": plan.sessions, "inferences": plan.inferences, "cases": cases}
        print(json.dumps({**facts, "faults": {name: str(error) for name, error in wrong.items()}}))
    else:
        print("\n".join(plan_lines(plan, estimates, screen_width(120))))
    for name, error in wrong.items():
        print(f"pibench run: {name}: {error}", file=sys.stderr)
    return EXIT_USAGE if wrong else EXIT_OK


def _earlier(limit: int = 8) -> list[Record]:
    from pibench.records.files import load_record
    from pibench.records.store import record_paths

    found = []
    for path in record_paths()[-limit:]:
        try:
            found.append(load_record(path))
        except PibenchError:  # another version's: it helps no estimate, and harms none
            continue
    return found


def _peer(args: argparse.Namespace) -> Peer | None:
    """Return the other host, if there is one."""
    if args.peer is None:
        if args.key or args.trust or args.dealer or args.trust_dealer:
            raise UsageError("--key, --trust and --dealer are for two hosts", remedy="add --peer HOST:PORT")
        return None
    from pibench.hosts.hosts import Elsewhere, Peer, identity, parse_address

    if not (args.key and args.trust):
        raise UsageError(
            "another host needs to know this one, and this one it",
            remedy="--key NAME.key --trust PEER.crt; `pibench party keygen NAME` makes both files",
        )
    if bool(args.dealer) != bool(args.trust_dealer):
        raise UsageError("a dealer's host needs an address and a certificate", remedy="--dealer and --trust-dealer")
    dealer = None
    if args.dealer:
        dealer = Elsewhere(parse_address(args.dealer), identity(args.key, [args.trust_dealer]))
    return Peer(parse_address(args.peer), identity(args.key, [args.trust]), dealer)
