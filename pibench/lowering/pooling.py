"""How pools, means and sums become operations; windows that leave the image or differ in size are moved into shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from pibench.lowering.builder import Call, Ref, pair
from pibench.lowering.layers import pad_space
from pibench.lowering.moves import rearranged, reshaped
from pibench.lowering.pointwise import affine
from pibench.lowering.program import AvgPool, MaxPool, Pair

Size = int | Sequence[int]
Window = tuple[int, int]  # first and last (not included) of the rows or columns that a window covers
MOST_MOVED = 1 << 23  # scalars that an average over windows of different sizes may write out


def avg_pool2d(
    call: Call, x: Ref, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Ref:  # fmt: skip
    """Lower average pooling; windows with divisors of their own are written out one by one."""
    kernel, step, pad = pair(kernel_size), _stride(stride, kernel_size), pair(padding)
    shape = call.out
    if divisor_override is not None:
        call.refuse("divisor_override")
    if kernel == (1, 1) and step == (1, 1) and pad == (0, 0):
        return x
    leaves = _beyond(x.shape, shape, kernel, step, pad) != (0, 0)
    if not leaves and (pad == (0, 0) or count_include_pad):
        return call.emit(AvgPool, x, shape=shape, kernel=kernel, stride=step, padding=pad)
    if leaves and pad != (0, 0) and count_include_pad:
        call.refuse("ceil_mode with padding that counts")
    windows = [
        [(max(i * s - p, 0), min(i * s - p + k, n)) for i in range(m)]
        for n, m, k, s, p in zip(x.shape[1:], shape[1:], kernel, step, pad, strict=True)
    ]
    return _average(call, x, windows[0], windows[1])


def adaptive_avg_pool2d(call: Call, x: Ref, output_size: Any) -> Ref:
    """Lower adaptive average pooling: a pool where all windows have one size, else windows one by one."""
    size = call.out[1:]
    if all(n % m == 0 for n, m in zip(x.shape[1:], size, strict=True)):
        kernel = (x.shape[1] // size[0], x.shape[2] // size[1])
        return x if kernel == (1, 1) else call.emit(AvgPool, x, kernel=kernel, stride=kernel)
    windows = [_adaptive(n, m) for n, m in zip(x.shape[1:], size, strict=True)]
    return _average(call, x, windows[0], windows[1])


def max_pool2d(
    call: Call, x: Ref, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Ref:  # fmt: skip
    """Lower max pooling. Where padding is not the same on all sides, the image's own edge stands for it.

    A window that leaves the image reads its edge too, and a maximum does not mind a value that it sees twice.
    """
    if pair(dilation) != (1, 1) or return_indices:
        call.refuse("dilation or return_indices")
    kernel, step, pad = pair(kernel_size), _stride(stride, kernel_size), pair(padding)
    beyond = _beyond(x.shape, call.out, kernel, step, pad)
    if beyond != (0, 0) or pad[0] != pad[1]:
        x, pad = pad_space(call, x, pad, (pad[0] + beyond[0], pad[1] + beyond[1]), edge=True), (0, 0)
    return x if kernel == (1, 1) and step == (1, 1) else call.emit(MaxPool, x, kernel=kernel, stride=step, padding=pad)


def adaptive_max_pool2d(call: Call, x: Ref, output_size: Any, return_indices: bool = False) -> Ref:
    """Lower adaptive max pooling where all windows have one size."""
    size = call.out[1:]
    if return_indices or any(n % m for n, m in zip(x.shape[1:], size, strict=True)):
        call.refuse(f"{x.shape[1:]} is no whole multiple of {size}, so that windows would differ in size")
    kernel = (x.shape[1] // size[0], x.shape[2] // size[1])
    return x if kernel == (1, 1) else call.emit(MaxPool, x, kernel=kernel, stride=kernel)


def mean(call: Call, x: Ref, dim: Any = None, keepdim: bool = False, **_: Any) -> Ref:
    """Lower the mean over dimensions of an image; height and width together are a pool."""
    dims = _dims(call, x, dim)
    if dims == [1, 2] and len(x.shape) == 3:
        size = (x.shape[1], x.shape[2])
        pooled = call.emit(AvgPool, x, kernel=size, stride=size, shape=(x.shape[0], 1, 1))
        return reshaped(call, pooled, call.out)
    places = torch.arange(x.count).reshape(x.shape)
    kept = [i for i in range(len(x.shape)) if i not in dims]
    count = math.prod(x.shape[i] for i in dims)
    rows = places.permute(*kept, *dims).reshape(-1, count, 1)
    columns = rearranged(call, [x], rows.flatten(), tuple(rows.shape))
    pooled = call.emit(AvgPool, columns, kernel=(count, 1), stride=(count, 1), shape=(len(rows), 1, 1))
    return reshaped(call, pooled, call.out)


def total(call: Call, x: Ref, dim: Any = None, keepdim: bool = False, **_: Any) -> Ref:
    """Lower a sum over dimensions: the mean, times how many there are."""
    count = math.prod(x.shape[i] for i in _dims(call, x, dim))
    return affine(call, mean(call, x, dim, keepdim), float(count), 0.0)


def _dims(call: Call, x: Ref, dim: Any) -> list[int]:
    """Return the dimensions of one image that are meant."""
    given = [dim] if isinstance(dim, int) else list(dim or [])
    dims = sorted(d % (len(x.shape) + 1) - 1 for d in given)
    if not dims or dims[0] < 0:
        call.refuse("it mixes the images of a batch; give it dimensions of one image, such as dim=(2, 3)")
    return dims


def _stride(stride: Size | None, kernel: Size) -> Pair:
    return pair(kernel) if stride is None or stride == [] else pair(stride)


def _beyond(shape: Sequence[int], out: Sequence[int], kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Return by how many rows and columns the last window goes beyond the padding (ceil_mode)."""
    rows, columns = (
        max(0, (m - 1) * s + k - n - 2 * p)
        for n, m, k, s, p in zip(shape[1:], out[1:], kernel, stride, padding, strict=True)
    )
    return rows, columns


def _adaptive(size: int, windows: int) -> list[Window]:
    """Return torch's windows of an adaptive pool."""
    return [(i * size // windows, -(-(i + 1) * size // windows)) for i in range(windows)]


def _average(call: Call, x: Ref, rows: list[Window], columns: list[Window]) -> Ref:
    """Average each window over the scalars it covers: written out as often as makes all windows equally long."""
    down, across = (_repeated(windows) for windows in (rows, columns))
    count = x.shape[0] * down.numel() * across.numel()
    if count > MOST_MOVED:
        call.refuse(f"its windows differ in size, and writing them out would take {count:,} scalars")
    places = torch.arange(x.count).reshape(x.shape)
    taken = places[:, down.flatten()][:, :, across.flatten()]
    kernel = (down.shape[1], across.shape[1])
    written = rearranged(call, [x], taken.flatten(), tuple(taken.shape))
    return call.emit(AvgPool, written, shape=(x.shape[0], len(rows), len(columns)), kernel=kernel, stride=kernel)


def _repeated(windows: list[Window]) -> torch.Tensor:
    """Return for each window the rows that it covers, each as often as makes all windows of one length."""
    length = math.lcm(*(end - start for start, end in windows))
    return torch.stack(
        [torch.arange(start, end).repeat_interleave(length // (end - start)) for start, end in windows]
    )  # fmt: skip
