"""Ring elements on the wire with as many bytes as they have valid ones: planes of 4, 2 and 1 bytes, low first."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Halves = NDArray[np.uint32]
Bytes = NDArray[np.uint8]


def pack(values: Ints, width: int) -> Bytes:
    """Return the low `width` bytes of every element of a flat int64 array, as planes."""
    n = values.size
    if width == 8:
        return values.view(np.uint8)
    out = np.empty(n * width, np.uint8)
    for lane, shift in _planes(out, n, width):
        _take(values, shift, lane)
    return out


def unpack(data: Bytes, width: int) -> Ints:
    """Return the flat int64 array that `pack` made `data` of, sign-extended."""
    n = data.size // width
    if width == 8:
        return data.view(np.int64)
    out = np.zeros(n, np.int64)
    for lane, shift in _planes(data, n, width):
        _put(lane, shift, out)
    _extend(out, 64 - 8 * width)
    return out


def pack_halves(values: Halves, width: int) -> Bytes:
    """Return the low `width` bytes, 4 at most, of every element of a flat uint32 array, as planes."""
    if width == 4:
        return values.view(np.uint8)
    return values.astype(np.uint16).view(np.uint8) if width == 2 else pack(values.astype(np.int64), width)


def unpack_halves(data: Bytes, width: int) -> Halves:
    """Return the flat uint32 array, modulo 2^(8 width), that `pack_halves` made `data` of."""
    if width == 4:
        return data.view(np.uint32)
    return (data.view(np.uint16) if width == 2 else unpack(data, width)).astype(np.uint32)


def _planes(data: Bytes, n: int, width: int) -> list[tuple[NDArray[np.unsignedinteger], int]]:
    planes: list[tuple[NDArray[np.unsignedinteger], int]] = []
    at = 0
    for size, kind in ((4, np.uint32), (2, np.uint16), (1, np.uint8)):
        if width & size:
            planes.append((data[at * n : (at + size) * n].view(kind), 8 * at))
            at += size
    return planes


@njit(cache=True, nogil=True)
def _take(values: Ints, shift: int, lane: NDArray[np.unsignedinteger]) -> None:
    for i in range(values.size):
        lane[i] = values[i] >> shift


@njit(cache=True, nogil=True)
def _put(lane: NDArray[np.unsignedinteger], shift: int, out: Ints) -> None:
    for i in range(out.size):
        out[i] |= np.int64(lane[i]) << shift


@njit(cache=True, nogil=True)
def _extend(out: Ints, keep: int) -> None:
    for i in range(out.size):
        out[i] = (out[i] << keep) >> keep
