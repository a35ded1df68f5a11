"""CrypTen 0.4.1 on a card: as many limbs as are exact, and messages by way of host memory.

CrypTen multiplies 64-bit words on CUDA as float64 limbs: three of 22 bits, or four of 16 where a product sums more than
255 terms. Its convolutions count the kernel's area alone and forget the channels: a sum of K products of two 22-bit
limbs stays below 2^53 for K up to 512, which a 3x3 kernel exceeds from 57 channels on. (On random words, which are half
of the largest, what is seen is: right to 128 channels, half of the outputs wrong at 256, nine of ten at 512.) Here the
whole sum is counted; the limbs, how they are laid out and what is multiplied stay CrypTen's own.

Its collectives hand tensors to gloo, which knows no device for most of them: they are copied to the host and back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MANTISSA_BITS = 53
LIMB_BITS = {3: 22, 4: 16}  # CrypTen's own choices
CONVOLUTIONS = "_CUDALongTensor__patched_conv_ops"
ENCODE, DECODE = "_CUDALongTensor__encode_as_fp64", "_CUDALongTensor__decode_as_int64"


def limbs_for(terms: int) -> int:
    """Return how many limbs keep a sum of so many products whole; raises ValueError where none of CrypTen's do."""
    for limbs, bits in LIMB_BITS.items():
        if terms * ((1 << bits) - 1) ** 2 <= 1 << MANTISSA_BITS:
            return limbs
    raise ValueError(f"no limbs of CrypTen's make a sum of {terms} products exact")


def make_convolutions_exact(wrapper: Any) -> None:
    """Have CrypTen's words on CUDA (its class `CUDALongTensor`) choose their limbs by the whole sum."""
    encode, decode = getattr(wrapper, ENCODE), getattr(wrapper, DECODE)

    def convolve(op: str, x: Any, y: Any, *args: Any, **options: Any) -> Any:
        if options.pop("groups", 1) != 1:
            raise ValueError("CrypTen has no convolution in groups on CUDA")
        channels, kernel = x.size(1), math.prod(y.size()[2:])
        limbs = limbs_for(channels * kernel)
        pairs = limbs**2  # every limb of x meets every limb of y, each pair in a group of its own
        left = encode(x, limbs).data.repeat_interleave(limbs, 0)  # (pair, N, C, ...)
        right = encode(y, limbs).data.repeat(limbs, *[1] * y.dim())  # (pair, O, C, ...)
        columns = left.transpose(0, 1).reshape(len(left[0]), pairs * channels, *left.shape[3:])
        rows = right.reshape(pairs * right.shape[1], *right.shape[2:])
        made = getattr(torch, op)(columns, rows, *args, **options, groups=pairs)
        parts = made.reshape(len(made), pairs, -1, *made.shape[2:]).transpose(0, 1)
        return decode(parts, limbs)

    setattr(wrapper, CONVOLUTIONS, staticmethod(convolve))


def plain(words: Any) -> Any:
    """Return words as the tensor that CrypTen's class wraps, or as they are."""
    return words if isinstance(words, Tensor) else getattr(words, "_tensor", words)


def by_host(collective: Callable[..., Any]) -> Callable[..., Any]:
    """Make a communicator's collective take words on a device, wrapped by CrypTen or not, by way of host memory."""

    @functools.wraps(collective)
    def call(self: Any, data: Any, *args: Any, **options: Any) -> Any:
        given = data if isinstance(data, list) else [data]
        if all(isinstance(words, Tensor) and words.device.type == "cpu" for words in given):
            return collective(self, data, *args, **options)
        held = [plain(words).to("cpu", copy=True) for words in given]
        made = collective(self, held if isinstance(data, list) else held[0], *args, **options)
        if collective.__name__ == "broadcast":  # into what was given
            for words, copy in zip(given, held, strict=True):
                plain(words).copy_(copy)
            return data
        return _back(made, given[0])

    return call


def _back(made: Any, like: Any) -> Any:
    """Return a collective's result where its input was, and as what."""
    if isinstance(made, list):
        return [_back(one, like) for one in made]
    if not isinstance(made, Tensor):
        return made
    there = made.to(plain(like).device)
    return there if isinstance(like, Tensor) else type(like)(there)
