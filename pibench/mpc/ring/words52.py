"""Matrix products modulo 2^52 with AVX-512 IFMA: one multiply-add a product, where float64 limbs take two or three.

VPMADD52LUQ adds the low 52 bits of a product of two 52-bit words to a 64-bit one. Sums wrap modulo 2^64 and so are
right modulo 2^52 whatever the operands, signed ones included. (Intel 64 and IA-32 Architectures Software Developer's
Manual, volume 2, VPMADD52LUQ; register blocking as in Goto and van de Geijn, ACM TOMS 34, 2008.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from pibench.mpc.cpu import has

WORD_BITS = 52
ROWS = 8  # of a register block
LANES = 8  # 64-bit words of a vector register
DEPTH = 256  # rows of weights made wide at a time: they stay in the nearest cache
WIDEST = 3  # vector registers of a block's row: 8 x 3 sums, 3 words and a weight fit 32 registers
Ints = NDArray[np.int64]
Halves = NDArray[np.int32]

_INT64, _VECTOR = ir.IntType(64), ir.VectorType(ir.IntType(64), LANES)


def available() -> bool:
    """Whether the processor that kernels are compiled for has the instruction."""
    return has("avx512f", "avx512ifma")


def panel_width(columns: int) -> int:
    """Return how many columns a panel holds, a multiple of LANES: as wide as wastes fewest, the wider of equals."""
    widths = [LANES * registers for registers in range(1, WIDEST + 1)]
    return min(widths, key=lambda width: (-(-columns // width) * width, -width))


def pack_rows(matrix: Ints) -> Halves:
    """Lay out int64 (batches, rows, inner), entries below 2^31, in panels: int32 (batches, panels, inner, ROWS)."""
    batches, rows, inner = matrix.shape
    padded = np.zeros((batches, -(-rows // ROWS) * ROWS, inner), np.int32)
    padded[:, :rows] = matrix
    return np.ascontiguousarray(padded.reshape(batches, -1, ROWS, inner).transpose(0, 1, 3, 2))


def _load(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=8)


def _at(builder: Any, pointer: Any, index: Any) -> Any:
    return builder.gep(pointer, [index if isinstance(index, ir.Value) else _INT64(index)])


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return the address of an array's first word."""
    return make_array(kind)(context, builder, array).data  # type: ignore[no-untyped-call]


def _spread(builder: Any, scalar: Any) -> Any:
    """Put one word into all lanes of a vector."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _block(registers: int) -> Any:
    """Make the intrinsic f(rows, columns, j, out, o, inner, leading, keep), which sums ROWS x registers outer products.

    Arrays are int64, j and o where columns and out begin, in words; `leading` is the distance of two rows of out, whose
    words are kept as far as `keep` has bits (0: written anew, -1: added to).
    """

    @intrinsic
    def product(
        typingctx: Any, rows: Any, columns: Any, j: Any, out: Any, o: Any, inner: Any, leading: Any, keep: Any
    ) -> Any:
        signature = types.void(rows, columns, j, out, o, inner, leading, keep)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, b, c = (_data(context, builder, signature.args[n], arguments[n]) for n in (0, 1, 3))
            b, c = _at(builder, b, arguments[2]), _at(builder, c, arguments[4])
            inner, leading, kept = arguments[5], arguments[6], _spread(builder, arguments[7])
            multiply_add: Any = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
                builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), "llvm.x86.avx512.vpmadd52l.uq.512"
            )
            lines = [_at(builder, c, builder.mul(leading, _INT64(line))) for line in range(ROWS)]
            targets = [[_at(builder, line, LANES * n) for n in range(registers)] for line in lines]
            held_before = [[builder.and_(_load(builder, target), kept) for target in line] for line in targets]
            before = builder.basic_block
            loop, done = builder.append_basic_block("inner"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_INT64)
            k.add_incoming(_INT64(0), before)
            sums = [[builder.phi(_VECTOR) for _ in range(registers)] for _ in range(ROWS)]
            row, column = (
                _at(builder, pointer, builder.mul(k, _INT64(step)))
                for pointer, step in ((a, ROWS), (b, registers * LANES))
            )
            words = [_load(builder, _at(builder, column, LANES * n)) for n in range(registers)]
            made = []
            for r, held in enumerate(sums):
                weight = _spread(builder, builder.load(_at(builder, row, r)))
                pairs = zip(held, words, strict=True)
                made.append([builder.call(multiply_add, [old, weight, word]) for old, word in pairs])
            following = builder.add(k, _INT64(1))
            k.add_incoming(following, loop)
            for held, new, start in zip(sums, made, held_before, strict=True):
                for old, sum_, first in zip(held, new, start, strict=True):
                    old.add_incoming(first, before)
                    old.add_incoming(sum_, loop)
            builder.cbranch(builder.icmp_signed("<", following, inner), loop, done)
            builder.position_at_end(done)
            for line, new in zip(targets, made, strict=True):
                for target, sum_ in zip(line, new, strict=True):
                    builder.store(sum_, builder.bitcast(target, _VECTOR.as_pointer()), align=8)
            return context.get_dummy_value()

        return signature, generate

    return product


_ONE, _TWO, _THREE = (_block(registers) for registers in range(1, WIDEST + 1))


@njit(cache=True, nogil=True)
def multiply(rows: Halves, columns: Ints, out: Ints) -> None:
    """Compute out = rows columns modulo 2^52 (what lies above is of no meaning), batch by batch.

    `rows` from `pack_rows` (B, row panels, K, ROWS), `columns` (B, column panels, K, width) with a width of
    `panel_width`; out int64 (B, row panels * ROWS, column panels * width).
    """
    batches, panels, inner = rows.shape[:3]
    width, leading = columns.shape[3], out.shape[2]
    wide, flat = np.empty(DEPTH * ROWS, np.int64), rows.reshape(-1)
    for b in range(batches):
        for i in range(panels):  # weights are read once and in order, the columns from a near cache again and again
            for k0 in range(0, inner, DEPTH):
                depth, keep = min(DEPTH, inner - k0), -1 if k0 else 0
                first = np.uintp(((b * panels + i) * inner + k0) * ROWS)
                for n in range(depth * ROWS):
                    wide[np.uintp(n)] = flat[first + np.uintp(n)]
                for j in range(columns.shape[1]):
                    start = ((b * columns.shape[1] + j) * inner + k0) * width
                    target = (b * out.shape[1] + i * ROWS) * leading + j * width
                    if width == LANES:
                        _ONE(wide, columns, start, out, target, depth, leading, keep)
                    elif width == 2 * LANES:
                        _TWO(wide, columns, start, out, target, depth, leading, keep)
                    else:
                        _THREE(wide, columns, start, out, target, depth, leading, keep)
