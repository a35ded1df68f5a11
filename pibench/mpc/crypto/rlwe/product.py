"""The server's weights as polynomials, and their products with ciphertexts.

Weights of integers become polynomials where they are needed, four inputs of eight outputs at a time, so that memory is
bounded whatever the network. A layer that is used again keeps them transformed where memory allows (`keep`): that is
most of the work, and 160 kB a polynomial.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pibench.mpc.crypto.rlwe.arithmetic import Words, reduce_word, word_constants
from pibench.mpc.crypto.rlwe.axis import Index
from pibench.mpc.crypto.rlwe.ntt import forward_one
from pibench.mpc.crypto.rlwe.packing import Packing
from pibench.mpc.crypto.rlwe.primes import LANES, Lanes, Ring
from pibench.mpc.crypto.rlwe.vectors import multiply_accumulate

Integers = NDArray[np.int64]
SUMS_BYTES = 128 << 20  # of sums that are held at a time: images beyond wait
_SUMMED = 512  # products of 54 bits that a word holds, and half as many again
_AT_ONCE = 4  # products that are added before their sum goes back to memory


@dataclass
class Weights:
    """One layer's weights (filters, channels of a group, *kernel), |w| < 2^26, and how they lie in polynomials."""

    packing: Packing
    ring: Ring
    integers: Integers
    kept: list[Lanes] | None = None  # by group of outputs: (primes, inputs, n, LANES)

    def __post_init__(self) -> None:
        self._taps = self.packing.taps

    @property
    def groups(self) -> int:
        """Groups of eight output polynomials."""
        return -(-self.packing.outputs // LANES)

    def readers(self, group: int) -> tuple[int, int]:
        """Return the range of input polynomials that a group reads."""
        last = min((group + 1) * LANES, self.packing.outputs) - 1
        return self.packing.readers(group * LANES)[0], self.packing.readers(last)[1]

    @property
    def kept_bytes(self) -> int:
        """What keeping all of it takes."""
        each = self.ring.count * self.ring.n * LANES * 4
        return sum((high - low) * each for low, high in map(self.readers, range(self.groups)))

    def keep(self) -> None:
        """Transform all weights once and for all."""
        self.kept = []
        for group in range(self.groups):
            low, high = self.readers(group)
            made = np.empty((self.ring.count, high - low, self.ring.n, LANES), np.uint32)
            _transform_all(self.integers, self._taps, self._sizes(group), self.ring.roots, self.ring.moduli, made)
            self.kept.append(made)

    def _sizes(self, group: int) -> Index:
        packing, layer = self.packing, self.packing.layer
        return np.array([
            group * LANES, self.readers(group)[0], packing.wide, packing.high, packing.area, len(packing.phases),
            layer.channels // layer.groups, layer.filters // layer.groups, layer.channels,
        ])  # fmt: skip

    def products(self, c0: Lanes, c1: Lanes, images: int) -> Iterator[tuple[Lanes, Lanes]]:
        """Yield by image (groups, primes, n, LANES) twice: the sums of products of an image's ciphertexts.

        c0 and c1 hold images * inputs polynomials, transformed. What is yielded may be changed, not kept.
        """
        ring = self.ring
        each = 8 * self.groups * ring.count * ring.n * LANES
        portion = max(1, min(images, SUMS_BYTES // each))
        out = np.empty((2, portion, self.groups, ring.count, ring.n, LANES), np.uint32)
        for first in range(0, images, portion):
            count = min(portion, images - first)
            for group in range(self.groups):
                self._sum(group, c0, c1, first, count, out)
            yield from zip(*out[:, :count], strict=True)

    def _sum(self, group: int, c0: Lanes, c1: Lanes, image: int, images: int, out: Lanes) -> None:
        """Fill out (2, images or more, groups, primes, n, LANES) with a group's sums for images from `image` on."""
        ring, (low, high) = self.ring, self.readers(group)
        kept = self.kept[group] if self.kept else np.empty((0, 0, ring.n, LANES), np.uint32)
        total = np.empty((2, images, ring.n * LANES), np.uint64)
        places = np.array([group, image * self.packing.inputs + low, self.packing.inputs, high - low])
        _sum_products(
            self.integers, self._taps, self._sizes(group), kept, c0, c1, places, word_constants(ring.primes),
            ring.roots, ring.moduli, total, out,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _transform_all(w: Integers, taps: Index, sizes: Index, roots: Lanes, moduli: Lanes, out: Lanes) -> None:
    for i in range(moduli.size):
        for k in range(out.shape[1]):
            _transform(w, taps, sizes, k, moduli[i], roots[i], out[i, k])


@njit(cache=True, nogil=True)
def _transform(w: Integers, taps: Index, sizes: Index, k: int, p: np.uint32, roots: Lanes, out: Lanes) -> None:
    """Kernel: out (n, LANES), transformed: the weights of eight output polynomials for the group's k-th input."""
    first, low, wide, high, area, phases, channels, filters, all_channels = sizes
    out[:] = 0
    for c in range(wide):
        channel, phase = ((low + k) * wide + c) // phases, ((low + k) * wide + c) % phases
        if channel >= all_channels:
            break
        for m in range(high):
            for t in range(taps.shape[0]):
                if taps[t, 0] == phase:
                    at = (m * wide + wide - 1 - c) * area - taps[t, 3]
                    for lane in range(LANES):
                        row = (first + lane) * high + m
                        inside = channel - row // filters * channels  # among the channels of the filter's group
                        if row < w.shape[0] and 0 <= inside < channels:
                            _add_weight(w[row, inside, taps[t, 1], taps[t, 2]], at, lane, p, out)
    forward_one(out, roots, p)


@njit(cache=True, nogil=True)
def _add_weight(v: int, at: int, lane: int, p: np.uint32, out: Lanes) -> None:
    if at < 0:  # places are public, values are not
        at, v = at + out.shape[0], -v
    r = np.uint32(out[at, lane] + np.uint32(v + (np.int64(p) & (v >> 63))))
    out[at, lane] = min(r, np.uint32(r - p))


@njit(cache=True, nogil=True)
def _sum_products(
    w: Integers, taps: Index, sizes: Index, kept: Lanes, c0: Lanes, c1: Lanes, places: Index, constants: Lanes,
    roots: Lanes, moduli: Lanes, total: Words, out: Lanes,
) -> None:  # fmt: skip
    """Kernel: out[:, image, group, i] = the sum over k of weights k times the image's ciphertexts."""
    group, first, step, inputs = places
    n, fresh = kept.shape[2], kept.size == 0
    buffer = np.empty((_AT_ONCE if fresh else 0, n, LANES), np.uint32)
    flat0, flat1 = c0.reshape(-1), c1.reshape(-1)
    for i in range(moduli.size):
        total[:] = 0
        for k in range(0, inputs, _AT_ONCE):
            count = min(_AT_ONCE, inputs - k)
            if fresh:
                for a in range(count):
                    _transform(w, taps, sizes, k + a, moduli[i], roots[i], buffer[a])
                weights = buffer.reshape(-1)
            else:
                weights = kept[i, k : k + count].reshape(-1)
            for image in range(total.shape[1]):
                at = first + image * step + k
                _accumulate(total[0, image], total[1, image], weights, flat0, flat1, at, count, i, moduli.size, n)
            if k % _SUMMED == _SUMMED - _AT_ONCE:
                _reduce(total, constants[i], moduli[i])
        _reduce(total, constants[i], moduli[i])
        for image in range(total.shape[1]):
            _narrow(total[0, image], out[0, image, group, i].reshape(-1))
            _narrow(total[1, image], out[1, image, group, i].reshape(-1))


@njit(cache=True, nogil=True)
def _accumulate(
    total0: Words, total1: Words, w: Lanes, c0: Lanes, c1: Lanes, at: int, count: int, i: int, primes: int, n: int
) -> None:
    """Kernel: add the `count` polynomials of w times polynomials at, at + 1, ... of c, in both components."""
    zero, step = np.uint32(0), n * LANES
    if count == _AT_ONCE:
        a, b = _place(at, i, primes, n), _place(at + 1, i, primes, n)
        c, d = _place(at + 2, i, primes, n), _place(at + 3, i, primes, n)
        for j in range(0, n * LANES, LANES):
            multiply_accumulate(total0, j, w, j, step, c0[a + j], c0[b + j], c0[c + j], c0[d + j])
            multiply_accumulate(total1, j, w, j, step, c1[a + j], c1[b + j], c1[c + j], c1[d + j])
        return
    for k in range(count):
        f = _place(at + k, i, primes, n)
        for j in range(0, n * LANES, LANES):
            multiply_accumulate(total0, j, w, k * step + j, 0, c0[f + j], zero, zero, zero)
            multiply_accumulate(total1, j, w, k * step + j, 0, c1[f + j], zero, zero, zero)


@njit(cache=True, nogil=True)
def _place(polynomial: int, i: int, primes: int, n: int) -> int:
    """Where a polynomial begins in flat (groups, primes, n, LANES)."""
    return ((polynomial // LANES) * primes + i) * n * LANES + polynomial % LANES


@njit(cache=True, nogil=True)
def _reduce(total: Words, constants: Lanes, p: np.uint32) -> None:
    c, cs, one, flat = constants[0], constants[1], constants[2], total.reshape(-1)
    for j in range(flat.size):
        r = reduce_word(np.uint32(flat[j] >> np.uint64(32)), np.uint32(flat[j]), c, cs, one, p)
        r = min(r, np.uint32(r - np.uint32(p + p)))
        flat[j] = np.uint64(min(r, np.uint32(r - p)))


@njit(cache=True, nogil=True)
def _narrow(total: Words, out: Lanes) -> None:
    for j in range(out.size):
        out[j] = np.uint32(total[j])
