"""Matrix products in vector registers: modulo 2^52 with AVX-512 IFMA, or in float64 with fused multiply-adds.

VPMADD52LUQ adds the low 52 bits of a product of two 52-bit words to a 64-bit one. Sums wrap modulo 2^64 and so are
right modulo 2^52 whatever the operands, signed ones included: one multiply-add a product, where float64 limbs take two
or three. (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VPMADD52LUQ; register blocking as in
Goto and van de Geijn, ACM TOMS 34, 2008.) Where a processor has no IFMA the same blocks are summed in float64: a
general library's products are made for larger matrices than one image's, and read weights of twice the size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
NARROW = 1 << 31  # what weights are below: they lie in memory as 32-bit integers
DEPTH = 256  # rows of weights made wide at a time: they stay in the nearest cache
ALIASED = 64  # words of a row: rows as far apart, or by multiples, share a few places of the nearest cache
WIDEST = 3  # vector registers of a block's row: sums, words and a weight fit the registers
Ints = NDArray[np.int64]
Halves = NDArray[np.int32]
Columns = NDArray[Any]  # int64 or float64

_INT64 = ir.IntType(64)


@dataclass(frozen=True)
class Unit:
    """What multiplies: how many 64-bit words a vector register has, and how many rows a block of registers."""

    lanes: int
    rows: int
    panels: bool  # whether columns lie in panels as wide as a block; else in one, whose layout takes less time

    def panel_width(self, columns: int) -> int:
        """Return how many columns a panel holds, whole registers: as wide as wastes fewest, the wider of equals."""
        if not self.panels:
            width = -(-columns // self.lanes) * self.lanes
            return width + (self.lanes if width % ALIASED == 0 else 0)
        widths = [self.lanes * registers for registers in range(1, WIDEST + 1)]
        return min(widths, key=lambda width: (-(-columns // width) * width, -width))


WORDS = Unit(8, 8, panels=True)  # 8 x 3 sums, 3 words and a weight of 32 registers
DOUBLES = (
    Unit(8, 8, panels=True) if has("avx512f") else Unit(4, 4, panels=True)
)  # 4 x 3 sums, 3 words and a weight of 16 registers
SHORT_DOUBLES = replace(DOUBLES, panels=False)  # for short columns, which caches hold however they lie


def words_available() -> bool:
    """Whether the processor that kernels are compiled for multiplies modulo 2^52."""
    return has("avx512f", "avx512ifma")


def doubles_available() -> bool:
    """Whether it has fused multiply-adds in vectors."""
    return has("avx2", "fma")


def pack_rows(matrix: Ints, unit: Unit) -> Halves:
    """Lay out int64 (batches, rows, inner), entries below 2^31, in panels: int32 (batches, panels, inner, rows)."""
    batches, rows, inner = matrix.shape
    padded = np.zeros((batches, -(-rows // unit.rows) * unit.rows, inner), np.int32)
    padded[:, :rows] = matrix
    return np.ascontiguousarray(padded.reshape(batches, -1, unit.rows, inner).transpose(0, 1, 3, 2))


def _at(builder: Any, pointer: Any, index: Any) -> Any:
    return builder.gep(pointer, [index if isinstance(index, ir.Value) else _INT64(index)])


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return the address of an array's first word."""
    return make_array(kind)(context, builder, array).data  # type: ignore[no-untyped-call]


class _Vectors:
    """Vectors of one unit's words in LLVM's terms: integers, or float64."""

    def __init__(self, builder: Any, kind: Any) -> None:
        self._builder, self._real = builder, kind.dtype == types.float64
        self.unit = DOUBLES if self._real else WORDS
        self._words = ir.VectorType(_INT64, self.unit.lanes)
        self.type = ir.VectorType(ir.DoubleType(), self.unit.lanes) if self._real else self._words
        name = f"llvm.fma.v{self.unit.lanes}f64" if self._real else "llvm.x86.avx512.vpmadd52l.uq.512"
        declared = ir.FunctionType(self.type, [self.type] * 3)
        self._function: Any = cgutils.get_or_insert_function(builder.module, declared, name)  # type: ignore[no-untyped-call]

    def load(self, pointer: Any) -> Any:
        return self._builder.load(self._builder.bitcast(pointer, self.type.as_pointer()), align=8)

    def store(self, vector: Any, pointer: Any) -> None:
        self._builder.store(vector, self._builder.bitcast(pointer, self.type.as_pointer()), align=8)

    def spread(self, scalar: Any) -> Any:
        """Put one word into all lanes of a vector."""
        undefined = ir.Constant(ir.VectorType(scalar.type, self.unit.lanes), ir.Undefined)
        first = self._builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.unit.lanes), [0] * self.unit.lanes)
        return self._builder.shuffle_vector(first, undefined, lanes)

    def kept(self, vector: Any, mask: Any) -> Any:
        """Return the bits of a vector that an integer mask, in all lanes, has."""
        builder = self._builder
        return builder.bitcast(builder.and_(builder.bitcast(vector, self._words), mask), self.type)

    def multiply_add(self, total: Any, weight: Any, word: Any) -> Any:
        """Return total + weight word."""
        order = (weight, word, total) if self._real else (total, weight, word)
        return self._builder.call(self._function, order)


