"""What all tests share: hypothesis without deadlines, a quiet torch, and where real data may lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

# Two processes and busy machines make single examples slow; examples are drawn alike on every run.
settings.register_profile("pibench", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("pibench")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of the processes that tests start


@pytest.fixture(autouse=True)
def state_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count kept material where no other test does."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """Draw fewer bootstrap samples: for tests that look at what is made of intervals, not at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pibench.records.stats.RESAMPLES", 200)
        yield


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process ids of every child that a session starts."""
    from pibench.session.children import Child, Children

    found: list[int] = []
    start = Children.start

    def spy(self: Children, *args: Any) -> Child:
        child = start(self, *args)
        found.append(child.process.pid)
        return child

    monkeypatch.setattr(Children, "start", spy)
    return found


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shared_data() -> Path:
    """Folder of trained networks and real images outside of the repository."""
    folder = Path(os.environ.get("PIBENCH_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data of {folder} (PIBENCH_SHARED names another place)")
    return folder
