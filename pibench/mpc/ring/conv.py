"""Convolutions over Z_2^bits with fixed small weights: exact, at the speed of the processor's fastest multiplier.

A convolution of integers is a matrix product of its weights with patches of its input, or, for 3x3 of stride 1, of
transformed weights with transformed tiles (winograd.py). The product is done by one of two engines (registers.py):
modulo 2^52 with AVX-512 IFMA where the processor has it, else in float64, whose sums are exact below 2^53. Words that
are too wide for an engine are cut into balanced limbs. All three choices follow from shapes and bounds, once a model.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pibench.lowering.program import Pair, Shape
from pibench.mpc.ring import registers
from pibench.mpc.ring.layout import Columns, combine, gather_tiles, spread_patches, spread_tiles
from pibench.mpc.ring.winograd import F2, F4, Tiling
from pibench.mpc.ring.words import Ints, output_size

MANTISSA_BITS = 53
# Measured on one core of an EPYC (Zen 4; products on a Xeon, too): what decides between filterings, no result.
PRODUCTS_A_S = 33e9
WEIGHT_BYTES_A_S = 6e9  # a model's weights lie in no core's own cache
# Words transformed, cut and laid out, and the places of a plane at which it is half of that, by a filtering's side.
WORDS_A_S = {0: (1.7e9, 50), 2: (1.9e9, 15), 4: (1.15e9, 15)}
AFTER = 0.5  # the share of it that a further limb costs which is cut after the transform


@dataclass(frozen=True)
class Engine:
    """One way to multiply: how words are cut for it, and how the matrices lie in memory."""

    exact: bool  # modulo 2^52 (IFMA); else in float64
    limbs: int
    limb_bits: int
    unit: registers.Unit | None  # whose registers; None: torch's product, of one panel of all columns
    first: bool = False  # words are cut before a filtering's transform, which then is each limb's own; else after it

    @property
    def drop(self) -> int:
        """Bits of a product's 64-bit word that mean nothing."""
        return 64 - registers.WORD_BITS if self.exact else 0

    def width(self, columns: int) -> int:
        """Return how many columns lie side by side in memory."""
        return self.unit.panel_width(columns) if self.unit else columns

    def height(self, rows: int) -> int:
        """Return how many rows lie below each other, for so many that count."""
        return -(-rows // self.unit.rows) * self.unit.rows if self.unit else rows


def engine_for(l1_norm: float, largest: float, bits: int, *, ifma: bool, tiles: bool) -> Engine:
    """Return the engine for weights whose filters have that L1 norm at most, and words of so many bits.

    `tiles`: the columns are those of tiles, an input channel each, and no patches.
    """
    if ifma and largest < registers.NARROW:
        if bits <= registers.WORD_BITS:
            return Engine(True, 1, registers.WORD_BITS, registers.WORDS)
        low = registers.WORD_BITS - 1 - math.ceil(math.log2(max(l1_norm, 1.0) + 1)) + 1  # sums of low limbs are whole
        if bits - low <= registers.WORD_BITS and low > 0:
            return Engine(True, 2, low, registers.WORDS)
    unit = registers.SHORT_DOUBLES if tiles else registers.DOUBLES
    fits = registers.doubles_available() and largest < registers.NARROW
    return Engine(False, *limbs_for(l1_norm, bits), unit if fits else None)


def cut_first(tiling: Tiling, weight: Tensor, bits: int) -> Engine | None:
    """Return the 52-bit engine for words that leave F(4x4, 3x3) no spare bits: cut before it, each limb has them.

    None where the low limb's sums, by filters `weight` (O, C, 3, 3), would not be whole: then its top bits would count.
    """
    low, size = bits + tiling.spare_bits - registers.WORD_BITS, weight.abs()
    whole = low - 1 + int(size.sum((1, 2, 3)).max()).bit_length()  # bits of a sum of balanced low limbs, but its sign
    wide = int(size.max()) * tiling.growth >= registers.NARROW
    if tiling.odd_factor == 1 or low <= 0 or whole >= registers.WORD_BITS - tiling.spare_bits or wide:
        return None
    return Engine(True, 2, low, registers.WORDS, first=True)


def limbs_for(l1_norm: float, bits: int) -> tuple[int, int]:
    """Return how many balanced limbs of how many bits keep every partial sum below 2^53 in float64."""
    room = MANTISSA_BITS - math.ceil(math.log2(max(l1_norm, 1.0) + 1))
    limbs = -(-bits // max(room + 1, 1))  # a balanced limb of b bits is at most 2^(b-1)
    return limbs, -(-bits // limbs)


class RingConv:
    """A convolution with fixed small integer weights, prepared for one input shape.

    `weight` int64 (O, C/groups, kh, kw); call with int64 (N, C, H, W), valid modulo 2^bits, and get int64
    (N, O, H', W') valid modulo 2^bits; `add` (same shape as the result) is added on the way. `tiling` and `ifma` are
    chosen where they are None; a tiling that does not fit the convolution or its bits is not used.
    """

    def __init__(
        self,
        weight: Tensor,
        input_shape: Shape,
        *,
        bits: int,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
        tiling: Tiling | Literal[False] | None = None,
        ifma: bool | None = None,
    ) -> None:
        self.bits, self.groups = bits, groups
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.kernel: Pair = (weight.shape[2], weight.shape[3])
        self.out_channels = weight.shape[0]
        self.out_size = output_size(input_shape[1:], self.kernel, stride, padding, dilation)
        enough = self.out_channels // groups >= registers.WORDS.rows // 2  # fewer rows leave the registers empty
        ifma = registers.words_available() and enough if ifma is None else ifma
        suits = self.kernel == (3, 3) and stride == dilation == (1, 1) and groups == 1
        cut = ifma and suits and not self._in_a_word(F4)  # looked at once: it reads all weights
        self._first = cut_first(F4, weight, bits) if cut else None
        if not suits or tiling is False or (tiling and not self._fits(tiling)):
            self.tiling: Tiling | None = None
        else:
            self.tiling = tiling or self._tiling(weight, ifma)
        if self.tiling:
            matrix = self.tiling.transform(weight)
        else:
            matrix = weight.reshape(groups, self.out_channels // groups, -1)
        size, spare = matrix.abs(), self.tiling.spare_bits if self.tiling else 0
        if self._first is not None and self.tiling is F4:
            self.engine = self._first
        else:
            norm, largest, tiles = size.sum(2).max().item(), size.max().item(), self.tiling is not None
            self.engine = engine_for(norm, largest, bits + spare, ifma=ifma, tiles=tiles)
        unit = self.engine.unit
        self._rows: Any = registers.pack_rows(matrix.numpy(), unit) if unit else matrix.double()
        self.matrix_shape: Shape = tuple(matrix.shape)
        self._desks: dict[int, _Desk] = {}  # by batch size

    def _tiling(self, weight: Tensor, ifma: bool) -> Tiling | None:
        """Choose what should take the least time, of the products, the weights to read and the words to transform."""
        outputs, inputs = weight.shape[:2]

        def seconds(tiling: Tiling | None) -> float:
            spare, side = (tiling.spare_bits, tiling.side) if tiling else (0, 0)
            limbs = 1 if ifma and self.bits + spare <= registers.WORD_BITS else 2
            columns = math.prod(tiling.tiles(*self.out_size) if tiling else self.out_size)
            places = tiling.positions if tiling else math.prod(self.kernel)
            width = registers.WORDS.panel_width(limbs * columns) if ifma else 1
            products = places * outputs * inputs * (-(-limbs * columns // width) * width) / PRODUCTS_A_S
            read = places * outputs * inputs * (4 if ifma else 8) / WEIGHT_BYTES_A_S
            most, half = WORDS_A_S[side]
            words = places * columns * (inputs + (outputs if tiling else outputs / places))
            words *= limbs if tiling and not self._in_a_word(tiling) else 1 + AFTER * (limbs - 1)
            return max(products, read) + words * (1 + half / columns) / most

        fitting = [tiling for tiling in ((F2, F4) if ifma else (F2,)) if self._fits(tiling)]
        return min([None, *fitting], key=seconds)

    def _in_a_word(self, tiling: Tiling) -> bool:
        """Whether there are bits for its factor: in a 64-bit word, or where an odd factor's inverse is right."""
        return self.bits + tiling.spare_bits <= (64 if tiling.odd_factor == 1 else registers.WORD_BITS)

    def _fits(self, tiling: Tiling) -> bool:
        """Whether there are bits for its factor, in words as they are or cut before the transform."""
        return self._in_a_word(tiling) or (tiling is F4 and self._first is not None)

    def __call__(self, x: Ints, add: Ints | None = None) -> Ints:
        """Return the convolution of x modulo 2^bits, plus `add`."""
        out = np.empty((len(x), self.out_channels, *self.out_size), np.int64)
        if add is None:
            add = np.zeros_like(out)
        desk = self._desks.get(len(x))
        if desk is None or not desk.stands:
            desk = self._desks[len(x)] = _Desk(self, x.shape)
        x, (ph, pw), engine = np.ascontiguousarray(x), self.padding, self.engine
        if self.tiling:
            tall, wide = self.tiling.tiles(*self.out_size)
            spread_tiles(
                x, ph, pw, self.tiling.side, tall, wide, engine.limbs, engine.limb_bits, engine.drop, engine.first,
                desk.columns,
            )  # fmt: skip
        else:
            (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
            rows, columns = self.out_size
            spread_patches(
                x, kh, kw, sh, sw, ph, pw, dh, dw, rows, columns, engine.limbs, engine.limb_bits, engine.drop,
                desk.columns,
            )  # fmt: skip
        self._multiply(desk)
        if self.tiling:
            inverse = pow(self.tiling.odd_factor, -1, 1 << 52)
            gather_tiles(
                desk.product, self.tiling.side, tall, wide, engine.limbs, engine.limb_bits, engine.drop, inverse,
                engine.first, add, out,
            )  # fmt: skip
        else:
            flat = (len(x), self.out_channels, -1)
            combine(
                desk.product, engine.limbs, engine.limb_bits, engine.drop, add.reshape(flat), out.reshape(flat)
            )  # fmt: skip
        return out

    def _multiply(self, desk: _Desk) -> None:
        if unit := self.engine.unit:
            registers.multiply(self._rows, desk.columns, desk.product, unit.lanes)
        else:
            torch.bmm(self._rows, desk.left, out=desk.right)


class _Desk:
    """The working memory of a convolution for one batch size, in the shapes that its parts want.

    Laid over the buffers that all convolutions share, once: making views costs more than small products do.
    """

    def __init__(self, conv: RingConv, shape: Shape) -> None:
        pixels = math.prod(conv.tiling.tiles(*conv.out_size) if conv.tiling else conv.out_size)
        count = conv.engine.limbs * shape[0] * pixels
        width = conv.engine.width(count)
        batches, rows, inner = conv.matrix_shape
        rows = conv.engine.height(rows)
        spread: Shape = (batches, -(-count // width), inner, width)
        made: Shape = (batches, rows, spread[1] * width)
        self._held = _scratch("columns", math.prod(spread)), _scratch("product", math.prod(made))
        kind = torch.int64 if conv.engine.exact else torch.float64
        left, right = (
            held[: math.prod(size)].view(kind).view(size) for held, size in zip(self._held, (spread, made), strict=True)
        )
        self.columns: Columns = left.numpy()
        self.product: Columns = right.numpy()
        self.left, self.right = left[:, 0], right

    @property
    def stands(self) -> bool:
        """Whether the shared buffers are still those that it lies over."""
        return self._held[0] is getattr(_buffers, "columns", None) and self._held[1] is getattr(
            _buffers, "product", None
        )


_buffers = threading.local()


def _scratch(name: str, size: int) -> Tensor:
    """Return a buffer of at least `size` words, shared and only growing: fresh pages cost more than the copy."""
    held: Tensor | None = getattr(_buffers, name, None)
    if held is None or held.numel() < size:
        held = torch.empty(size, dtype=torch.int64)
        setattr(_buffers, name, held)
    return held


def compile_convolutions() -> None:
    """Run every kernel of every engine once: seconds the first time on a machine, a moment afterwards."""
    for ifma in (True, False) if registers.words_available() else (False,):
        for tiling in (False, F2, F4):
            for columns in range(1, registers.WIDEST + 1) if not tiling else (1,):
                weight = torch.ones(1, 1, 3, 3, dtype=torch.int64)
                size = (1, registers.WORDS.lanes * columns)
                conv = RingConv(weight, (1, *size), bits=46, padding=(1, 1), tiling=tiling, ifma=ifma)
                conv(np.zeros((1, 1, *size), np.int64))
