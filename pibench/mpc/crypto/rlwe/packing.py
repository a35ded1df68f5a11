"""Coefficient packing: a convolution as products of polynomials, without rotations.

Huang, Lu, Hong and Ding, *Cheetah: Lean and Fast Secure Two-Party Deep Neural Network Inference*, USENIX Security 2022,
section 3, with the row stride of the input's width plus one margin instead of two. A map of rows of `row` elements
takes S places: its elements in order, each row and the map followed by zeros, which serve as padding for what stands
before and behind them. An input polynomial holds `wide` channels, channel c at c S; the polynomial of a weight holds
`high` filters: w[m, c, tap] at (m wide + wide - 1 - c) S - (what the tap reads relative to the output). Then filter
m's output at place y of its map is coefficient (m wide + wide - 1) S + y of the product, summed over the inputs.
All of it is public; places are positions in (groups of LANES polynomials, n, LANES).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pibench.errors import UsageError
from pibench.mpc.crypto.rlwe.arithmetic import Words
from pibench.mpc.crypto.rlwe.axis import Axis, Index, Phase, make_axis
from pibench.mpc.crypto.rlwe.layer import Layer
from pibench.mpc.crypto.rlwe.primes import DEGREE, LANES

# What a ciphertext in, one out and a product of both cost, beside each other (microseconds and bytes at 3 Gbit/s).
_IN, _OUT, _PRODUCT = 900, 800, 60


@dataclass(frozen=True)
class Packing:
    """How one layer lies in polynomials of degree n."""

    layer: Layer
    rows: Axis
    columns: Axis
    wide: int  # channels of an input polynomial
    high: int  # filters of an output polynomial
    n: int

    @property
    def phases(self) -> list[tuple[Phase, Phase]]:
        """The phases of a channel; channel c's phase f is channel c len(phases) + f here."""
        return [(y, x) for y in self.rows.phases for x in self.columns.phases]

    @property
    def area(self) -> int:
        """Places that a map takes."""
        return self.rows.span * self.columns.span

    @property
    def inputs(self) -> int:
        """Input polynomials of one tile of one image."""
        return -(-self.layer.channels * len(self.phases) // self.wide)

    @property
    def outputs(self) -> int:
        """Output polynomials of one tile of one image."""
        return -(-self.layer.filters // self.high)

    @property
    def tiles(self) -> list[tuple[int, int]]:
        """The tiles of a map, row by row; each is packed as an image of its own, with the same weights."""
        return [(y, x) for y in range(self.rows.tiles) for x in range(self.columns.tiles)]

    def readers(self, output: int) -> tuple[int, int]:
        """Return the range of input polynomials that an output polynomial reads: those of its groups."""
        layer, per = self.layer, self.layer.channels // self.layer.groups * len(self.phases)
        each = layer.filters // layer.groups
        last = min((output + 1) * self.high, layer.filters) - 1
        return output * self.high // each * per // self.wide, ((last // each + 1) * per - 1) // self.wide + 1

    @property
    def taps(self) -> Index:
        """(taps, 4): phase, kernel row, kernel column, what it reads relative to the output."""
        made = []
        for f, (y, x) in enumerate(self.phases):
            for row, dy in y.taps:
                made += [(f, row, column, dy * self.columns.span + dx) for column, dx in x.taps]
        return np.array(made, np.int64).reshape(-1, 4)

    def pack(self, part: Words) -> Words:
        """Return (groups, n, LANES): a batch (images, channels, height, width) as polynomials, image by image."""
        images, wide = len(part), self.wide
        maps = np.zeros((images, len(self.tiles), self.inputs * wide, self.rows.span, self.columns.span), np.uint64)
        used = maps[:, :, : self.layer.channels * len(self.phases)]
        by_phase = used.reshape(images, len(self.tiles), self.layer.channels, len(self.phases), *used.shape[3:])
        for t, (ty, tx) in enumerate(self.tiles):
            for f, (y, x) in enumerate(self.phases):
                taken = _taken(_taken(part, self.rows.sources(ty, y), 2), self.columns.sources(tx, x), 3)
                by_phase[:, t, :, f, : y.length, : x.length] = taken
        return to_lanes(maps.reshape(-1, wide * self.area), self.n)

    @functools.cached_property
    def places(self) -> list[Index]:
        """By tile: where its outputs (filters, height, width) stand among the output polynomials, flat."""
        filters = np.arange(self.layer.filters)
        poly, base = filters // self.high, (filters % self.high * self.wide + self.wide - 1) * self.area
        made = []
        for ty, tx in self.tiles:
            y, x = np.arange(self.rows.wanted(ty)), np.arange(self.columns.wanted(tx))
            inside = (y[:, None] * self.columns.span + x).ravel()
            at = base[:, None] + inside
            made.append((((poly // LANES)[:, None] * self.n + at) * LANES + (poly % LANES)[:, None]).ravel())
        return made

    def cut(self, whole: Words) -> Iterator[Words]:
        """Yield (filters, height, width) of an image tile by tile, flat."""
        for ty, tx in self.tiles:
            yield whole[:, *self._window(ty, tx)].ravel()

    def join(self, pieces: list[Words]) -> Words:
        """Return (filters, height, width) of an image from its tiles."""
        whole = np.empty((self.layer.filters, self.rows.out, self.columns.out), np.uint64)
        for (ty, tx), piece in zip(self.tiles, pieces, strict=True):
            view = whole[:, *self._window(ty, tx)]
            view[:] = piece.reshape(view.shape)
        return whole

    def _window(self, ty: int, tx: int) -> tuple[slice, slice]:
        y, x = ty * self.rows.tile, tx * self.columns.tile
        return slice(y, y + self.rows.wanted(ty)), slice(x, x + self.columns.wanted(tx))


def _taken(x: Words, sources: Index, axis: int) -> Words:
    taken = np.take(x, np.maximum(sources, 0), axis)
    taken[(slice(None),) * axis + (sources < 0,)] = 0
    return taken


def to_lanes(polynomials: Words, n: int) -> Words:
    """Return (groups, n, LANES): polynomials (count, up to n) side by side, filled up with zeros."""
    count, length = polynomials.shape
    out = np.zeros((-(-count // LANES) * LANES, n), polynomials.dtype)
    out[:count, :length] = polynomials
    return np.ascontiguousarray(out.reshape(-1, LANES, n).transpose(0, 2, 1))


@functools.cache
def choose_packing(layer: Layer, n: int = DEGREE) -> Packing:
    """Return the cheapest packing; raises UsageError where a layer fits no polynomial."""
    best = min(_candidates(layer, n), key=_price, default=None)
    if best is None:
        raise UsageError(
            f"a kernel of {layer.kernel} is too large for polynomials of degree {n}", where=layer.name,
            remedy="use provider: dealer",
        )  # fmt: skip
    return best


def _candidates(layer: Layer, n: int) -> Iterator[Packing]:
    for down in _divisions(layer.out_size[0]):
        rows = _axis(layer, 0, down)
        for across in _divisions(layer.out_size[1]):
            columns = _axis(layer, 1, across)
            fit = n // (rows.span * columns.span)
            for wide in range(1, min(fit, layer.channels * len(rows.phases) * len(columns.phases)) + 1):
                yield Packing(layer, rows, columns, wide, min(fit // wide, layer.filters), n)
            if fit:
                break  # cutting rows too only adds what tiles share


def _divisions(out: int) -> Iterator[int]:
    """Yield into how many tiles to try to cut a dimension: 1 to 8, then doubling."""
    tiles = 1
    while tiles <= out:
        yield tiles
        tiles += 1 if tiles < 8 else tiles
    if tiles > out > 8:
        yield out


def _axis(layer: Layer, d: int, tiles: int) -> Axis:
    return make_axis(layer.size[d], layer.kernel[d], layer.stride[d], layer.padding[d], layer.dilation[d], tiles)


def _price(packing: Packing) -> int:
    low, high = packing.readers(0)
    products = -(-packing.outputs // LANES) * LANES * (high - low)
    return len(packing.tiles) * (packing.inputs * _IN + packing.outputs * _OUT + products * _PRODUCT)
