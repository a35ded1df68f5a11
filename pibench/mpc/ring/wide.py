"""Numbers of more than 64 bits, as lists of arrays of words, the lowest first: what a ring beyond one word needs.

All words but the last hold 32 bits, none of them negative; the last holds the rest, 64 bits at most, of which those
beyond the ring's are anything. So a number of 64 bits or less is one word, as everywhere else. Arrays are a backend's
(`backends/backend.py`): nothing is used but what all of them know, `+ - * << >> &`, modulo 2^64 and `>>` with the sign.
"""

from __future__ import annotations

import itertools
from typing import Any

Ints = Any  # an array of signed 64-bit words
Words = list[Ints]  # of one number, the lowest first, all of one shape

WORD_BITS = 32  # of every word but the last
LAST_BITS = 64  # of the last one, at most
LOW = (1 << WORD_BITS) - 1


def words_for(bits: int) -> int:
    """Return how many words hold a number of a ring of 2^bits."""
    return 1 + max(0, -(-(bits - LAST_BITS) // WORD_BITS))


def pieces_for(bits: int) -> int:
    """Return how many pieces of 32 bits it has: what goes over the wire."""
    return -(-bits // WORD_BITS)


def carried(words: Words) -> Words:
    """Return the same number with every word but the last in its bounds; words may be negative or too large."""
    done, carry = Words(), None
    for word in words[:-1]:
        total = word if carry is None else word + carry
        done.append(total & LOW)
        carry = total >> WORD_BITS
    return [*done, words[-1] if carry is None else words[-1] + carry]


def widened(word: Ints, count: int) -> Words:
    """Return a signed word of 64 bits as so many words."""
    shifts = [min(WORD_BITS * place, 63) for place in range(count)]
    return [*((word >> shift) & LOW for shift in shifts[:-1]), word >> shifts[-1]]


def split(number: int, count: int) -> list[int]:
    """Return a public number as so many words."""
    return [*((number >> WORD_BITS * place) & LOW for place in range(count - 1)), number >> WORD_BITS * (count - 1)]


def narrowed(words: Words, count: int) -> Words:
    """Return the lowest bits, as so many words or as they are where there are no more: a smaller ring's number."""
    if len(words) <= count:
        return words
    return [*words[: count - 1], words[count - 1] + (words[count] << WORD_BITS)]


def raised(words: Words, count: int) -> Words:
    """Return the number as so many words, where it has fewer: its last word is a signed number's top."""
    while len(words) < count:
        words = [*words[:-1], words[-1] & LOW, words[-1] >> WORD_BITS]
    return words


def added(left: Words, right: Words) -> Words:
    """Return left + right, of as many words as the shorter one has."""
    count = min(len(left), len(right))
    pairs = zip(narrowed(left, count), narrowed(right, count), strict=True)
    return carried([a + b for a, b in pairs])


def negated(words: Words) -> Words:
    """Return the number with the other sign."""
    return carried([-word for word in words])


def shifted_up(words: Words, shift: int) -> Words:
    """Return the number times 2^shift."""
    while shift > 0:
        step = min(shift, WORD_BITS - 1)
        words, shift = carried([word << step for word in words]), shift - step
    return words


def shifted_down(words: Words, shift: int, count: int) -> Words:
    """Return the number without its lowest `shift` bits, as so many words or fewer: the ring loses as many bits."""
    whole = min(shift // WORD_BITS, len(words) - 1)
    words, shift = words[whole:], shift - WORD_BITS * whole
    keep, below = WORD_BITS - shift, (1 << shift) - 1
    lows = [(low >> shift) + ((high & below) << keep) for low, high in itertools.pairwise(words)]
    return narrowed([*lows, words[-1] >> shift], count)


def pieces(words: Words, bits: int) -> list[Ints]:
    """Return a number's pieces of 32 bits, the lowest first, of which the low 32 bits count."""
    count = pieces_for(bits)
    return [*words[:-1], words[-1], words[-1] >> WORD_BITS][:count]


def from_pieces(parts: list[Ints], bits: int) -> Words:
    """Rebuild what `pieces` took apart; of each piece the low 32 bits count."""
    count, low = words_for(bits), [part & LOW for part in parts]
    last = low[count - 1 :]
    return [*low[: count - 1], last[0] if len(last) == 1 else last[0] + (last[1] << WORD_BITS)]


def limb(words: Words, start: int, size: int) -> Ints:
    """Return the bits from `start` on, `size` of them and 31 at most, as a number that is not negative."""
    place, low = divmod(start, WORD_BITS)
    last = len(words) - 1
    if place >= last:
        return (words[last] >> min(start - WORD_BITS * last, 63)) & ((1 << size) - 1)
    over = low + size - WORD_BITS  # bits that lie in the next word
    found = words[place] >> low
    if over > 0:
        found = found + ((words[place + 1] & ((1 << over) - 1)) << (WORD_BITS - low))
    return found & ((1 << size) - 1)


def place_at(words: Words, number: Ints, start: int) -> Words:
    """Return words + number 2^start, not carried; 0 <= number < 2^63, modulo 2^(64 + 32 (words - 1))."""
    made, last = list(words), len(words) - 1
    place, low = divmod(start, WORD_BITS)
    if place >= last:
        shift = start - WORD_BITS * last
        if shift < LAST_BITS:
            made[last] = made[last] + (number << shift)
        return made
    keep = WORD_BITS - low
    made[place] = made[place] + ((number & ((1 << keep) - 1)) << low)
    return place_at(made, number >> keep, WORD_BITS * (place + 1))
