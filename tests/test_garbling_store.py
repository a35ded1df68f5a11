"""Where circuits wait: memory that serves again but for one at a time, and files that nobody finds afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pibench.errors import MaterialError
from pibench.mpc.crypto.garbling.store import Held, Store


def filled(store: Store, number: int, words: int = 600) -> Held:
    """Return so many words that wait, put there in three spans."""
    held, third = store.take(words), words // 3
    for at in range(0, words, third):
        span = slice(at, at + third)
        held.room(span)[:] = number + np.arange(at, at + third, dtype=np.uint64)
        held.keep(span)
    return held


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store("" if request.param == "memory" else str(tmp_path))


def test_what_waits_is_what_was_put_there_whatever_else_waits(store: Store) -> None:
    waiting = {number: filled(store, number) for number in (1_000, 2_000, 3_000)}
    waiting.pop(2_000).drop()
    waiting[4_000] = filled(store, 4_000)
    for number, held in waiting.items():
        for span in (slice(500, 600), slice(0, 100), slice(150, 450)):  # in spans and an order of their own
            want = number + np.arange(span.start, span.stop, dtype=np.uint64)
            np.testing.assert_array_equal(held.read(span), want)


def test_memory_serves_again_but_nobody_reads_what_was_dropped() -> None:
    store = Store()
    first = filled(store, 1)
    there = first.read(slice(0, 600)).ctypes.data
    assert filled(store, 2).read(slice(0, 600)).ctypes.data != there
    first.drop()
    assert filled(store, 3).read(slice(0, 600)).ctypes.data == there
    assert first.read(slice(0, 600)).size == 0


def test_files_have_no_name_and_go_with_what_was_dropped(tmp_path: Path) -> None:
    held = filled(Store(str(tmp_path)), 5)
    assert not list(tmp_path.iterdir())
    held.drop()
    with pytest.raises(ValueError, match="closed file"):
        held.read(slice(0, 1))


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MaterialError, match=r"cannot keep circuits in .*file/folder: Not a directory"):
        Store(str(tmp_path / "file" / "folder"))
    store = Store(str(tmp_path / "gone"))
    (tmp_path / "gone").rmdir()
    for act in (lambda: store.take(1), lambda: store.refuse(1)):
        with pytest.raises(MaterialError, match=r"cannot keep circuits in .*gone: No such file"):
            act()


def test_what_will_not_fit_is_refused_with_its_size(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.refuse(1_000)
    with pytest.raises(MaterialError, match=r"take 5000000\.0 GB in .*, \d+\.\d GB are free"):
        store.refuse(5 * 10**15)
