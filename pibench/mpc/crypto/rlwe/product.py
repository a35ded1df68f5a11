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
from pibench.mpc.crypto.rlwe.vectors import multiply_accumulate

Integers = NDArray[np.int64]
_BLOCK = 256  # coefficients whose sums stay in the first cache
_SUMMED = 512  # products of 54 bits that a word holds, and half as many again
_AT_ONCE = 4  # products that are added before their sum goes back to memory


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
    n, inputs = out0.shape[1], w.shape[1]
    flat, flat0, flat1 = w.reshape(-1), c0.reshape(-1), c1.reshape(-1)
    total0, total1 = np.empty(_BLOCK * LANES, np.uint64), np.empty(_BLOCK * LANES, np.uint64)
    for i in range(moduli.size):
        for start in range(0, n, _BLOCK):
            size = min(_BLOCK, n - start)
            total0[:] = 0
            total1[:] = 0
            for k in range(0, inputs, _AT_ONCE):
                if k % _SUMMED == _SUMMED - _AT_ONCE:
                    _reduce(total0, constants[i], moduli[i])
                    _reduce(total1, constants[i], moduli[i])
                weights = ((i * inputs + k) * n + start) * LANES
                _accumulate(
                    total0, total1, flat, weights, n, flat0, flat1, at + k, inputs - k, i, moduli.size, start, size
                )
            _reduce(total0, constants[i], moduli[i])
            _reduce(total1, constants[i], moduli[i])
            for j in range(size):
                for lane in range(LANES):
                    out0[i, start + j, lane] = np.uint32(total0[j * LANES + lane])
                    out1[i, start + j, lane] = np.uint32(total1[j * LANES + lane])


@njit(cache=True, nogil=True)
def _accumulate(
    total0: Words, total1: Words, w: Lanes, weights: int, n: int, c0: Lanes, c1: Lanes, at: int, left: int, i: int,
    primes: int, start: int, size: int,
) -> None:  # fmt: skip
    """Kernel: add w's polynomials from `weights` on times polynomials at, at + 1, ... of c: 4, or all that are left."""
    step, zero = n * LANES, np.uint32(0)
    a, b, c, d = at, at + 1, at + 2, at + 3
    if left >= _AT_ONCE:
        a, b = _place_of(a, i, primes, n, start), _place_of(b, i, primes, n, start)
        c, d = _place_of(c, i, primes, n, start), _place_of(d, i, primes, n, start)
        for j in range(0, size * LANES, LANES):
            multiply_accumulate(total0, j, w, weights + j, step, c0[a + j], c0[b + j], c0[c + j], c0[d + j])
            multiply_accumulate(total1, j, w, weights + j, step, c1[a + j], c1[b + j], c1[c + j], c1[d + j])
        return
    for k in range(left):
        f = _place_of(at + k, i, primes, n, start)
        for j in range(0, size * LANES, LANES):
            multiply_accumulate(total0, j, w, weights + k * step + j, 0, c0[f + j], zero, zero, zero)
            multiply_accumulate(total1, j, w, weights + k * step + j, 0, c1[f + j], zero, zero, zero)


@njit(cache=True, nogil=True)
def _place_of(polynomial: int, i: int, primes: int, n: int, start: int) -> int:
    """Where coefficient `start` of a polynomial lies in flat (groups, primes, n, LANES)."""
    return (((polynomial // LANES) * primes + i) * n + start) * LANES + polynomial % LANES


@njit(cache=True, nogil=True)
def _reduce(total: Words, constants: Lanes, p: np.uint32) -> None:
    c, cs, one, flat = constants[0], constants[1], constants[2], total.reshape(-1)
    for j in range(flat.size):
        r = reduce_word(np.uint32(flat[j] >> np.uint64(32)), np.uint32(flat[j]), c, cs, one, p)
        r = min(r, np.uint32(r - np.uint32(p + p)))
        flat[j] = np.uint64(min(r, np.uint32(r - p)))
