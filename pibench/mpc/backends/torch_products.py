"""Exact products of words on devices that multiply no 64-bit integers: convolutions as matrix products of limbs.

A word valid modulo 2^b is cut into balanced limbs; products of limbs are summed by a matrix product whose sums are all
whole numbers that its type holds, in whatever order it adds. Two engines:

* *float64* (data-centre cards): sums below 2^53. Limbs of the input alone: two or three products.
* *int8* (every card): `torch._int_mm`, sums below 2^31, limbs of 8 bits of input and weights.

Patches are copied out by hand and multiplied as matrices: a library's convolution may choose an algorithm that is not
exact. Which engine is faster is measured on the layer itself, once a model; what it computes is compared there with
integers on random words.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pibench.errors import PartyError
from pibench.lowering.program import Pair, Shape
from pibench.mpc.ring.conv import MANTISSA_BITS, limbs_for
from pibench.mpc.ring.randomness import Stream, fresh_seed
from pibench.mpc.ring.words import output_size

WORK_BYTES = 1 << 30  # of patches and products at a time: a large batch goes in parts
SAMPLES = 4  # pixels whose outputs are compared with integers
REPEATS = 3  # of a measurement
BYTE, ACCUMULATOR_BITS = 8, 31  # of the int8 engine
INT8_ROWS, INT8_STEP = 17, 8  # torch._int_mm: more than 16 rows, inner size and columns in eights


def cut(words: Tensor, limbs: int, bits: int) -> list[Tensor]:
    """Return words as balanced limbs of so many bits, lowest first; what lies above the last one is dropped."""
    made, keep = [], 64 - bits
    for _ in range(limbs):
        low = (words << keep) >> keep
        made.append(low)
        words = (words - low) >> bits
    return made


@dataclass(frozen=True)
class Float64:
    """Limbs of the input in float64, the weights whole."""

    name: ClassVar[str] = "float64"
    dtype: ClassVar[torch.dtype] = torch.float64
    limbs: int
    limb_bits: int
    weight_limbs: int = 1
    weight_bits: int = 0

    @classmethod
    def fitting(cls, rows: Tensor, bits: int) -> Float64 | None:
        """Return how words of so many bits are cut for these weights (groups, rows, inner); None: not at all."""
        l1_norm = rows.abs().sum(2).max().item()
        if math.ceil(math.log2(l1_norm + 1)) >= MANTISSA_BITS:
            return None
        return cls(*limbs_for(l1_norm, bits))

    def multiply(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return rows (G, R, K) times columns (G, K, N), int64."""
        return torch.bmm(rows, columns).to(torch.int64)


