"""Numbers of more than a word, against Python's own integers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pibench.mpc.ring import wide

BITS = [46, 64, 65, 78, 94, 96, 97, 110, 128, 142, 160]
COUNT = 64


def numbers(bits: int, seed: int = 0) -> list[int]:
    """Uniform ones, and those at the ends of words."""
    drawn = random.Random(seed)
    edges = [0, 1, (1 << bits) - 1, 1 << (bits - 1), (1 << 32) - 1, 1 << 32, (1 << 64) - 1]
    return [edge % (1 << bits) for edge in edges] + [drawn.getrandbits(bits) for _ in range(COUNT - len(edges))]


def split(values: list[int], bits: int) -> wide.Words:
    """Words of numbers below 2^bits, with anything above the ring's bits in the last one."""
    count = wide.words_for(bits)
    noise = random.Random(5)
    rows = [[value >> 32 * place & wide.LOW for value in values] for place in range(count - 1)]
    spare = 64 - (bits - 32 * (count - 1))
    last = [(v >> 32 * (count - 1)) + (noise.getrandbits(spare) << 64 - spare if spare else 0) for v in values]
    return [*(np.array(row, np.int64) for row in rows), np.array(last, np.uint64).view(np.int64)]


def joined(words: wide.Words, bits: int) -> list[int]:
    """The numbers modulo 2^bits; every word but the last must be in its bounds."""
    for word in words[:-1]:
        assert ((word >= 0) & (word <= wide.LOW)).all()
    return [sum(int(word[i]) << 32 * place for place, word in enumerate(words)) % (1 << bits) for i in range(COUNT)]


@pytest.mark.parametrize("bits", BITS)
def test_sums_differences_and_signs(bits):
    a, b = numbers(bits, 1), numbers(bits, 2)[::-1]
    left, right = split(a, bits), split(b, bits)
    assert joined(wide.added(left, right), bits) == [(x + y) % (1 << bits) for x, y in zip(a, b, strict=True)]
    assert joined(wide.negated(left), bits) == [-x % (1 << bits) for x in a]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shift", [0, 1, 16, 31, 32, 33, 48])
def test_shifts_lose_what_they_say_and_no_more(bits, shift):
    a = numbers(bits)
    if bits - shift > 0:
        left = max(bits - shift, 1)
        assert joined(wide.shifted_down(split(a, bits), shift, wide.words_for(left)), left) == [
            (x >> shift) % (1 << left) for x in a
        ]
    assert joined(wide.shifted_up(split(a, bits), shift), bits) == [(x << shift) % (1 << bits) for x in a]


@pytest.mark.parametrize("bits", BITS)
def test_what_goes_over_the_wire_comes_back(bits):
    a = numbers(bits)
    parts = [part.astype(np.int32).astype(np.int64) for part in wide.pieces(split(a, bits), bits)]  # four bytes each
    assert len(parts) == wide.pieces_for(bits)
    assert joined(wide.from_pieces(parts, bits), bits) == a


@pytest.mark.parametrize("bits", BITS)
def test_a_smaller_ring_has_the_lowest_bits(bits):
    a = numbers(bits)
    for fewer in (bits - 1, bits - 32, 40):
        if fewer > 0:
            count = wide.words_for(fewer)
            assert joined(wide.narrowed(split(a, bits), count), fewer) == [x % (1 << fewer) for x in a]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_signed_word_keeps_its_value(count):
    values = [0, 1, -1, 2**63 - 1, -(2**63), 2**32, -(2**32)] + [0] * (COUNT - 7)
    bits = 64 + 32 * (count - 1)
    assert joined(wide.widened(np.array(values, np.int64), count), bits) == [v % (1 << bits) for v in values]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("size", [7, 27, 31])
def test_limbs_make_up_the_number(bits, size):
    a = numbers(bits)
    limbs = [wide.limb(split(a, bits), start, size) for start in range(0, bits, size)]
    assert all(((limb >= 0) & (limb < 1 << size)).all() for limb in limbs)
    total = [sum(int(limb[i]) << size * k for k, limb in enumerate(limbs)) % (1 << bits) for i in range(COUNT)]
    assert total == a


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("start", [0, 5, 31, 32, 54, 64, 81, 100, 200])
def test_a_number_is_added_at_any_place(bits, start):
    a, small = numbers(bits), [random.Random(k).getrandbits(63) for k in range(COUNT)]
    made = wide.carried(wide.place_at(split(a, bits), np.array(small, np.int64), start))
    assert joined(made, bits) == [(x + (y << start)) % (1 << bits) for x, y in zip(a, small, strict=True)]
