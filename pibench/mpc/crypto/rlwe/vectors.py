"""Operations on eight numbers side by side that the compiler does not find in a loop, written as vectors in its own IR.

They are portable: where a machine's registers are narrower, LLVM uses more of them. Arrays are flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pibench.mpc.crypto.rlwe.primes import LANES

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_NARROW, _WIDE = ir.VectorType(_I32, LANES), ir.VectorType(_I64, LANES)
_DOUBLE = ir.VectorType(_I32, 2 * LANES)

# Keccak's rotations (FIPS 202, 3.2.2), place x + 5 y
_ROTATIONS = (0, 1, 62, 28, 27, 36, 44, 6, 55, 20, 3, 10, 43, 25, 39, 41, 45, 15, 21, 8, 18, 2, 61, 56, 14)


def _data(context: Any, builder: Any, signature: Any, args: Any, k: int) -> Any:
    return context.make_array(signature.args[k])(context, builder, value=args[k]).data


def _at(builder: Any, data: Any, index: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _splat(builder: Any, number: Any, kind: Any) -> Any:
    """Return a vector of one number of 32 or 64 bits, widened where the vector is of words."""
    if kind.element != number.type:
        number = builder.zext(number, kind.element)
    empty = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count))


def _multiply_accumulate(
    context: Any, total: Any, t: Any, w: Any, at: Any, step: Any, a: Any, b: Any, c: Any, d: Any
) -> Any:
    """total[t:][:8] += w[at:][:8] a + w[at + step:][:8] b + ... d; total in 64 bits, w and the factors in 32."""
    word, half = types.int64, types.uint32
    signature = types.void(total, word, w, word, word, half, half, half, half)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, weights = (_data(context, builder, signature, args, k) for k in (0, 2))
        place, at = _at(builder, sums, args[1], _WIDE), args[3]
        made = builder.load(place, align=8)
        for factor in args[5:]:
            row = builder.zext(builder.load(_at(builder, weights, at, _NARROW), align=4), _WIDE)
            made = builder.add(made, builder.mul(row, _splat(builder, factor, _WIDE)))
            at = builder.add(at, args[4])
        builder.store(made, place, align=8)
        return context.get_dummy_value()

    return signature, generate


def _keccak_round(context: Any, state: Any, constant: Any) -> Any:
    """One round of Keccak-f[1600] on eight states: word x + 5 y of state k is state[8 (x + 5 y) + k]."""
    signature = types.void(state, types.uint64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = _data(context, builder, signature, args, 0)
        places = [_at(builder, data, ir.Constant(_I64, LANES * k), _WIDE) for k in range(25)]
        made = _round(builder, [builder.load(place, align=8) for place in places])
        made[0] = builder.xor(made[0], _splat(builder, args[1], _WIDE))
        for place, word in zip(places, made, strict=True):
            builder.store(word, place, align=8)
        return context.get_dummy_value()

    return signature, generate


def _round(builder: Any, a: list[Any]) -> list[Any]:
    columns = []
    for x in range(5):
        column = a[x]
        for y in range(1, 5):
            column = builder.xor(column, a[x + 5 * y])
        columns.append(column)
    mixed = [builder.xor(columns[(x + 4) % 5], _rotated(builder, columns[(x + 1) % 5], 1)) for x in range(5)]
    b: list[Any] = [None] * 25
    for x in range(5):
        for y in range(5):
            moved = _rotated(builder, builder.xor(a[x + 5 * y], mixed[x]), _ROTATIONS[x + 5 * y])
            b[y + 5 * ((2 * x + 3 * y) % 5)] = moved
    return [
        builder.xor(b[x + 5 * y], builder.and_(builder.not_(b[(x + 1) % 5 + 5 * y]), b[(x + 2) % 5 + 5 * y]))
        for y in range(5)
        for x in range(5)
    ]


def _rotated(builder: Any, word: Any, by: int) -> Any:
    if by == 0:
        return word
    left, right = (ir.Constant(_WIDE, [k] * LANES) for k in (by, 64 - by))
    return builder.or_(builder.shl(word, left), builder.lshr(word, right))


def _last_levels(context: Any, x: Any, at: Any, roots: Any, n: Any, block: Any, p: Any, one: Any) -> Any:
    """Do the last three levels of a forward transform on 16 coefficients from x[at] on, blocks `block` and the next.

    A block is eight of them. roots holds n factors, then their shoup numbers; `one` is the shoup number of 1, by which
    results come out below p.
    """
    return _sixteen_coefficients(x, roots, (4, 2, 1), _down, _reduced)


def _first_levels(context: Any, x: Any, at: Any, roots: Any, n: Any, block: Any, p: Any, one: Any) -> Any:
    """Do the first three levels of a backward transform; see `_last_levels`; results stay below 2p."""
    return _sixteen_coefficients(x, roots, (1, 2, 4), _up, lambda builder, v, p, one: v)


def _sixteen_coefficients(
    x: Any, roots: Any, halves: tuple[int, ...], butterfly: Callable[..., Any], finish: Callable[..., Any]
) -> Any:
    word, half_word = types.int64, types.uint32
    signature = types.void(x, word, roots, word, word, half_word, half_word)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, factors = (_data(context, builder, signature, args, k) for k in (0, 2))
        _, at, _, n, block, p, one = args
        places = [
            _at(builder, data, builder.add(at, ir.Constant(_I64, LANES * k)), _NARROW) for k in range(16)
        ]  # rows k and k + 8, of both blocks, go into one vector
        both = [[builder.load(place, align=4) for place in places[k::8]] for k in range(8)]
        v, modulus = [builder.shuffle_vector(*pair, _order(range(16))) for pair in both], _splat(builder, p, _DOUBLE)
        for half in halves:
            for group in range(4 // half):
                w, s = _pair_of_factors(builder, factors, n, block, half, group)
                for k in range(2 * half * group, 2 * half * group + half):
                    v[k], v[k + half] = butterfly(builder, v[k], v[k + half], w, s, modulus)
        for k, number in enumerate(v):
            made, empty = finish(builder, number, modulus, one), ir.Constant(_DOUBLE, ir.Undefined)
            builder.store(builder.shuffle_vector(made, empty, _order(range(8))), places[k], align=4)
            builder.store(builder.shuffle_vector(made, empty, _order(range(8, 16))), places[k + 8], align=4)
        return context.get_dummy_value()

    return signature, generate


def _pair_of_factors(builder: Any, factors: Any, n: Any, block: Any, half: int, group: int) -> tuple[Any, Any]:
    """Return the factors of one level for two blocks, and their shoup numbers as 64-bit words.

    The level of m = n / (2 half) factors has them from m on; a block's are m + block (4 / half) + group.
    """
    first = builder.add(builder.udiv(n, ir.Constant(_I64, 2 * half)), ir.Constant(_I64, group))
    place = builder.add(first, builder.mul(block, ir.Constant(_I64, 4 // half)))
    places = [place, builder.add(place, ir.Constant(_I64, 4 // half))]
    w = [_splat(builder, builder.load(builder.gep(factors, [k])), _NARROW) for k in places]
    s = [_splat(builder, builder.load(builder.gep(factors, [builder.add(n, k)])), _WIDE) for k in places]
    return builder.shuffle_vector(*w, _order(range(16))), builder.shuffle_vector(*s, _order([0, 1, 2, 3, 8, 9, 10, 11]))


def _down(builder: Any, u: Any, v: Any, w: Any, s: Any, p: Any) -> tuple[Any, Any]:
    r = _times(builder, v, w, s, p)
    return builder.add(u, r), builder.sub(builder.add(u, builder.add(p, p)), r)


def _up(builder: Any, u: Any, v: Any, w: Any, s: Any, p: Any) -> tuple[Any, Any]:
    twice = builder.add(p, p)
    return _least(builder, builder.add(u, v), twice), _times(builder, builder.sub(builder.add(u, twice), v), w, s, p)


def _least(builder: Any, x: Any, p: Any) -> Any:
    """Return min(x, x - p): x less p where it is p at least."""
    less = builder.sub(x, p)
    return builder.select(builder.icmp_unsigned("<", less, x), less, x)


def _times(builder: Any, v: Any, w: Any, s: Any, p: Any) -> Any:
    """Return v w modulo p, below 2p, for 16 numbers; s has w's shoup number in every 64-bit word.

    Even numbers are the lower halves of words, odd ones the upper.
    """
    return builder.sub(builder.mul(v, w), builder.mul(_quotient(builder, v, s), p))


def _quotient(builder: Any, v: Any, s: Any) -> Any:
    thirty_two, low = (ir.Constant(_WIDE, [k] * LANES) for k in (32, 0xFFFFFFFF))
    words = builder.bitcast(v, _WIDE)
    even = builder.lshr(builder.mul(builder.and_(words, low), s), thirty_two)
    odd = builder.and_(builder.mul(builder.lshr(words, thirty_two), s), builder.not_(low))
    return builder.bitcast(builder.or_(even, odd), _DOUBLE)


def _reduced(builder: Any, v: Any, p: Any, one: Any) -> Any:
    rest = builder.sub(v, builder.mul(_quotient(builder, v, _splat(builder, one, _WIDE)), p))
    return _least(builder, rest, p)


def _order(places: Iterable[int]) -> Any:
    numbers = list(places)
    return ir.Constant(ir.VectorType(_I32, len(numbers)), numbers)


def _two_levels_down(context: Any, x: Any, at: Any, step: Any, roots: Any, n: Any, i: Any, p: Any) -> Any:
    """Do two levels of a forward transform on 16 numbers at x[at], and as many 1, 2, 3 steps on; factors i, 2 i, ..."""
    return _rows(x, roots, _down, ((0, 2, 1, 0), (1, 3, 1, 0), (0, 1, 2, 0), (2, 3, 2, 1)), 4)


def _two_levels_up(context: Any, x: Any, at: Any, step: Any, roots: Any, n: Any, i: Any, p: Any) -> Any:
    """Do two levels of a backward transform; see `_two_levels_down`."""
    return _rows(x, roots, _up, ((0, 1, 2, 0), (2, 3, 2, 1), (0, 2, 1, 0), (1, 3, 1, 0)), 4)


def _one_level_down(context: Any, x: Any, at: Any, step: Any, roots: Any, n: Any, i: Any, p: Any) -> Any:
    """Do one level of a forward transform on 16 numbers at x[at], and as many a step on; factor i."""
    return _rows(x, roots, _down, ((0, 1, 1, 0),), 2)


def _one_level_up(context: Any, x: Any, at: Any, step: Any, roots: Any, n: Any, i: Any, p: Any) -> Any:
    """Do one level of a backward transform; see `_one_level_down`."""
    return _rows(x, roots, _up, ((0, 1, 1, 0),), 2)


def _rows(x: Any, roots: Any, butterfly: Callable[..., Any], plan: tuple[tuple[int, ...], ...], rows: int) -> Any:
    """Butterflies (low row, high row, factor's place as a multiple of i, and plus) in their order."""
    word = types.int64
    signature = types.void(x, word, word, roots, word, word, types.uint32)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, factors = (_data(context, builder, signature, args, k) for k in (0, 3))
        _, at, step, _, n, i, p = args
        places = []
        for _ in range(rows):
            places.append(_at(builder, data, at, _DOUBLE))
            at = builder.add(at, step)
        v, modulus = [builder.load(place, align=4) for place in places], _splat(builder, p, _DOUBLE)
        for low, high, times, plus in plan:
            place = builder.add(builder.mul(i, ir.Constant(_I64, times)), ir.Constant(_I64, plus))
            w = _splat(builder, builder.load(builder.gep(factors, [place])), _DOUBLE)
            s = _splat(builder, builder.load(builder.gep(factors, [builder.add(n, place)])), _WIDE)
            v[low], v[high] = butterfly(builder, v[low], v[high], w, s, modulus)
        for place, number in zip(places, v, strict=True):
            builder.store(number, place, align=4)
        return context.get_dummy_value()

    return signature, generate


one_level_down: Callable[..., Any] = intrinsic(_one_level_down)
one_level_up: Callable[..., Any] = intrinsic(_one_level_up)
two_levels_down: Callable[..., Any] = intrinsic(_two_levels_down)
two_levels_up: Callable[..., Any] = intrinsic(_two_levels_up)
last_levels: Callable[..., Any] = intrinsic(_last_levels)
first_levels: Callable[..., Any] = intrinsic(_first_levels)
multiply_accumulate: Callable[..., Any] = intrinsic(_multiply_accumulate)
keccak_round: Callable[..., Any] = intrinsic(_keccak_round)
