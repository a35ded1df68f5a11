"""3x3 convolutions of stride 1 and their gradients in training on a CPU, by Winograd's F(4x4, 3x3) in float32.

A tile of 4x4 outputs takes 36 products a pair of channels instead of 144 (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016, section 4.3). With V = B^T x B the tiles of the input, U = G w G^T those of
the weights, M = V U for each of 36 places and y = A^T M A, every step is linear in each operand; so the gradients are
the same steps transposed, dM = A dy A^T, dU = V^T dM, dw = G^T dU G, dV = dM U^T, dx = B dV B^T, overlaps added up.
Results differ from the direct ones by some 1e-5 of their largest.

Measured on two cores with AVX2 (batch 128, forward and backward, best of four, ms, torch's own and these): 64 channels
of 32x32 pixels 218 and 183, of 16x16 63 and 38, 128 of 16x16 248 and 104, of 8x8 60 and 28, 256 of 8x8 160 and 71, of
4x4 42 and 24, 512 of 4x4 229 and 98. Below 64 channels there is nothing to gain, nor on a processor
with AVX-512, where torch's own have the wider registers (EPYC 9005, best of three: 64 channels of 32x32 pixels 78 and
122, of 16x16 15 and 42, 128 of 16x16 55 and 59, 256 of 8x8 53 and 51, 512 of 4x4 61 and 65).
`python ci/training_steps.py --layers --precision float32` times both.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import config, njit, prange, set_num_threads, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TILE = 4  # outputs of a tile, in each direction
PLACES = 36  # numbers of a tile of the input: (TILE + 3 - 1) squared
CHANNELS = 64  # from which on it wins
CHUNK_BYTES = 16 << 20  # of a chunk's tiles: caches hold some, and the allocator reuses them
_ONE_AT_A_TIME = threading.Lock()  # numba's own pool of threads serves one caller
LANES = 8  # channels that are worked on at once; a layer's must be a multiple
Matrix = tuple[tuple[int, ...], ...]
INPUTS: Matrix = (  # B^T
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OUTPUTS: Matrix = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))  # A^T
WEIGHTS: Matrix = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # 24 G
_WEIGHTS = torch.tensor(WEIGHTS, dtype=torch.float64) / 24
TO_TILES = torch.kron(_WEIGHTS, _WEIGHTS).float()  # (36, 9)
Floats = NDArray[np.float32]


class WinogradConvolution(torch.autograd.Function):
    """A 3x3 convolution of stride 1 and padding 1 without bias, of maps whose sides are multiples of 4."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        """Convolve float32 (N, C, H, W) with (O, C, 3, 3); what comes out is channels_last."""
        inputs, tiles = _pixels_first(images), _weight_tiles(weight)
        outputs = inputs.new_empty(*inputs.shape[:3], len(weight))
        spread, products = _Room(inputs.shape[3]), _Room(len(weight))
        for first, last in _chunks(inputs, tiles):
            v, m = spread.of(inputs[first:last]), products.of(outputs[first:last])
            _run(_spread, inputs[first:last], v)
            torch.bmm(v[:, :-1], tiles, out=m[:, :-1])
            _run(_gather, outputs[first:last], m)
        ctx.save_for_backward(images, tiles)
        return outputs.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of images and weight."""
        images, tiles = ctx.saved_tensors
        to_images, to_weight = ctx.needs_input_grad
        inputs, given = _pixels_first(images), _pixels_first(outputs[0])
        found, sums = inputs.new_empty(inputs.shape if to_images else 0), torch.zeros_like(tiles)
        spread, products = _Room(inputs.shape[3]), _Room(given.shape[3])
        for first, last in _chunks(inputs, tiles):
            v, m = spread.of(inputs[first:last]), products.of(given[first:last])
            _run(_gather_transposed, given[first:last], m)
            if to_weight:
                _run(_spread, inputs[first:last], v)
                sums.baddbmm_(v[:, :-1].transpose(1, 2), m[:, :-1])
            if to_images:
                torch.bmm(m[:, :-1], tiles.transpose(1, 2), out=v[:, :-1])
                _run(_spread_transposed, found[first:last], v)
        to_taps = (TO_TILES.t() @ sums.reshape(PLACES, -1)).reshape(3, 3, *tiles.shape[1:]) if to_weight else None
        return (
            found.permute(0, 3, 1, 2) if to_images else None,
            to_taps.permute(3, 2, 0, 1) if to_taps is not None else None,
        )


