"""Two backends compared, word for word: every operation, on words drawn at random.

The tests run it on torch's processor device; a card runs it in setup, before anything is measured on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pibench.errors import PartyError
from pibench.mpc.backends.backend import BITS_MASK, DIGITS, Backend, Host
from pibench.mpc.backends.with_numpy import NumpyBackend
from pibench.mpc.ring.randomness import SEED_BYTES, Stream, fresh_seed

SIZE = 1003  # elements: no multiple of anything
Outcome = list[Host]  # what an operation made, in host memory


class Operations:
    """Every operation of a backend, on inputs that follow from a seed; `run` yields each by name with its outcome."""

    def __init__(self, backend: Backend, seed: bytes, size: int = SIZE) -> None:
        self._backend, self._size = backend, size
        self._draw = Stream(seed)
        self._seed = seed

    def run(self) -> Iterator[tuple[str, Outcome]]:
        """Yield the name and outcome of each operation."""
        basic = self._places, self._messages, self._moves
        for part in (*basic, self._steps, self._offers, self._dealing, self._products):
            for name, made in part():
                yield name, [self._backend.host(one) if not isinstance(one, np.ndarray) else one for one in made]

    def _ints(self, *shape: int) -> Any:
        count = int(np.prod(shape)) if shape else self._size
        return self._backend.lift(self._draw.words(count).reshape(shape or count))

    def _halves(self) -> Any:
        return self._backend.lift(self._draw.halves(self._size))

    def _small(self, mask: int) -> Any:
        return self._backend.lift(self._draw.small(self._size, mask))

    def _places(self) -> Iterator[tuple[str, list[Any]]]:
        b, n = self._backend, self._size
        stream = b.stream(self._seed)
        yield "stream", [stream.bytes(n), stream.words(n), stream.small(n, 63), stream.halves(n)]
        shares = b.lift(self._draw.bytes(8 * n))
        yield "view", [b.view(shares, "int64"), b.words(b.view(shares[: 4 * n], "uint32")), b.raw(b.flat(self._ints()))]
        yield "words", [b.words(self._small(63)), b.words(self._halves())]
        yield "flat", [b.flat(self._ints(3, 4, 5)[:, 1:, ::2])]
        yield "stack", [b.stack([self._ints(2, 5), self._ints(2, 5)])]
        reals = torch.from_numpy(self._draw.words(n).astype(np.float64) / 2.0**52).float()
        yield "encode", [b.encode(reals, 16), np.asarray(b.decode(self._ints(), 16))]

    def _messages(self) -> Iterator[tuple[str, list[Any]]]:
        b, n = self._backend, self._size
        for width in range(1, 9):
            x = self._ints()
            yield f"pack {width}", [b.pack(x, width).view(np.uint8), b.unpack(b.pack(x, width), width)]
        for width in range(1, 5):
            halves = self._halves()
            said = b.pack_halves(halves, width)
            yield f"pack_halves {width}", [said.view(np.uint8), b.unpack_halves(said, width)]
        bits = self._small(1)
        yield "pack_bits", [b.pack_bits(bits), b.unpack_bits(b.pack_bits(bits), n)]

    def _moves(self) -> Iterator[tuple[str, list[Any]]]:
        b, x = self._backend, self._ints(2, 3, 8, 8)
        for kernel, stride, padding in (((8, 8), (1, 1), (0, 0)), ((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 1), (1, 1))):
            yield f"pool_sum {kernel}", [b.pool_sum(x, kernel, stride, padding)]
        index = (self._draw.words(200).view(np.uint64) % np.uint64(385)).astype(np.int64) - 1
        yield "gather", [b.gather([x, self._ints(2, 3, 8, 8)], b.places(index), 5)]
        yield "gather all", [b.gather([x], b.places(np.arange(192)), 5)]
        yield "choose", [b.choose(self._small(1), self._halves(), self._halves())]

    def _steps(self) -> Iterator[tuple[str, list[Any]]]:
        b, n = self._backend, self._size
        for low in (0, 16, 37):
            yield f"open_masked {low}", [b.open_masked(self._ints(), self._ints(), low)]
            yield f"opened_mask {low}", [b.opened_mask(self._ints(), 46, low), b.opened_mask(self._ints(), 64, low)]
        for digits in ((6,) * DIGITS, (7,) * DIGITS, (8, 7, 7, 6)):
            planes, sign_bit = sum(1 << (bits - 6) for bits in digits), sum(digits)
            words = b.view(b.lift(self._draw.bytes(8 * planes * n)), "uint64").reshape(planes, n)
            c = self._ints() & ((1 << (sign_bit + 2)) - 1)
            bits = b.read_digits(c, words, self._small(BITS_MASK), digits)
            yield f"read_digits {digits}", [bits]
            theirs, table = self._small(127), b.view(b.lift(self._draw.bytes(8 * n)), "uint64")
            yield f"answer {digits}", [b.answer(bits, theirs, table), b.decide(bits, theirs, table, c, sign_bit)]
            yield f"offer_signs {digits}", [b.offer_signs(bits, theirs, c, sign_bit)]
            for own in (0, 1):
                made = b.select(
                    c, self._small(1), self._ints(), self._ints(), self._ints(), self._halves(), self._halves(),
                    sign_bit, 3, own,
                )  # fmt: skip
                yield f"select {digits} {own}", [made]
                shares = self._ints(), self._ints(), self._halves(), self._halves()
                yield f"square {digits} {own}", [b.square(c, *shares, sign_bit, 16, own)]
        for shift, bits_, offset in ((16, 46, 0), (3, 48, 1 << 43), (0, 64, 1 << 40)):
            y, top = b.cut_part(self._ints(), shift, bits_, offset)
            yield f"cut_part {shift}", [y, top]
            offers = b.wrap_offers(top, self._small(1), self._halves(), self._halves(), self._halves())
            taken = b.wrap_take(top, offers, self._halves(), bits_ - shift - 1, self._ints())
            yield f"wrap {shift}", [offers, taken, b.drop_and_mask(self._ints(), shift, self._ints())]

    def _offers(self) -> Iterator[tuple[str, list[Any]]]:
        b, n = self._backend, self._size
        key, table = b.lift(self._draw.bytes(16)), b.view(b.lift(self._draw.bytes(8 * n)), "uint64")
        bits, reply, flip = self._small(127), self._small(127), self._small(1)
        yield "entry_pads", [b.flat(pad) for pad in b.entry_pads(key, bits, reply)]
        for width in (4, 6, 8):
            pads = b.lift(np.zeros(64 * width * n, np.uint8))
            b.deal_pads(key, table, flip, width, pads)
            offers = self._ints(), self._ints()
            taken = b.take_offer(bits, reply, table, flip, pads, width, offers, self._ints())
            yield f"take_offer {width}", [pads, taken]

    def _dealing(self) -> Iterator[tuple[str, list[Any]]]:
        b, n, digits = self._backend, self._size, (7, 7, 7, 6)
        share = b.view(b.lift(self._draw.bytes(56 * n)), "uint64").reshape(7, n)
        r = self._ints()
        b.deal_digits(r, digits, share)
        table = b.view(b.lift(self._draw.bytes(8 * n)), "uint64")
        b.deal_choice(r, self._small(BITS_MASK), self._small(1), 27, table)
        ints, halves = self._ints(), self._halves()
        b.other_share(r, ints)
        b.other_share(r, halves)
        yield "dealing", [b.view(b.raw(share.reshape(-1)), "int64"), b.view(b.raw(table), "int64"), ints, halves]

    def _products(self) -> Iterator[tuple[str, list[Any]]]:
        b = self._backend
        weight = torch.from_numpy(self._draw.words(16 * 4 * 9).reshape(16, 4, 3, 3) >> 47)  # 17 bits with the sign
        for bits in (46, 52, 62):
            for stride, padding, groups in (((1, 1), (1, 1), 1), ((2, 2), (0, 1), 1), ((1, 2), (1, 1), 2)):
                channels = 4 * groups
                conv = b.conv(
                    weight, (channels, 9, 8), batch=2, bits=bits, stride=stride, padding=padding, dilation=(1, 1),
                    groups=groups,
                )  # fmt: skip
                h, w = (9 + 2 * padding[0] - 3) // stride[0] + 1, (8 + 2 * padding[1] - 3) // stride[1] + 1
                made = conv(self._ints(2, channels, 9, 8), self._ints(2, 16, h, w))
                yield f"conv {bits} {stride} {groups}", [made << (64 - bits)]
        dense = torch.from_numpy(self._draw.words(10 * 700).reshape(10, 700) >> 47)
        made = b.matrix(dense, batch=3, bits=62)(self._ints(3, 700), self._ints(3, 10))
        yield "matrix", [made << 2]
        for groups in (1, 2):
            x, w = self._ints(2, 6, 7, 7), self._ints(8, 6 // groups, 3, 3)
            yield f"conv_words {groups}", [b.conv_words(x, w, (2, 1), (1, 0), (1, 2), groups)]


def differing(backend: Backend, other: Backend, size: int = SIZE) -> list[str]:
    """Return the names of operations that make anything else of the same words."""
    seed = fresh_seed()
    assert len(seed) == SEED_BYTES
    pairs = zip(Operations(backend, seed, size).run(), Operations(other, seed, size).run(), strict=True)
    return [name for (name, mine), (_, theirs) in pairs if not all(map(_same, mine, theirs))]


def _same(one: Host, other: Host) -> bool:
    return one.shape == other.shape and one.dtype.itemsize == other.dtype.itemsize and bool((one == other).all())


def compare_with_host(backend: Backend) -> None:
    """Raise PartyError where a device computes anything else than the processor."""
    if wrong := differing(backend, NumpyBackend()):
        raise PartyError(
            f"{backend.device} computes otherwise than the processor: {', '.join(wrong)}",
            remedy="run the case on the processor, and report the card's name and torch's version",
        )
