"""The server's weights as polynomials, and their products with ciphertexts.

Weights are kept transformed where memory allows (`memory_bytes`), since that is most of the work; others are made anew
for every inference, a group of eight output polynomials at a time, so that memory is bounded whatever the network.
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

Integers = NDArray[np.int64]
_BLOCK = 256  # coefficients whose sums stay in the first cache
_SUMMED = 512  # products of 54 bits that a word holds


@dataclass
class Weights:
    """One layer's weights (filters, channels of a group, *kernel), |w| < 2^26, and how they lie in polynomials."""

    packing: Packing
    ring: Ring
    integers: Integers
    kept: list[Lanes] | None = None

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
        self.kept = [self._transformed(group) for group in range(self.groups)]

    def _transformed(self, group: int) -> Lanes:
        """Return (primes, inputs, n, LANES) of one group."""
        low, high = self.readers(group)
        packing, layer = self.packing, self.packing.layer
        out = np.zeros((self.ring.count, high - low, self.ring.n, LANES), np.uint32)
        sizes = np.array([
            group * LANES, low, packing.wide, packing.high, packing.area, len(packing.phases),
            layer.channels // layer.groups, layer.filters // layer.groups, layer.channels,
        ])  # fmt: skip
        _transform(self.integers, self._taps, sizes, self.ring.roots, self.ring.moduli, out)
        return out

    def products(self, c0: Lanes, c1: Lanes, images: int) -> Iterator[tuple[Lanes, Lanes]]:
        """Yield by image (groups, primes, n, LANES) twice: the sums of products of an image's ciphertexts.

        c0 and c1 hold images * inputs polynomials, transformed.
        """
        ring = self.ring
        out = np.empty((2, images, self.groups, ring.count, ring.n, LANES), np.uint32)
        constants = word_constants(ring.primes)
        for group in range(self.groups):
            low, _ = self.readers(group)
            weights = self.kept[group] if self.kept else self._transformed(group)
            for image in range(images):
                at = image * self.packing.inputs + low
                _sum_products(weights, c0, c1, at, constants, ring.moduli, out[0, image, group], out[1, image, group])
        yield from zip(*out, strict=True)


@njit(cache=True, nogil=True)
def _transform(w: Integers, taps: Index, sizes: Index, roots: Lanes, moduli: Lanes, out: Lanes) -> None:
    for i in range(moduli.size):
        for k in range(out.shape[1]):
            _place(w, taps, sizes, k, moduli[i], out[i, k])
            forward_one(out[i, k], roots[i], moduli[i])


@njit(cache=True, nogil=True)
def _place(w: Integers, taps: Index, sizes: Index, k: int, p: np.uint32, out: Lanes) -> None:
    """Kernel: the weights of LANES output polynomials for one input polynomial, as residues below 2p."""
    first, low, wide, high, area, phases, channels, filters, all_channels = sizes
    n, modulus = out.shape[0], np.int64(p)
    for lane in range(LANES):
        for m in range(high):
            row = (first + lane) * high + m
            if row >= w.shape[0]:
                break
            start = row // filters * channels  # of the filter's group
            for c in range(wide):
                channel, phase = ((low + k) * wide + c) // phases, ((low + k) * wide + c) % phases
                if channel < start or channel >= start + channels or channel >= all_channels:
                    continue
                for t in range(taps.shape[0]):
                    if taps[t, 0] != phase:
                        continue
                    at = (m * wide + wide - 1 - c) * area - taps[t, 3]
                    v = w[row, channel - start, taps[t, 1], taps[t, 2]]
                    if at < 0:  # places are public, values are not
                        at, v = at + n, -v
                    v += modulus & (v >> 63)
                    r = np.uint32(out[at, lane] + np.uint32(v))
                    out[at, lane] = min(r, np.uint32(r - p))


@njit(cache=True, nogil=True)
def _sum_products(
    w: Lanes, c0: Lanes, c1: Lanes, at: int, constants: Lanes, moduli: Lanes, out0: Lanes, out1: Lanes
) -> None:
    """Kernel: out (primes, n, LANES) = sum over k of w[:, k] times polynomial at + k of c, for both c."""
    total0, total1 = np.empty((_BLOCK, LANES), np.uint64), np.empty((_BLOCK, LANES), np.uint64)
    for i in range(moduli.size):
        for start in range(0, out0.shape[1], _BLOCK):
            stop = min(start + _BLOCK, out0.shape[1])
            total0[:] = 0
            total1[:] = 0
            for k in range(w.shape[1]):
                group, lane = (at + k) // LANES, (at + k) % LANES
                if k % _SUMMED == _SUMMED - 1:
                    _reduce(total0, constants[i], moduli[i])
                    _reduce(total1, constants[i], moduli[i])
                _accumulate(
                    w[i, k, start:stop], c0[group, i, start:stop], c1[group, i, start:stop], lane, total0, total1
                )
            _reduce(total0, constants[i], moduli[i])
            _reduce(total1, constants[i], moduli[i])
            for j in range(start, stop):
                for o in range(LANES):
                    out0[i, j, o] = np.uint32(total0[j - start, o])
                    out1[i, j, o] = np.uint32(total1[j - start, o])


@njit(cache=True, nogil=True)
def _accumulate(w: Lanes, c0: Lanes, c1: Lanes, lane: int, total0: Words, total1: Words) -> None:
    for j in range(w.shape[0]):
        u, v = np.uint64(c0[j, lane]), np.uint64(c1[j, lane])
        for o in range(LANES):
            total0[j, o] += np.uint64(w[j, o]) * u
        for o in range(LANES):
            total1[j, o] += np.uint64(w[j, o]) * v


@njit(cache=True, nogil=True)
def _reduce(total: Words, constants: Lanes, p: np.uint32) -> None:
    c, cs, one, flat = constants[0], constants[1], constants[2], total.reshape(-1)
    for j in range(flat.size):
        r = reduce_word(np.uint32(flat[j] >> np.uint64(32)), np.uint32(flat[j]), c, cs, one, p)
        r = min(r, np.uint32(r - np.uint32(p + p)))
        flat[j] = np.uint64(min(r, np.uint32(r - p)))
