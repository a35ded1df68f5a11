"""The processor's backend: numpy arrays, and kernels that numba compiles."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from pibench.lowering.program import Pair, Shape
from pibench.mpc.backends import kernels
from pibench.mpc.backends.backend import BITS_MASK, Backend, Digits, Kind, Multiply
from pibench.mpc.ring import packing
from pibench.mpc.ring.conv import RingConv, compile_convolutions
from pibench.mpc.ring.randomness import Stream, blocks_at
from pibench.mpc.ring.words import RingMatrix, conv_words

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Halves = NDArray[np.uint32]
Bytes = NDArray[np.uint8]
Array = NDArray[Any]
Places = tuple[NDArray[np.int64], NDArray[np.int64], bool]  # positions, where there is none, whether all stay in place

_COMBINATION = kernels.combination()
_AT_ONCE = 1024  # elements whose pads are made together: a megabyte of blocks, which caches hold


class NumpyBackend(Backend):
    """See Backend, which says what every operation does; host memory is its own memory."""

    name: ClassVar[str] = "numpy"

    @property
    def device(self) -> str:
        """The processor."""
        return "cpu"

    def prepare(self) -> None:
        """Compile every kernel, or load it from numba's cache."""
        _compile_kernels()

    # ---- places

    def buffer(self, size: int) -> Bytes:
        return np.empty(size, np.uint8)

    def lift(self, array: Array) -> Array:
        return array

    def host(self, array: Array) -> Array:
        return array

    def stack(self, parts: list[Array]) -> Array:
        return np.stack(parts)

    def flat(self, x: Array) -> Array:
        return np.ascontiguousarray(x).reshape(-1)

    def view(self, data: Bytes, kind: Kind) -> Array:
        return data.view(kind)

    def raw(self, x: Array) -> Bytes:
        return x.view(np.uint8)

    def words(self, x: Bytes | Halves) -> Ints:
        return x.astype(np.int64)

    def stream(self, seed: bytes) -> Stream:
        return Stream(seed)

    # ---- messages, fixed point

    def pack(self, x: Ints, width: int) -> Bytes:
        return packing.pack(x, width)

    def unpack(self, data: Bytes, width: int) -> Ints:
        return packing.unpack(data, width)

    def pack_halves(self, x: Halves, width: int) -> Bytes:
        return packing.pack_halves(x, width)

    def unpack_halves(self, data: Bytes, width: int) -> Halves:
        return packing.unpack_halves(data, width)

    def pack_bits(self, bits: Bytes) -> Bytes:
        return np.packbits(bits)

    def unpack_bits(self, data: Bytes, count: int) -> Bytes:
        return np.unpackbits(data, count=count)

    def encode(self, values: Tensor, fraction_bits: int) -> Ints:
        """As `fixedpoint.encode`; one image is so small that torch's first operations would cost more than it."""
        scaled = values.numpy() * np.float64(1 << fraction_bits)
        return np.rint(scaled, out=scaled).astype(np.int64)

    def decode(self, x: Ints, fraction_bits: int) -> Tensor:
        return torch.from_numpy(x.astype(np.float64) / 2.0**fraction_bits).float()

    # ---- products

    def conv(
        self, weight: Tensor, input_shape: Shape, *, batch: int, bits: int, stride: Pair, padding: Pair,
        dilation: Pair, groups: int,
    ) -> Multiply:  # fmt: skip
        return RingConv(
            weight, input_shape, bits=bits, stride=stride, padding=padding, dilation=dilation, groups=groups
        )

    def matrix(self, weight: Tensor, *, batch: int, bits: int) -> Multiply:
        return RingMatrix(weight)

    def conv_words(self, x: Ints, weight: Ints, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Ints:
        made = conv_words(torch.from_numpy(x), torch.from_numpy(weight), stride, padding, dilation, groups)
        return made.numpy()

    # ---- moves

    def pool_sum(self, x: Ints, kernel: Pair, stride: Pair, padding: Pair) -> Ints:
        (ph, pw), (sh, sw) = padding, stride
        if x.shape[2:] == kernel and not (ph or pw):  # global pooling, the usual case
            total: Ints = x.reshape(*x.shape[:2], -1).sum(-1)[:, :, None, None]
            return total
        padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        summed: Ints = sliding_window_view(padded, kernel, axis=(2, 3))[:, :, ::sh, ::sw].sum((-1, -2))
        return summed

    def places(self, index: NDArray[np.int64]) -> Places:
        return index, np.flatnonzero(index < 0), bool((index == np.arange(len(index))).all())

    def _join(self, rows: list[Ints]) -> Ints:
        return np.concatenate(rows, axis=1)

    def choose(self, bits: Bytes, one: Halves, zero: Halves) -> Halves:
        return np.where(bits.astype(bool), one, zero)

    # ---- steps of the conversations

    def open_masked(self, x: Ints, mask: Ints, low: int) -> Ints:
        c = np.empty(x.size, np.int64)
        kernels.open_masked(x, mask, low, c)
        return c

    def opened_mask(self, mask: Ints, bits: int, low: int) -> Ints:
        return kernels.shift_down(kernels.cut(mask, bits), low)

    def read_digits(self, c: Ints, table: Words, mask: Bytes, digits: Digits) -> Bytes:
        bits = np.empty(c.size, np.uint8)
        kernels.read_digits(c, table, mask, digits, bits)
        return bits

    def answer(self, bits: Bytes, theirs: Bytes, table: Words) -> Bytes:
        reply = np.empty(bits.size, np.uint8)
        kernels.answer(bits, theirs, table, reply)
        return reply

    def decide(self, bits: Bytes, reply: Bytes, table: Words, c: Ints, sign_bit: int) -> Bytes:
        sign = np.empty(bits.size, np.uint8)
        kernels.decide(bits, reply, table, c, sign_bit, sign)
        return sign

    def entry_pads(self, key: Bytes, bits: Bytes, theirs: Bytes) -> tuple[Ints, Ints]:
        entries = np.arange(0, 64 * bits.size, 64) + ((bits ^ theirs) & BITS_MASK)
        blocks = blocks_at(key.tobytes(), entries).view(np.int64)
        return blocks[:, 0], blocks[:, 1]

    def offer_signs(self, bits: Bytes, reply: Bytes, c: Ints, sign_bit: int) -> Bytes:
        signs = np.empty(bits.size, np.uint8)
        kernels.offer_signs(bits, reply, c, sign_bit, signs)
        return signs

    def take_offer(
        self, bits: Bytes, reply: Bytes, table: Words, flip: Bytes, pads: Bytes, width: int,
        offers: tuple[Ints, Ints], y: Ints,
    ) -> Ints:  # fmt: skip
        kernels.take_offer(bits, reply, table, flip, pads.reshape(bits.size, -1), width, *offers, y)
        return y

    def select(
        self, c: Ints, sign: Bytes, s: Ints, rp: Ints, srp: Ints, rt: Halves, srt: Halves,
        sign_bit: int, raised: int, own: int,
    ) -> Ints:  # fmt: skip
        y = np.empty(c.size, np.int64)
        kernels.select(c, sign, s, rp, srp, rt, srt, sign_bit, raised, own, y)
        return y

    def square(
        self, c: Ints, rp: Ints, sq: Ints, rt: Halves, rprt: Halves, sign_bit: int, raised: int, own: int
    ) -> Ints:
        y = np.empty(2 * c.size, np.int64)
        kernels.square(c, rp, sq, rt, rprt, sign_bit, raised, own, y)
        return y

    def cut_part(self, x: Ints, shift: int, bits: int, offset: int) -> tuple[Ints, Bytes]:
        y, top = np.empty(x.size, np.int64), np.empty(x.size, np.uint8)
        kernels.cut_part(x, shift, bits, offset, y, top)
        return y, top

    def wrap_offers(self, top: Bytes, d: Bytes, x: Halves, p0: Halves, p1: Halves) -> Halves:
        offers = np.empty(2 * top.size, np.uint32)
        kernels.wrap_offers(top, d, x, p0, p1, offers)
        return offers

    def wrap_take(self, top: Bytes, offers: Halves, pad: Halves, weight: int, y: Ints) -> Ints:
        kernels.wrap_take(top, offers, pad, weight, y)
        return y

    def drop_and_mask(self, x: Ints, shift: int, mask: Ints) -> Ints:
        made = np.empty(x.size, np.int64)
        kernels.drop_and_mask(x, shift, mask, made)
        return made

    # ---- dealing

    def deal_digits(self, r: Ints, digits: Digits, share: Words) -> None:
        kernels.deal_digits(r, digits, share)

    def deal_choice(self, r: Ints, mask: Bytes, s: Bytes, sign_bit: int, share: Words) -> None:
        kernels.deal_choice(r, mask, s, sign_bit, _COMBINATION, share)

    def deal_pads(self, key: Bytes, table: Words, flip: Bytes, width: int, pads: Bytes) -> None:
        seed, rows = key.tobytes(), pads.reshape(table.size, -1)
        for first in range(0, table.size, _AT_ONCE):
            last = min(first + _AT_ONCE, table.size)
            blocks = blocks_at(seed, np.arange(64 * first, 64 * last)).reshape(-1, 64, 2)
            kernels.deal_pads(table[first:last], flip[first:last], blocks, width, rows[first:last])

    def other_share(self, total: Ints, share: Ints | Halves) -> None:
        np.subtract(total.astype(share.dtype, copy=False), share, out=share)


@functools.cache
def _compile_kernels() -> None:
    """Run every kernel once on a few elements; seconds the first time on a machine, a moment afterwards."""
    one = np.zeros(1, np.int64)
    bits, table, half = np.zeros(1, np.uint8), np.zeros(1, np.uint64), np.zeros(1, np.uint32)
    words = np.zeros((4, 1), np.uint64)
    digits = (6, 6, 6, 6)
    kernels.open_masked(one, one, 0, one)
    kernels.read_digits(one, words, bits, digits, bits)
    kernels.answer(bits, bits, table, bits)
    kernels.decide(bits, bits, table, one, 0, bits)
    kernels.select(one, bits, one, one, one, half, half, 24, 0, 1, one)
    kernels.offer_signs(bits, bits, one, 0, bits)
    pads = np.zeros((1, 384), np.uint8)
    kernels.deal_pads(table, bits, np.zeros((1, 64, 2), np.uint64), 6, pads)
    kernels.take_offer(bits, bits, table, bits, pads, 6, one, one, one)
    kernels.square(one, one, one, half, half, 24, 16, 1, np.zeros(2, np.int64))
    kernels.deal_digits(one, digits, words)
    kernels.deal_choice(one, bits, bits, 0, np.zeros(64, np.uint64), table)
    kernels.cut_part(one, 1, 48, 0, one, bits)
    kernels.wrap_offers(bits, bits, half, half, half, np.zeros(2, np.uint32))
    kernels.wrap_take(bits, np.zeros(2, np.uint32), half, 1, one)
    kernels.drop_and_mask(one, 1, one, one)
    for width in (6, 7):
        packing.unpack(packing.pack(one, width), width)
    image, weight = torch.zeros(1, 1, 4, 4, dtype=torch.int64), torch.ones(1, 1, 3, 3, dtype=torch.int64)
    conv_words(image, weight, (1, 1), (1, 1), (1, 1), 1)
    for entry in (1, 1 << 40):  # both widths of weights
        RingMatrix(torch.full((1, 1), entry))(one[None], one[None])
    compile_convolutions()