@dataclass(frozen=True)
class Int8:
    """Limbs of 8 bits of input and weights, summed in 32 bits."""

    name: ClassVar[str] = "int8"
    dtype: ClassVar[torch.dtype] = torch.int8
    limbs: int
    weight_limbs: int
    limb_bits: int = BYTE
    weight_bits: int = BYTE

    @classmethod
    def fitting(cls, rows: Tensor, bits: int) -> Int8 | None:
        """Return how words of so many bits are cut for these weights; None where sums could exceed 32 bits."""
        groups, _, inner = rows.shape
        if groups > 1 or inner << 2 * (BYTE - 1) >= 1 << ACCUMULATOR_BITS:
            return None
        largest = int(rows.abs().max())
        weight_limbs = next(n for n in range(1, 9) if largest <= balanced_most(n))
        return cls(-(-bits // BYTE), weight_limbs)

    def multiply(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return rows (1, R, K) times columns (1, K, N), int64; both are filled up to sizes that it takes."""
        (_, r, k), n = rows.shape, columns.shape[2]
        inner, wide, tall = _up(k), _up(n), max(_up(r), INT8_ROWS + INT8_STEP - 1)
        left = torch.nn.functional.pad(rows[0], (0, inner - k, 0, tall - r))
        right = torch.nn.functional.pad(columns[0], (0, wide - n, 0, inner - k))
        return torch._int_mm(left, right)[:r, :n].to(torch.int64)[None]


Engine = Float64 | Int8


def balanced_most(limbs: int) -> int:
    """Return the largest number that so many balanced bytes hold (their least one is further from zero)."""
    return (127 * ((1 << BYTE * limbs) - 1)) // 255


def _up(size: int) -> int:
    return -(-size // INT8_STEP) * INT8_STEP


class LimbConv:
    """A convolution with fixed integer weights, prepared for one input shape and batch, on one device.

    `weight` int64 (O, C/groups, kh, kw) in host memory; call with int64 (N, C, H, W), valid modulo 2^bits, and what is
    added (N, O, H', W'). `engine` is chosen where it is None: of those that are exact, the one that takes least time.
    """

    def __init__(
        self, weight: Tensor, input_shape: Shape, *, batch: int, bits: int, stride: Pair = (1, 1),
        padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1, device: torch.device | str = "cpu",
        engine: str | None = None,
    ) -> None:  # fmt: skip
        self.bits, self.groups, self.out_channels = bits, groups, weight.shape[0]
        self.kernel: Pair = (weight.shape[2], weight.shape[3])
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.out_size = output_size(input_shape[1:], self.kernel, stride, padding, dilation)
        self.weight, self._device = weight, torch.device(device)
        rows = weight.reshape(groups, -1, weight[0].numel())
        kinds: tuple[type[Engine], ...] = (Float64, Int8)
        found = [made for kind in kinds if (made := kind.fitting(rows, bits)) is not None]
        fitting = [made for made in found if engine in (None, made.name)]
        if not fitting:
            raise PartyError(f"no engine multiplies {bits}-bit words by these weights exactly")
        random = Stream(fresh_seed()).words(batch * math.prod(input_shape)).reshape(batch, *input_shape)
        on_card, x = self._device.type != "cpu", torch.from_numpy(random)
        self.engine = self._fastest(rows, fitting, x) if on_card and len(fitting) > 1 else fitting[0]
        self._rows = self._laid_out(rows, self.engine)
        if on_card:
            self._compare(x)

    def __call__(self, x: Tensor, add: Tensor) -> Tensor:
        """Return the convolution of x modulo 2^bits, plus `add`."""
        return add + self._apply(x, self._rows, self.engine)

    def _apply(self, x: Tensor, rows: Tensor, engine: Engine) -> Tensor:
        pixels = math.prod(self.out_size)
        copied = engine.dtype.itemsize * math.prod(self.kernel) * x.shape[1]
        a_pixel = engine.limbs * (copied + 16 * engine.weight_limbs * self.out_channels)
        step = max(1, WORK_BYTES // (pixels * a_pixel))
        parts = [self._product(part, rows, engine) for part in torch.split(x, step)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _product(self, x: Tensor, rows: Tensor, engine: Engine) -> Tensor:
        n, (h, w) = len(x), self.out_size
        limbs = torch.cat(cut(x, engine.limbs, engine.limb_bits)).to(engine.dtype)  # (limb, N, ...) in one
        made = engine.multiply(rows, patches(limbs, self.kernel, self.stride, self.padding, self.dilation, self.groups))
        made = made.reshape(self.groups, engine.weight_limbs, -1, engine.limbs, n, h, w)
        total: Tensor | None = None
        for i in range(engine.weight_limbs):
            for j in range(engine.limbs):
                if (shift := i * engine.weight_bits + j * engine.limb_bits) < self.bits:
                    term = made[:, i, :, j] << shift
                    total = term if total is None else total.add_(term)
        assert total is not None
        return total.reshape(self.out_channels, n, h, w).transpose(0, 1).contiguous()

    def _laid_out(self, rows: Tensor, engine: Engine) -> Tensor:
        """Return the weights (groups, weight limb and row, inner) on the device."""
        parts = [rows] if engine.weight_limbs == 1 else cut(rows, engine.weight_limbs, engine.weight_bits)
        return torch.cat(parts, dim=1).to(engine.dtype).to(self._device)

    def _fastest(self, rows: Tensor, engines: list[Engine], x: Tensor) -> Engine:
        x = x.to(self._device)

        def seconds(engine: Engine) -> float:
            laid, taken = self._laid_out(rows, engine), []
            try:
                for _ in range(REPEATS + 1):  # the first one warms up
                    self._wait()
                    start = time.perf_counter()
                    self._apply(x, laid, engine)
                    self._wait()
                    taken.append(time.perf_counter() - start)
            except RuntimeError:  # a card or its library that has no such product, or no room for it
                return math.inf
            return min(taken[1:])

        best = min(engines, key=(found := {engine: seconds(engine) for engine in engines}).__getitem__)
        if found[best] == math.inf:
            raise PartyError("no engine multiplies on this device", remedy="a smaller batch takes less memory")
        return best

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _compare(self, x: Tensor) -> None:
        """Raise PartyError where some outputs, all channels of a few pixels, are not what integers make of them."""
        made = self._apply(x.to(self._device), self._rows, self.engine).to("cpu").numpy()
        picked = Stream(fresh_seed()).words(3 * SAMPLES).view(np.uint64).reshape(SAMPLES, 3) % np.uint64(1 << 31)
        padded = torch.nn.functional.pad(x, _around(self.padding)).numpy()
        each, (kh, kw) = self.out_channels // self.groups, self.kernel
        weight = self.weight.numpy()
        for n, y, z in (row.astype(int) % (len(x), *self.out_size) for row in picked):
            top, left = y * self.stride[0], z * self.stride[1]
            rows = slice(top, top + self.dilation[0] * (kh - 1) + 1, self.dilation[0])
            columns = slice(left, left + self.dilation[1] * (kw - 1) + 1, self.dilation[1])
            patch = padded[n, :, rows, columns].reshape(self.groups, -1)
            wanted = (weight.reshape(self.groups, each, -1) * patch[:, None]).sum(-1).reshape(-1)
            if (((made[n, :, y, z] - wanted) << (64 - self.bits)) != 0).any():
                raise PartyError(
                    f"this device multiplies {self.bits}-bit words wrongly by its {self.engine.name} engine",
                    remedy="run the case on the processor, and report the card's name and torch's version",
                )


def patches(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Tensor:
    """Return the patches of x (N, C, H, W) as columns: (groups, C/groups kh kw, N H' W')."""
    n, channels = x.shape[:2]
    h, w = output_size(tuple(x.shape[2:]), kernel, stride, padding, dilation)
    padded = torch.nn.functional.pad(x, _around(padding)).contiguous()
    sn, sc, sh, sw = padded.stride()
    view = padded.as_strided(
        (groups, channels // groups, *kernel, n, h, w),
        (sc * channels // groups, sc, sh * dilation[0], sw * dilation[1], sn, sh * stride[0], sw * stride[1]),
    )
    return view.reshape(groups, channels // groups * kernel[0] * kernel[1], n * h * w)


def _around(padding: Pair) -> tuple[int, int, int, int]:
    return padding[1], padding[1], padding[0], padding[0]


def limbs_of_full_words(inner: int) -> tuple[int, int]:
    """Return how many balanced limbs of how many bits both operands of a sum of `inner` products are cut into."""
    bits = (MANTISSA_BITS - math.ceil(math.log2(inner + 1))) // 2 + 1
    limbs = -(-64 // bits)
    return limbs, -(-64 // limbs)


def conv_words(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Tensor:
    """Convolve full 64-bit words modulo 2^64, both operands cut into limbs in float64 (offline work)."""
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    limbs, bits = limbs_of_full_words(rows.shape[2])
    kernel: Pair = (weight.shape[2], weight.shape[3])
    h, w = output_size(tuple(x.shape[2:]), kernel, stride, padding, dilation)
    step = max(1, WORK_BYTES // (h * w * 8 * (limbs * rows.shape[2] * groups + 3 * weight.shape[0])))
    lefts, made = [limb.to(torch.float64) for limb in cut(rows, limbs, bits)], []
    for part in torch.split(x, step):
        whole = [limb.to(torch.float64) for limb in cut(part, limbs, bits)]
        rights = [patches(limb, kernel, stride, padding, dilation, groups) for limb in whole]
        total: Tensor | None = None
        for i, left in enumerate(lefts):
            for j, right in enumerate(rights[: limbs - i]):  # what lies above 2^64 counts for nothing
                term = torch.bmm(left, right).to(torch.int64) << (bits * (i + j))
                total = term if total is None else total.add_(term)
        assert total is not None
        made.append(total.reshape(weight.shape[0], len(part), h, w).transpose(0, 1))
    return torch.cat(made).contiguous()
