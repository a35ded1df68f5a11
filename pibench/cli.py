"""The command line: verbs only. A verb lives in `pibench.commands` and is imported when it is named."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from pibench import __version__
from pibench.errors import EXIT_FAILED, EXIT_INTERNAL, EXIT_OK, EXIT_USAGE, PibenchError

if TYPE_CHECKING:
    from types import FrameType

# verb -> what it does; the module is pibench.commands.<verb>
VERBS: dict[str, str] = {
    "run": "measure every case of a suite (or of your own network)",
    "ls": "list suites, networks and records",
    "show": "describe one network (ReLUs, MACs, predicted cost), or a record with all its figures",
    "validate": "check suites and cards without running them",
    "compare": "compare two records, case by case; exit status 1 on a regression",
    "ab": "run two revisions, environments or cards side by side and compare them",
    "history": "draw one measure over the runs, find its steps and the commits behind them",
    "gate": "hold a record against a baseline: counted measures on any machine, times on the same one",
    "ci": "write a workflow for your own repository: gate, side by side, comment, records",
    "export": "write a record in the formats of other benchmark services",
    "report": "draw records: one self-contained page, pictures, tables for a paper, a plot in the terminal",
    "choose": "name the network for a deadline on a link, the nearest miss, and what would fit",
    "estimate": "say what systems on paper (garbled circuits, homomorphic encryption) would cost for a network",
    "train": "train a card's network",
    "reduce": "cut a network's ReLUs by one of the papers' methods and show the frontier",
    "data": "show, download and check data sets",
    "zoo": "show the trained networks that are shipped, beside what was published",
    "party": "lend this host's side to a run that another one leads; make keys for it",
    "doctor": "say what this machine can do, and what to do about the rest",
}
ALIASES = {"list": "ls"}
PLAIN = str.maketrans({"µ": "u", "×": "x", "−": "-", "–": "-", "±": "+-", "→": "->"})  # for terminals without them


class _Parser(argparse.ArgumentParser):
    """argparse with this project's exit status for usage errors."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")

    def _print_message(self, message: str, file: Any = None) -> None:  # argparse's own hides a full disk
        (file or sys.stderr).write(message)


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of `verb` alone filled in (the other verbs stay unimported)."""
    parser = _Parser(prog="pibench", description="What does a ReLU budget buy in private inference?")
    parser.add_argument("--version", action="version", version=f"pibench {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, summary in VERBS.items():
        aliases = [alias for alias, target in ALIASES.items() if target == name]
        sub = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", aliases=aliases)
        if name == verb:
            importlib.import_module(f"pibench.commands.{name}").add_arguments(sub)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit status (errors.py lists them)."""
    _replace_what_the_terminal_cannot_show()
    argv = sys.argv[1:] if argv is None else argv
    named = next((word for word in argv if not word.startswith("-")), None)
    verb = ALIASES.get(named or "", named)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _as_interrupt)  # work is saved and children are ended, as after Ctrl-C
    try:
        arguments = _parsed(build_parser(verb), argv)
        if verb is None:
            return EXIT_USAGE
        status = int(importlib.import_module(f"pibench.commands.{verb}").run(arguments))
        sys.stdout.flush()  # a full disk shows here, and not when the interpreter ends
        return status
    except PibenchError as error:
        print(f"{_said_by(verb)}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"{_said_by(verb)}: interrupted", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:  # `| head` has read enough
        _drop_output()
        return EXIT_OK
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # rich makes an exit of it, with the status of a regression
            return EXIT_OK
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            _drop_output()
            print(f"{_said_by(verb)}: the output cannot be written: {error.strerror}", file=sys.stderr)
            return EXIT_FAILED
        if error.filename is None:
            return _own_fault(verb)
        print(f"{_said_by(verb)}: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED
    except Exception:
        return _own_fault(verb)


def _parsed(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Return the arguments; without any verb, show the help."""
    try:
        arguments = parser.parse_args(argv)
        arguments.command = ("pibench", *argv)
        if arguments.verb is None:
            parser.print_help()
        return arguments
    finally:
        sys.stdout.flush()  # help that could not be written is no success


def _said_by(verb: str | None) -> str:
    return f"pibench {verb}" if verb else "pibench"


def _replace_what_the_terminal_cannot_show() -> None:
    """Have characters that the output's encoding lacks written plainly: a sign is no reason for a traceback."""
    codecs.register_error("pibench.plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="pibench.plain")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "replace").decode("ascii"), error.end


def _drop_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter's own flush at its end cannot fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _own_fault(verb: str | None) -> int:
    """Show what went wrong in this project itself; Python's own status for it, 1, would say "regression"."""
    traceback.print_exc()
    print(f"{_said_by(verb)}: an error of pibench itself; please report it with the lines above", file=sys.stderr)
    return EXIT_INTERNAL


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
