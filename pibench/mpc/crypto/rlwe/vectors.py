"""Operations on eight numbers side by side that the compiler does not find in a loop, written as vectors in its own IR.

They are portable: where a machine's registers are narrower, LLVM uses more of them. Arrays are flat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pibench.mpc.crypto.rlwe.primes import LANES

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_NARROW, _WIDE = ir.VectorType(_I32, LANES), ir.VectorType(_I64, LANES)

# Keccak's rotations (FIPS 202, 3.2.2), place x + 5 y
_ROTATIONS = (0, 1, 62, 28, 27, 36, 44, 6, 55, 20, 3, 10, 43, 25, 39, 41, 45, 15, 21, 8, 18, 2, 61, 56, 14)


def _data(context: Any, builder: Any, signature: Any, args: Any, k: int) -> Any:
    return context.make_array(signature.args[k])(context, builder, value=args[k]).data


def _at(builder: Any, data: Any, index: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _splat(builder: Any, number: Any) -> Any:
    empty = ir.Constant(_WIDE, ir.Undefined)
    first = builder.insert_element(empty, builder.zext(number, _I64), ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


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
            made = builder.add(made, builder.mul(row, _splat(builder, factor)))
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
        made[0] = builder.xor(made[0], _splat(builder, args[1]))
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


multiply_accumulate: Callable[..., Any] = intrinsic(_multiply_accumulate)
keccak_round: Callable[..., Any] = intrinsic(_keccak_round)
