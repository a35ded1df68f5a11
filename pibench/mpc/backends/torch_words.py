"""Words on torch tensors: bits that move right without their sign, halves, and messages as planes of bytes."""

from __future__ import annotations

import torch
from torch import Tensor

LANES = (4, 2, 1)  # bytes of the planes of a message, in order (ring/packing.py)


def right(words: Tensor, shift: Tensor | int) -> Tensor:
    """Return words shifted right by 0 to 63, zeros coming in from the left."""
    if isinstance(shift, int):
        return words if shift == 0 else (words >> shift) & ((1 << (64 - shift)) - 1)
    return (words >> shift) & ~(torch.full_like(shift, -2) << (63 - shift))


def parity(words: Tensor) -> Tensor:
    """Return whether the number of bits is odd, as 0 or 1."""
    for shift in (32, 16, 8, 4, 2, 1):
        words = words ^ (words >> shift)
    return words & 1


def from_halves(halves: Tensor) -> Tensor:
    """Return halves (int32, modulo 2^32) as words, none of them negative."""
    return halves.to(torch.int64) & 0xFFFFFFFF


def as_halves(words: Tensor) -> Tensor:
    """Return words modulo 2^32, as int32."""
    return words.view(torch.int32).reshape(-1, 2)[:, 0].contiguous()


def planes(values: Tensor, width: int) -> Tensor:
    """Return the low `width` bytes of every element of a flat array as planes (uint8); may be a view."""
    size = values.element_size()
    each = values.contiguous().view(torch.uint8)
    if width == size:
        return each
    each, at, made = each.reshape(-1, size), 0, []
    for lane in LANES:
        if width & lane:
            made.append(each[:, at : at + lane].reshape(-1))
            at += lane
    return torch.cat(made)


def from_planes(data: Tensor, width: int) -> Tensor:
    """Return the words that `planes` made bytes of, sign-extended; may be a view."""
    if width == 8:
        return data.view(torch.int64)
    n, at = len(data) // width, 0
    each = torch.zeros(n, 8, dtype=torch.uint8, device=data.device)
    for lane in LANES:
        if width & lane:
            each[:, at : at + lane] = data[at * n : (at + lane) * n].reshape(n, lane)
            at += lane
    keep = 64 - 8 * width
    return (each.reshape(-1).view(torch.int64) << keep) >> keep


def pack_bits(bits: Tensor) -> Tensor:
    """Return bits (uint8), eight a byte, the first one highest."""
    padded = torch.nn.functional.pad(bits, (0, -len(bits) % 8)).reshape(-1, 8)
    return (padded << _places(bits)).sum(1).to(torch.uint8)


def unpack_bits(data: Tensor, count: int) -> Tensor:
    """Return so many packed bits, a byte each."""
    return ((data[:, None] >> _places(data)) & 1).reshape(-1)[:count].contiguous()


def _places(like: Tensor) -> Tensor:
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=like.device)
