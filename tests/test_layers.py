"""Imports point downward, and what must start at once does not import torch."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pibench"

# From the ground up; a module may import its own layer and those below. Longest prefix wins.
LAYERS = (
    {"pibench", "pibench.errors", "pibench.numbers", "pibench.processes", "pibench.registry"},
    {"pibench.library", "pibench.documents", "pibench.mpc.spec", "pibench.kernelcache"},
    {"pibench.networks.spec", "pibench.networks.card", "pibench.suite"},
    {"pibench.records", "pibench.lowering", "pibench.links"},
    {"pibench.networks", "pibench.mpc"},
    {"pibench.training", "pibench.session"},
    {"pibench.reduction", "pibench.run"},
    {"pibench.reporting", "pibench.hosts"},
    {"pibench.doctor"},
    {"pibench.commands"},
    {"pibench.cli", "pibench.pytest_plugin", "pibench.pytest_plugin_support", "pibench.__main__"},
)
# A card's recipe has its model in the layer of training; the module is light and imported when a card is read.
ALLOWED = {("pibench.networks.card", "pibench.training.recipe")}
HEAVY = {"torch", "scipy", "matplotlib", "crypten", "numba", "sklearn", "pandas"}


@functools.cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layer(module: str) -> int:
    fits = [
        (len(name), height)
        for height, names in enumerate(LAYERS)
        for name in names
        if module == name or (name != "pibench" and module.startswith(name + "."))
    ]
    assert fits, f"{module} belongs to no layer"
    return max(fits)[1]


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Modules of this package that a file imports, anywhere in it, but for type checkers alone."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    known = modules()
    return frozenset(name for name in names if name in known and name != "pibench")


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_downward(module: str) -> None:
    upward = {name for name in imported(modules()[module]) if layer(name) > layer(module)}
    assert {name for name in upward if (module, name) not in ALLOWED} == set()


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_rooms_of_one_layer_stand_side_by_side() -> None:
    """What two rooms of a layer share lies in a room below them."""
    across = {
        (name, other) for name, path in modules().items() for other in imported(path)
        if layer(name) == layer(other) and room(name) != room(other) and (PACKAGE / room(name)[8:]).is_dir()
    }  # fmt: skip
    assert across == set()


def test_no_modules_need_each_other() -> None:
    """A ring of imports is one module in several files."""
    needs = {name: imported(path) - {name} for name, path in modules().items()}
    while free := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in free:
            del needs[name]
    assert needs == {}, "in a ring, or above one"


# Public structure, files and exchanges that two parties make in host memory; secret words are the backend's everywhere.
NAMES_NUMPY = {"plan", "planner", "sources.source", "sources.shelf", "sources.exchange", "sources.transferred",
               "sources.weighing"}  # fmt: skip


def test_secret_words_are_worked_on_by_backends_alone() -> None:
    room = "pibench.mpc.masked"
    named = {
        name.removeprefix(room + ".")
        for name, path in modules().items()
        if name.startswith((room, "pibench.mpc.delphi")) and not name.endswith("warmup")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if module.split(".")[0] in {"numpy", "numba"} or module.startswith("pibench.mpc.ring.packing")
    }
    assert named <= NAMES_NUMPY


def loaded_by(code: str) -> set[str]:
    """Top-level packages that are loaded once the code has run in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint()\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    command = [sys.executable, "-c", script]
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import pibench.cli, pibench.suite, pibench.networks.card, pibench.library, pibench.documents",
        "from pibench.cli import main; main(['ls'])",
        "from pibench.cli import main; main(['validate', 'quick', 'digits-full'])",
        "import contextlib\nfrom pibench.cli import main\nwith contextlib.suppress(SystemExit): main(['--help'])",
    ],
)
def test_what_must_start_at_once_imports_nothing_heavy(code: str) -> None:
    assert not HEAVY & loaded_by(code)


def test_no_command_imports_torch_when_it_is_only_named() -> None:
    names = [name for name in modules() if name.startswith("pibench.commands.")]
    assert not HEAVY & loaded_by(f"for name in {names!r}: __import__(name)")


def test_no_module_is_too_long() -> None:
    long = {name: lines for name, path in modules().items() if (lines := len(path.read_text().splitlines())) > 350}
    assert long == {}