class _Room:
    """Memory for the tiles (36, T + 1, channels) of one chunk after another, the first being the largest.

    The last row is spare: without it the 36 numbers of a tile lie powers of two apart, where caches keep few of them at
    a time (1.5 to 2 times as slow).
    """

    def __init__(self, channels: int) -> None:
        self._channels, self._memory = channels, torch.empty(0)

    def of(self, pixels: Tensor) -> Tensor:
        """Return room for the tiles of pixels (N, H, W, any)."""
        count, height, width, _ = pixels.shape
        shape = (PLACES, count * (height // TILE) * (width // TILE) + 1, self._channels)
        if len(self._memory) == 0:
            self._memory = pixels.new_empty(math.prod(shape))
        return self._memory[: math.prod(shape)].view(shape)


def tiles_pay(layer: nn.Conv2d, shape: torch.Size, kind: torch.dtype) -> bool:
    """Whether tiles win on this processor for a layer's images (N, C, H, W) in this precision."""
    wide = min(layer.in_channels, layer.out_channels) >= CHANNELS
    here = torch.backends.cpu.get_cpu_capability() != "AVX512"
    return here and kind == torch.float32 and wide and _fit(shape, layer.weight.shape)


def _fit(shape: torch.Size, weight: torch.Size) -> bool:
    """Whether images come in batches, of sides that tiles fill, and channels fill vector registers."""
    sides = len(shape) == 4 and not any(side % TILE for side in shape[2:])
    return sides and not any(channels % LANES for channels in weight[:2])


def convolve_in_tiles(images: Tensor, weight: Tensor) -> Tensor:
    """Convolve float32 (N, C, H, W) with (O, C, 3, 3), stride and padding 1, and so its gradients.

    Raises ValueError where C or O is no multiple of LANES, H or W none of TILE.
    """
    if not _fit(images.shape, weight.shape):
        raise ValueError(f"images of {tuple(images.shape)} and a weight of {tuple(weight.shape)} make no whole tiles")
    found: Tensor = WinogradConvolution.apply(images, weight)  # type: ignore[no-untyped-call]
    return found


def _pixels_first(images: Tensor) -> Tensor:
    """Return (N, H, W, C), contiguous."""
    return images.detach().permute(0, 2, 3, 1).contiguous()


def _weight_tiles(weight: Tensor) -> Tensor:
    """Return U (36, C, O) of (O, C, 3, 3)."""
    outputs, channels = weight.shape[:2]
    taps = weight.detach().permute(2, 3, 1, 0).reshape(9, -1)
    return (TO_TILES @ taps).reshape(PLACES, channels, outputs)


def _chunks(inputs: Tensor, tiles: Tensor) -> Iterator[tuple[int, int]]:
    """Yield ranges of images whose tiles have CHUNK_BYTES; they do not depend on the number of threads."""
    count, height, width, _ = inputs.shape
    image = PLACES * 4 * max(tiles.shape[1:]) * (height // TILE) * (width // TILE)
    step = max(1, CHUNK_BYTES // image)
    return ((first, min(first + step, count)) for first in range(0, count, step))


def _run(kernel: Callable[[Floats, Floats], None], pixels: Tensor, tiles: Tensor) -> None:
    """Run a kernel on a chunk, in as many threads as torch uses."""
    most: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    with _ONE_AT_A_TIME:
        # numba's OpenMP layer would share torch's runtime, and change how many threads torch has
        config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]
        set_num_threads(min(torch.get_num_threads(), most))
        kernel(pixels.numpy(), tiles.numpy())


# The four kernels go between pixels (N, H, W, C) and tiles (36, T + 1, C); threads share images or tiles.


def _both_sides(matrix: Matrix) -> Any:
    """Make the intrinsic f(a, at, down, across, to, first, below, beside): M X M^T of one tile, in all channels.

    Both arrays are (rows, C); X[i][j] is row at + i down + j across of `a`, the result [r][s] row
    first + r below + s beside of `to`. Compilers do not vectorise this by themselves: too many rows could overlap.
    """

    @intrinsic
    def combine(
        typingctx: Any, a: Any, at: Any, down: Any, across: Any, to: Any, first: Any, below: Any, beside: Any
    ) -> Any:
        signature = types.void(a, at, down, across, to, first, below, beside)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)
            lanes = ir.VectorType(ir.FloatType(), LANES)
            source, target = (make_array(signature.args[n])(context, builder, arguments[n]) for n in (0, 4))  # type: ignore[no-untyped-call]
            channels = builder.extract_value(source.shape, 1)

            def row(array: Any, start: Any, one: Any, i: int, other: Any, j: int, channel: Any) -> Any:
                steps = builder.add(builder.mul(one, word(i)), builder.mul(other, word(j)))
                index = builder.add(builder.mul(builder.add(start, steps), channels), channel)
                return builder.bitcast(builder.gep(array.data, [index]), lanes.as_pointer())

            def weighted(vectors: list[Any]) -> list[Any]:
                return [_sum_of(builder, lanes, factors, vectors) for factors in matrix]

            def transposed(lines: list[list[Any]]) -> list[list[Any]]:
                return [list(line) for line in zip(*lines, strict=True)]

            side, step = len(matrix[0]), word(LANES)
            with cgutils.for_range_slice(builder, word(0), channels, step, word) as (channel, _):
                lines = [
                    [
                        builder.load(row(source, arguments[1], arguments[2], i, arguments[3], j, channel), align=4)
                        for j in range(side)
                    ]
                    for i in range(side)
                ]
                made = transposed([weighted(column) for column in transposed([weighted(line) for line in lines])])
                for r, line in enumerate(made):
                    for s, vector in enumerate(line):
                        pointer = row(target, arguments[5], arguments[6], r, arguments[7], s, channel)
                        builder.store(vector, pointer, align=4)
            return context.get_dummy_value()

        return signature, generate

    return combine


def _sum_of(builder: Any, lanes: Any, factors: tuple[int, ...], vectors: list[Any]) -> Any:
    """Return the sum of vectors times small integers, fused where the processor can."""
    total = None
    for factor, vector in sorted(zip(factors, vectors, strict=True), key=lambda pair: abs(pair[0])):
        if factor == 0:
            continue
        size = abs(factor)
        part = vector
        if size != 1:
            part = builder.fmul(vector, ir.Constant(lanes, [float(size)] * LANES), flags=("contract",))
        if total is None:
            total = builder.fneg(part) if factor < 0 else part
        else:
            total = (builder.fsub if factor < 0 else builder.fadd)(total, part, flags=("contract",))
    return total


def _turned(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


_IN, _IN_TURNED = _both_sides(INPUTS), _both_sides(_turned(INPUTS))
_OUT, _OUT_TURNED = _both_sides(OUTPUTS), _both_sides(_turned(OUTPUTS))


@njit(cache=True, nogil=True, parallel=True)
def _spread(pixels: Floats, tiles: Floats) -> None:
    """Compute V = B^T x B of every tile, zeros beyond the edges."""
    count, height, width, channels = pixels.shape
    down, across, all_tiles = height // TILE, width // TILE, tiles.shape[1]
    from_, to = pixels.reshape(-1, channels), tiles.reshape(-1, channels)
    for image in prange(count):
        window = np.zeros((PLACES, channels), np.float32)
        for p in range(down):
            for q in range(across):
                tile = (image * down + p) * across + q
                y, x = TILE * p - 1, TILE * q - 1
                if y >= 0 and x >= 0 and y + 6 <= height and x + 6 <= width:
                    _IN(from_, (image * height + y) * width + x, width, 1, to, tile, 6 * all_tiles, all_tiles)
                    continue
                for i in range(6):
                    for j in range(6):
                        if 0 <= y + i < height and 0 <= x + j < width:
                            window[6 * i + j] = pixels[image, y + i, x + j]
                        else:
                            window[6 * i + j] = 0
                _IN(window, 0, 6, 1, to, tile, 6 * all_tiles, all_tiles)


@njit(cache=True, nogil=True, parallel=True)
def _spread_transposed(pixels: Floats, tiles: Floats) -> None:
    """Sum B V B^T of the tiles that hold a pixel."""
    count, height, width, channels = pixels.shape
    down, across, all_tiles = height // TILE, width // TILE, tiles.shape[1]
    from_ = tiles.reshape(-1, channels)
    for image in prange(count):
        window = np.zeros((PLACES, channels), np.float32)
        pixels[image] = 0
        for p in range(down):
            for q in range(across):
                tile = (image * down + p) * across + q
                y, x = TILE * p - 1, TILE * q - 1
                _IN_TURNED(from_, tile, 6 * all_tiles, all_tiles, window, 0, 6, 1)
                for i in range(max(0, -y), min(6, height - y)):
                    for j in range(max(0, -x), min(6, width - x)):
                        for c in range(channels):
                            pixels[image, y + i, x + j, c] += window[6 * i + j, c]


@njit(cache=True, nogil=True)
def _corner(tile: int, width: int) -> int:
    """Return the row of pixels (rows, C) where a tile's outputs begin, in maps of `width` pixels."""
    across = width // TILE
    return TILE * (tile // across * width + tile % across)


@njit(cache=True, nogil=True, parallel=True)
def _gather(pixels: Floats, tiles: Floats) -> None:
    """Compute y = A^T M A of every tile."""
    width, channels = pixels.shape[2:]
    rows = tiles.shape[1]
    to, from_ = pixels.reshape(-1, channels), tiles.reshape(-1, channels)
    for tile in prange(rows - 1):
        _OUT(from_, tile, 6 * rows, rows, to, _corner(tile, width), width, 1)


@njit(cache=True, nogil=True, parallel=True)
def _gather_transposed(pixels: Floats, tiles: Floats) -> None:
    """Compute dM = A dy A^T of every tile."""
    width, channels = pixels.shape[2:]
    rows = tiles.shape[1]
    from_, to = pixels.reshape(-1, channels), tiles.reshape(-1, channels)
    for tile in prange(rows - 1):
        _OUT_TURNED(from_, _corner(tile, width), width, 1, to, tile, 6 * rows, rows)
