"""`pibench report RECORD...`: records as a page, pictures, tables for a paper, or a plot in the terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pibench.commands.arguments import duration
from pibench.errors import EXIT_NOTHING_SELECTED, EXIT_OK, StoreError, UsageError

if TYPE_CHECKING:
    from pibench.reporting.answer import Answer
    from pibench.reporting.cells import Setting
    from pibench.reporting.view import View
    from pibench.reporting.whatif import Option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("records", nargs="*", default=["last"], metavar="RECORD", help="file, id, or `last` (default)")
    parser.add_argument("-o", "--output", type=Path, help="the page (default: <record>.html in .pibench/reports)")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write every figure there too: SVG, PDF, PNG")
    parser.add_argument(
        "--paper", action="store_true", help="figures for a paper: white, no captions, one and two columns, 8 pt"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every case as comma-separated values")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="the table of ReLU budgets, CSV beside")
    parser.add_argument("--terminal", action="store_true", help="show the frontier here and write no page")
    parser.add_argument("--protocol", help="what the report is about (default: the private one with most networks)")
    parser.add_argument("--link", help="link of the report; with --deadline the link in question")
    parser.add_argument(
        "--deadline", type=duration, metavar="TIME",
        help="what if: the most accurate network that makes it, measured or predicted, here and on the page",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write what was asked for; exit status 5 where no case was measured."""
    from pibench.reporting.answer import answer, main_ladder

    view = _view(args.records)
    asked = None if args.deadline is not None else args.link
    ladder = main_ladder(view.ladders(), args.protocol, asked)
    if ladder is None and (args.protocol or asked):
        raise UsageError(f"no measured case has {_asked(args.protocol, asked)}", remedy=_choices(view))
    found = answer(view, ladder) if ladder else None
    if args.terminal:
        _show(found)
    else:
        _page(args, view, asked)
    _files(args, view, found)
    if args.deadline is not None and ladder:
        _what_if(view, ladder.setting, args.link or "loopback", args.deadline)
    return EXIT_OK if found else EXIT_NOTHING_SELECTED


def _view(names: list[str]) -> View:
    from pibench.records.files import open_record
    from pibench.reporting.view import view_of

    return view_of(open_record(name) for name in names)


def _asked(protocol: str | None, link: str | None) -> str:
    return " and ".join(f"{name} {value!r}" for name, value in (("protocol", protocol), ("link", link)) if value)


def _choices(view: View) -> str:
    settings = sorted({f"{ladder.setting.protocol} over {ladder.setting.link}" for ladder in view.ladders()})
    return f"there is {', '.join(settings)}" if settings else "nothing in these records was measured"


def _show(found: Answer | None) -> None:
    import shutil

    from pibench.reporting.screen.frontier import terminal

    if found is None:
        print("No case was measured.")
        return
    size = shutil.get_terminal_size((88, 24))
    print(terminal(found, min(size.columns, 110), size.lines if sys.stdout.isatty() else None))


def _page(args: argparse.Namespace, view: View, link: str | None) -> None:
    from pibench.reporting.page.html import render, save_page

    wanted = [(args.link or "loopback", args.deadline)] if args.deadline is not None else []
    path = args.output or Path(".pibench/reports") / f"{view.records[-1].id}.html"
    save_page(render(view, protocol=args.protocol, link=link, deadlines=wanted), path)
    print(path)


def _files(args: argparse.Namespace, view: View, found: Answer | None) -> None:
    from pibench.reporting.page.endtoend import offline_figures
    from pibench.reporting.page.figures import figures_of, save_figures
    from pibench.reporting.paper.csv import to_csv
    from pibench.reporting.paper.latex import rows_csv, to_latex

    if args.csv:
        _write(args.csv, to_csv(view))
    if found is None:
        return
    if args.latex:
        _write(args.latex, to_latex(view, found))
        if str(args.latex) != "-" and not args.csv:
            _write(args.latex.with_suffix(".csv"), rows_csv(found))
    if args.figures:
        drawn = [*figures_of(view, found), *offline_figures(view, found.ladder)]
        paths = save_figures(drawn, args.figures, paper=args.paper)
        print(f"{len(paths)} files in {args.figures}")


def _write(path: Path, text: str) -> None:
    if str(path) == "-":
        sys.stdout.write(text)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write: {error.strerror}", where=str(path)) from error
    print(path)


def _order(option: Option, deadline_s: float) -> tuple[bool, float, float]:
    """In time first, the most accurate first; then the late ones, the fastest first."""
    late = option.online_s > deadline_s
    return late, 0.0 if late else -(option.percent or 0.0), option.online_s


def _what_if(view: View, setting: Setting, link: str, deadline_s: float) -> None:
    """Print what of the report's data set and batch makes the deadline, the best first, and how far others are off."""
    from pibench.numbers import seconds
    from pibench.reporting.whatif import best_within, of_setting, options, wire_named

    found = of_setting(options(view, wire_named(link), systems=("delphi",)), setting)
    measured = [o for o in found if o.basis != "on paper"]
    best = best_within(measured, deadline_s)
    verdict = f"{best.network} under {best.system} ({best.percent:.1f} %)" if best else "no network with an accuracy"
    task = ", ".join([*([setting.dataset] if setting.dataset else []), f"batch {setting.batch}"])
    print(f"\nWithin {seconds(deadline_s)} over {link} ({task}): {verdict}")
    for option in sorted(found, key=lambda o: _order(o, deadline_s)):
        made = "makes it" if option.online_s <= deadline_s else "too slow"
        made = "on paper" if option.basis == "on paper" else made  # never among those that were measured
        score = f"{option.percent:6.2f} %" if option.percent is not None else " " * 8
        took = f"{seconds(option.online_s):>8}"
        print(f"  {made}  {score}  {took}  {option.network} under {option.system}, {option.basis}")
