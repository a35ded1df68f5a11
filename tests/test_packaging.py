"""The wheel: what an installed pibench needs is inside, and nothing that would hide another package."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from pibench.training.zoo import index_of

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if find_spec("hatchling") is None:
        pytest.skip("hatchling, the build backend, is not installed here")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=100)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def test_the_wheel_carries_suites_cards_and_checkpoints(wheel: list[str]) -> None:
    for kind in ("suites", "networks"):
        own = {path.name for path in (REPOSITORY / kind).glob("*.yaml")}
        assert {Path(name).name for name in wheel if name.startswith(f"pibench/_data/{kind}/")} >= own > set()


def test_the_wheel_carries_the_small_networks_and_the_index_of_all(wheel: list[str]) -> None:
    trained = {path.name: path.stat().st_size for path in (REPOSITORY / "zoo").glob("*.safetensors")}
    small = {name for name, size in trained.items() if size < 3_000_000}
    assert set() < small < trained.keys()
    carried = {Path(name).name for name in wheel if name.startswith("pibench/_data/zoo/")}
    assert carried == small | {"costs.json", "index.json", "plan.yaml"}


def test_the_index_names_what_is_there() -> None:
    """Fails after a network was put into zoo/ by hand: `pibench zoo --ship` writes both."""
    assert json.loads((REPOSITORY / "zoo" / "index.json").read_text()) == index_of(REPOSITORY / "zoo")


def test_the_wheel_owns_one_top_level_package(wheel: list[str]) -> None:
    assert {name.split("/")[0] for name in wheel if not name.split("/")[0].endswith(".dist-info")} == {"pibench"}


def test_an_installed_pibench_finds_its_data(tmp_path: Path) -> None:
    """The package's files laid out as a wheel does, run from elsewhere."""
    import shutil

    site = tmp_path / "site"
    shutil.copytree(REPOSITORY / "pibench", site / "pibench", ignore=shutil.ignore_patterns("__pycache__", "_data"))
    for kind in ("suites", "networks"):
        shutil.copytree(REPOSITORY / kind, site / "pibench" / "_data" / kind)
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "from pibench.cli import main; main(['validate', 'quick', 'drd-c100-12k'])"],
        cwd=tmp_path / "elsewhere",
        env={"PYTHONPATH": str(site), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "2 of 2 files are fine" in done.stdout


def test_entry_points_exist() -> None:
    project = PROJECT["project"]
    groups = [project["scripts"], *project.get("entry-points", {}).values()]
    for target in (target for group in groups for target in group.values()):
        module, _, attribute = target.partition(":")
        found = import_module(module)
        assert not attribute or hasattr(found, attribute)


def test_crypten_is_a_declared_dependency_that_installs() -> None:
    dependencies = PROJECT["project"]["dependencies"]
    assert "crypten==0.4.1" in dependencies
    assert "sklearn==0.0" in dependencies  # without it, crypten's own wish picks a release that refuses to build
    assert next(d for d in dependencies if d.startswith("torch")) == "torch>=2.6,<2.14"


def test_the_makefile_knows_the_commands() -> None:
    text = (REPOSITORY / "Makefile").read_text()
    for target in ("install", "run", "test", "check", "bench"):
        assert f"\n{target}:" in text