def _block(registers: int) -> Any:
    """Make the intrinsic f(rows, columns, j, pitch, out, o, leading, inner, keep), which sums blocks of outer products.

    Arrays are all int64 or all float64, j and o where columns and out begin, in words; `pitch` and `leading` are the
    distances of two rows of theirs. Words of out are kept as far as `keep` has bits (0: written anew, -1: added to).
    """

    @intrinsic
    def product(
        typingctx: Any, rows: Any, columns: Any, j: Any, pitch: Any, out: Any, o: Any, leading: Any, inner: Any,
        keep: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(rows, columns, j, pitch, out, o, leading, inner, keep)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, b, c = (_data(context, builder, signature.args[n], arguments[n]) for n in (0, 1, 4))
            vectors = _Vectors(builder, signature.args[0])
            lanes, height = vectors.unit.lanes, vectors.unit.rows
            b, c = _at(builder, b, arguments[2]), _at(builder, c, arguments[5])
            pitch, leading, inner = arguments[3], arguments[6], arguments[7]
            mask = vectors.spread(arguments[8])
            lines = [_at(builder, c, builder.mul(leading, _INT64(line))) for line in range(height)]
            targets = [[_at(builder, line, lanes * n) for n in range(registers)] for line in lines]
            held_before = [[vectors.kept(vectors.load(target), mask) for target in line] for line in targets]
            before = builder.basic_block
            loop, done = builder.append_basic_block("inner"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_INT64)
            k.add_incoming(_INT64(0), before)
            sums = [[builder.phi(vectors.type) for _ in range(registers)] for _ in range(height)]
            row, column = (
                _at(builder, pointer, builder.mul(k, step)) for pointer, step in ((a, _INT64(height)), (b, pitch))
            )
            words = [vectors.load(_at(builder, column, lanes * n)) for n in range(registers)]
            made = []
            for r, held in enumerate(sums):
                weight = vectors.spread(builder.load(_at(builder, row, r)))
                made.append([vectors.multiply_add(old, weight, word) for old, word in zip(held, words, strict=True)])
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
                    vectors.store(sum_, target)
            return context.get_dummy_value()

        return signature, generate

    return product


_ONE, _TWO, _THREE = (_block(registers) for registers in range(1, WIDEST + 1))


@njit(cache=True, nogil=True)
def multiply(rows: Halves, columns: Columns, out: Columns, lanes: int) -> None:
    """Compute out = rows columns batch by batch: of int64 modulo 2^52 (what lies above is of no meaning), or float64.

    `rows` from `pack_rows` (B, row panels, K, rows), `columns` (B, column panels, K, width) of whole registers; out
    (B, row panels * rows, column panels * width); `lanes` those of the unit.
    """
    batches, panels, inner, height = rows.shape
    width, leading, most = columns.shape[3], out.shape[2], WIDEST * lanes
    wide, flat = np.empty(DEPTH * height, columns.dtype), rows.reshape(-1)
    for b in range(batches):
        for i in range(panels):  # weights are read once and in order, the columns from a near cache again and again
            for k0 in range(0, inner, DEPTH):
                depth, keep = min(DEPTH, inner - k0), -1 if k0 else 0
                first = np.uintp(((b * panels + i) * inner + k0) * height)
                for n in range(depth * height):
                    wide[np.uintp(n)] = flat[first + np.uintp(n)]
                for j in range(columns.shape[1]):
                    start = ((b * columns.shape[1] + j) * inner + k0) * width
                    target = (b * out.shape[1] + i * height) * leading + j * width
                    for at in range(0, width, most):
                        if width - at >= most:
                            _THREE(wide, columns, start + at, width, out, target + at, leading, depth, keep)
                        elif width - at == 2 * lanes:
                            _TWO(wide, columns, start + at, width, out, target + at, leading, depth, keep)
                        else:
                            _ONE(wide, columns, start + at, width, out, target + at, leading, depth, keep)
