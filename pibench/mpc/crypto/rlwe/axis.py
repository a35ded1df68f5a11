"""One dimension of a convolution, cut into phases (a stride's) and tiles (where a map is larger than a polynomial).

A stride s reads the padded input x[y s + k d], tap k, dilation d. With k d = q s + phase that is element y + q of the
input's phase, so a layer with a stride is one without over more channels, each with its own taps. What no output reads
is not stored; taps that read padding alone are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Phase:
    """Every s-th element of the padded input from `first` on: which are stored, and the taps that read them."""

    first: int
    start: int  # the first stored element of a tile, counted from the tile's first output
    length: int
    taps: tuple[tuple[int, int], ...]  # kernel index, and where it reads relative to the output among the stored
    below: int  # how far it reads before the first stored element: zeros
    above: int  # and behind the last


@dataclass(frozen=True)
class Axis:
    """A dimension of `size` elements with `out` outputs, in tiles of `tile` outputs."""

    size: int
    out: int
    tile: int
    stride: int
    padding: int
    phases: tuple[Phase, ...]

    @property
    def tiles(self) -> int:
        """How many tiles."""
        return -(-self.out // self.tile)

    @property
    def span(self) -> int:
        """Elements that a phase's tile takes with the zeros that it shares with its neighbour."""
        stored = max((p.length for p in self.phases), default=1)
        return max(stored + max((max(p.below, p.above) for p in self.phases), default=0), self.tile)

    def sources(self, tile: int, phase: Phase) -> Index:
        """Return which input element each stored element of a tile is; -1: none, a zero."""
        at = (tile * self.tile + phase.start + np.arange(phase.length)) * self.stride + phase.first - self.padding
        return np.where((at >= 0) & (at < self.size), at, -1)

    def wanted(self, tile: int) -> int:
        """Return how many outputs a tile has (the last may have fewer)."""
        return min(self.tile, self.out - tile * self.tile)


def make_axis(size: int, kernel: int, stride: int, padding: int, dilation: int, tiles: int) -> Axis:
    """Return a dimension in that many tiles, at most; a single tile stores the input without its padding."""
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    tile = -(-out // tiles)
    by_phase: dict[int, list[tuple[int, int]]] = {}
    for tap in range(kernel):
        by_phase.setdefault(tap * dilation % stride, []).append((tap, tap * dilation // stride))

    def phases(cut: Callable[..., Phase]) -> tuple[Phase, ...]:
        made = (cut(size, stride, padding, tile, first, taps) for first, taps in sorted(by_phase.items()))
        return tuple(phase for phase in made if phase.taps)

    whole = phases(_whole) if tile >= out else ()
    return Axis(size, out, tile, stride, padding, whole or phases(_tiled))  # a whole that reads padding alone is tiled


def _whole(size: int, stride: int, padding: int, out: int, first: int, taps: Iterable[tuple[int, int]]) -> Phase:
    """All outputs at once: stored is the input alone, and neighbours share their zeros."""
    start = max(0, -(-(padding - first) // stride))  # of the elements that are no padding
    stop = -(-(size + padding - first) // stride)
    read = [(tap, q) for tap, q in taps if q + out > start and q < stop]
    if not read:
        return Phase(first, 0, 0, (), 0, 0)
    least, most = min(q for _, q in read), max(q for _, q in read) + out  # what is read: [least, most)
    start, stop = max(start, least), min(stop, most)
    reads = tuple((tap, q - start) for tap, q in read)
    return Phase(first, start, stop - start, reads, start - least, most - stop)


def _tiled(size: int, stride: int, padding: int, tile: int, first: int, taps: Iterable[tuple[int, int]]) -> Phase:
    """One tile of several: stored is all that it reads, padding included."""
    read = list(taps)
    least, most = min(q for _, q in read), max(q for _, q in read) + tile
    return Phase(first, least, most - least, tuple((tap, q - least) for tap, q in read), 0, 0)
