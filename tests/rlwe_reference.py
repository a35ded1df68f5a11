"""Big-integer references for the ring-LWE tests: independent of the package's kernels, on Python's integers."""

from __future__ import annotations

import math

import numpy as np

from pibench.mpc.crypto.rlwe import ntt
from pibench.mpc.crypto.rlwe.layer import Layer
from pibench.mpc.crypto.rlwe.primes import Ring


def multiply(a: list[int], b: list[int], q: int) -> list[int]:
    """a b modulo x^n + 1 and q, by one product of large integers (Kronecker's substitution)."""
    n, bits = len(a), 2 * q.bit_length() + len(a).bit_length()
    packed = [sum((x % q) << (bits * i) for i, x in enumerate(p)) for p in (a, b)]
    product, mask = packed[0] * packed[1], (1 << bits) - 1
    full = [(product >> (bits * i)) & mask for i in range(2 * n)]
    return [(full[i] - full[i + n]) % q for i in range(n)]


def join(residues: np.ndarray, primes: tuple[int, ...]) -> list[int]:
    """Integers modulo q of residues (primes, size), by the Chinese remainder theorem."""
    q = math.prod(primes)
    weights = [(q // p) * pow(q // p, -1, p) for p in primes]
    return [sum(int(x) * w for x, w in zip(column, weights, strict=True)) % q for column in residues.T]


def signed(x: int, q: int) -> int:
    return x - q if x > q // 2 else x


def coefficients(x: np.ndarray, ring: Ring, lane: int = 0) -> list[int]:
    """Coefficients modulo q of one polynomial of transformed lanes (1, primes, n, LANES)."""
    y = x.copy()
    ntt.backward(y, ring)
    return join(y[0, :, :, lane], ring.primes)


def convolve(layer: Layer, weights: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The layer on words (images, channels, height, width), modulo 2^bits, tap by tap."""
    images, (height, width), (out_h, out_w) = len(part), layer.size, layer.out_size
    padded = np.zeros((images, layer.channels, height + 2 * layer.padding[0], width + 2 * layer.padding[1]), np.uint64)
    padded[:, :, layer.padding[0] : layer.padding[0] + height, layer.padding[1] : layer.padding[1] + width] = part
    out = np.zeros((images, layer.filters, out_h, out_w), np.uint64)
    each, per = layer.filters // layer.groups, layer.channels // layer.groups
    w = weights.astype(np.int64).view(np.uint64)
    for y in range(layer.kernel[0]):
        for x in range(layer.kernel[1]):
            top, left = y * layer.dilation[0], x * layer.dilation[1]
            rows = slice(top, top + (out_h - 1) * layer.stride[0] + 1, layer.stride[0])
            columns = slice(left, left + (out_w - 1) * layer.stride[1] + 1, layer.stride[1])
            for m in range(layer.filters):
                for c in range(per):
                    out[:, m] += padded[:, m // each * per + c, rows, columns] * w[m, c, y, x]
    return out & np.uint64((1 << layer.bits) - 1)
