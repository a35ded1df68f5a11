"""Compile every numba kernel, or load it from numba's cache, before anything is measured."""

from __future__ import annotations

import functools

import numpy as np
import torch

from pibench.mpc.masked import kernels
from pibench.mpc.ring import packing
from pibench.mpc.ring.conv import compile_convolutions
from pibench.mpc.ring.words import RingMatrix, conv_words


@functools.cache
def compile_kernels() -> None:
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
