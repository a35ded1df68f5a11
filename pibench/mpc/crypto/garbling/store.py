"""Where circuits and labels wait for their one use: memory that serves again, or files without a name.

The first touch of memory costs more than what is written there, so what an inference has used up serves the next one:
a store never holds more than what waits at one time. With a folder, what waits is in files there that have no name and
are gone with the process, whatever ends it; memory then holds one piece at a time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pibench.errors import MaterialError

Words = NDArray[np.uint64]


class Held(ABC):
    """Words that are written once, span by span, then read; spans (slices of words) may be read in any order."""

    @abstractmethod
    def room(self, span: slice) -> Words:
        """Return where the words of a span are to be put."""

    @abstractmethod
    def keep(self, span: slice) -> None:
        """Say that they are there: the room of one span may be that of the next."""

    @abstractmethod
    def read(self, span: slice) -> Words:
        """Return the words of a span, good until the next call."""

    @abstractmethod
    def drop(self) -> None:
        """Say that nobody reads them again."""


class Store:
    """One party's store for the life of a connection."""

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
        self._free: dict[int, list[Words]] = {}
        if folder:
            try:
                os.makedirs(folder, mode=0o700, exist_ok=True)
            except OSError as error:
                raise _unusable(folder, error) from error

    def take(self, words: int) -> Held:
        """Return room for so many words that wait, in memory or in a file."""
        return _InFile(self, self._folder, words) if self._folder else _InMemory(self, words)

    def memory(self, words: int) -> Words:
        """Return so many words of memory, whatever they hold; `give` takes them back."""
        free = self._free.get(words)
        return free.pop() if free else np.empty(words, np.uint64)

    def give(self, array: Words) -> None:
        """Take back what `memory` returned, for others."""
        self._free.setdefault(array.size, []).append(array)

    def refuse(self, needed: int) -> None:
        """Raise MaterialError where a folder has no room for so many bytes."""
        if not self._folder:
            return
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise _unusable(self._folder, error) from error
        if needed > free:
            raise MaterialError(
                f"circuits and labels take {needed / 1e9:.1f} GB in {self._folder}, {free / 1e9:.1f} GB are free",
                remedy="a smaller offline_chunk keeps fewer inferences' circuits at a time; so does a smaller batch",
            )


class _InMemory(Held):
    def __init__(self, store: Store, words: int) -> None:
        self._store, self._words = store, store.memory(words)

    def room(self, span: slice) -> Words:
        return self._words[span]

    def keep(self, span: slice) -> None:
        pass

    def read(self, span: slice) -> Words:
        return self._words[span]

    def drop(self) -> None:
        self._store.give(self._words)
        self._words = self._words[:0]  # it is another one's from now on


class _InFile(Held):
    def __init__(self, store: Store, folder: str, words: int) -> None:
        self._store, self._folder = store, folder
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - until `drop`
        except OSError as error:
            raise _unusable(folder, error) from error
        self._room = np.empty(0, np.uint64)

    def room(self, span: slice) -> Words:
        if self._room.size != span.stop - span.start:
            self._room = np.empty(span.stop - span.start, np.uint64)
        return self._room

    def keep(self, span: slice) -> None:
        left, at = self.room(span).data.cast("B"), 8 * span.start
        try:
            while left:
                done = os.pwrite(self._file.fileno(), left, at)
                left, at = left[done:], at + done
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def read(self, span: slice) -> Words:
        room = self.room(span)
        left, at = room.data.cast("B"), 8 * span.start
        try:
            while left:
                done = os.preadv(self._file.fileno(), [left], at)
                if not done:
                    raise MaterialError(f"a circuit in {self._folder} ends too early", remedy="free disk space there")
                left, at = left[done:], at + done
        except OSError as error:
            raise _unusable(self._folder, error) from error
        return room

    def drop(self) -> None:
        self._file.close()


def _unusable(folder: str, error: OSError) -> MaterialError:
    return MaterialError(
        f"cannot keep circuits in {folder}: {error.strerror}", remedy="name a folder with free space, or leave it out"
    )
