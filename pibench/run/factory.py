"""A user's factory: `package.module:factory` imported and called, and its errors told as the user's own."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from pibench.errors import PibenchError, UsageError
from pibench.lowering.inference import on_cpu, unwrapped
from pibench.lowering.lower import user_error
from pibench.registry import nearest


def call_factory(name: str) -> nn.Module:
    """Import `package.module:factory` (the current folder counts), call it, and return what it made.

    Whatever goes wrong is a UsageError with the user's file and line; what it prints goes to standard error.
    """
    package, _, factory = name.partition(":")
    if not package or not factory:
        raise UsageError(f"{name!r} names no factory", where="--model", remedy="write package.module:factory")
    make = _imported(name, package, factory)
    with contextlib.redirect_stdout(sys.stderr):
        made = make if isinstance(make, nn.Module) else _called(name, make)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{name} made a {type(made).__name__}, not a torch.nn.Module", where="--model")
    return on_cpu(unwrapped(made))


def _imported(name: str, package: str, factory: str) -> Any:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            module = importlib.import_module(package)
    except (Exception, SystemExit) as error:
        raise user_error(error, f"--model: cannot import {name}") from error
    if not hasattr(module, factory):
        hint = nearest(factory, [key for key, value in vars(module).items() if callable(value)])
        raise UsageError(f"cannot import {name}: {package} has no '{factory}'{hint or ''}", where="--model")
    return getattr(module, factory)


def _called(name: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except PibenchError:
        raise
    except (Exception, SystemExit) as error:
        raise user_error(error, f"--model {name}", _place(make)) from error


def _place(make: Any) -> str:
    """Return where a factory is written, for an error that comes before its first line."""
    with contextlib.suppress(TypeError, OSError):
        return f"{Path(inspect.getfile(make)).name}:{inspect.getsourcelines(make)[1]}"
    return ""
