"""Half-gates with AES instructions: one gate over many lanes, labels in registers from first to last.

Zahur, Rosulek and Evans, *Two Halves Make a Whole*, EUROCRYPT 2015: with free XOR (offset R, lowest bit 1) and point
and permute (the lowest bit of a label is its colour), an AND takes two ciphertexts, two hashes to evaluate and four to
garble. For labels A, B of zero with colours a, b, and the hash H under the keys of the gate's two halves:

    generator half:  G = H(A) ^ H(A ^ R) ^ b R,   made = H(A) ^ a G
    evaluator half:  E = H'(B) ^ H'(B ^ R) ^ A,   made = H'(B) ^ b (E ^ A)

and the output's label of zero is the XOR of both. Intrinsics take addresses: memory is the caller's care.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pibench.mpc.crypto.instructions import ROUND_WORDS, encrypt_registers, sigma_registers

_I64, _I32 = ir.IntType(64), ir.IntType(32)
LABEL_BYTES = 16
EVALUATED, GARBLED = 4, 2  # registers of labels at a time: as many states of AES as hide its latency


class _Lanes:
    """Vectors of `blocks` labels, and what half-gates do with them."""

    def __init__(self, builder: Any, blocks: int, keys: Any) -> None:
        self.builder, self.blocks, self.keys = builder, blocks, keys
        self.kind = ir.VectorType(_I64, 2 * blocks)
        self._index = ir.VectorType(_I32, 2 * blocks)

    def load(self, address: Any, offset: Any) -> Any:
        """Return a vector of labels that lie `offset` bytes behind an address."""
        return self.builder.load(self._at(address, offset), align=8)

    def store(self, value: Any, address: Any, offset: Any) -> None:
        """Put a vector of labels there."""
        self.builder.store(value, self._at(address, offset), align=8)

    def everywhere(self, address: Any) -> Any:
        """Return one label in every place."""
        pointer = self.builder.inttoptr(address, ir.VectorType(_I64, 2).as_pointer())
        label = self.builder.load(pointer, align=8)
        spread = ir.Constant(self._index, [i % 2 for i in range(2 * self.blocks)])
        return self.builder.shuffle_vector(label, label, spread)

    def if_coloured(self, label: Any, value: Any) -> Any:
        """Return `value` where the label's colour is set, else zero."""
        low = self.builder.shuffle_vector(
            label, label, ir.Constant(self._index, [i & ~1 for i in range(2 * self.blocks)])
        )
        colour = self.builder.and_(low, ir.Constant(self.kind, [1] * (2 * self.blocks)))
        return self.builder.and_(self.builder.sub(ir.Constant(self.kind, [0] * (2 * self.blocks)), colour), value)

    def xor(self, *values: Any) -> Any:
        """Return the XOR of all."""
        total = values[0]
        for value in values[1:]:
            total = self.builder.xor(total, value)
        return total

    def hashes(self, half: int, labels: list[Any]) -> list[Any]:
        """Return H of every label under the key of the gate's first or second half."""
        turned = [sigma_registers(self.builder, label, self.blocks) for label in labels]
        keys = self.builder.gep(self.keys, [ir.Constant(_I64, half * ROUND_WORDS)])
        sealed = encrypt_registers(self.builder, turned, keys, self.blocks)
        return [self.builder.xor(x, y) for x, y in zip(sealed, turned, strict=True)]

    def each(self, count: Any, registers: int) -> Iterator[list[Any]]:
        """Emit a loop over `count` labels: yields once, the byte offsets of so many registers of one turn."""
        size, step = ir.Constant(_I64, LABEL_BYTES), ir.Constant(_I64, self.blocks * registers)
        with cgutils.for_range_slice(self.builder, ir.Constant(_I64, 0), count, step, intp=_I64) as (at, _):
            start = self.builder.mul(at, size)
            yield [self.builder.add(start, ir.Constant(_I64, LABEL_BYTES * self.blocks * r)) for r in range(registers)]

    def _at(self, address: Any, offset: Any) -> Any:
        return self.builder.inttoptr(self.builder.add(address, offset), self.kind.as_pointer())


Pairs = list[tuple[Any, Any]]


def _evaluated(lanes: _Lanes, pairs: Pairs, tables: Pairs) -> list[Any]:
    """Return the labels of the ANDs of pairs of labels, by their ciphertexts."""
    ga, gb = lanes.hashes(0, [a for a, _ in pairs]), lanes.hashes(1, [b for _, b in pairs])
    made = []
    for (a, b), x, y, (g, e) in zip(pairs, ga, gb, tables, strict=True):
        made.append(lanes.xor(x, y, lanes.if_coloured(a, g), lanes.if_coloured(b, lanes.xor(e, a))))
    return made


def _garbled(lanes: _Lanes, pairs: Pairs, offset: Any) -> list[tuple[Any, Any, Any]]:
    """Return label of zero and both ciphertexts of the ANDs of pairs of labels of zero."""
    n = len(pairs)
    ga = lanes.hashes(0, [a for a, _ in pairs] + [lanes.xor(a, offset) for a, _ in pairs])
    gb = lanes.hashes(1, [b for _, b in pairs] + [lanes.xor(b, offset) for _, b in pairs])
    made = []
    for i, (a, b) in enumerate(pairs):
        g = lanes.xor(ga[i], ga[n + i], lanes.if_coloured(b, offset))
        e = lanes.xor(gb[i], gb[n + i], a)
        label = lanes.xor(ga[i], gb[i], lanes.if_coloured(a, g), lanes.if_coloured(b, lanes.xor(e, a)))
        made.append((label, g, e))
    return made


def gate(blocks: int, garbling: bool, adder: bool) -> Callable[..., Any]:
    """Return the intrinsic run(out, second, p, q, c, table, keys, offset, count), all of them 64-bit integers.

    The addresses `out` to `c` are those of `count` labels each (a multiple of 16); ciphertexts lie at `table`, the
    first halves' before the second halves'; `keys` is the address of both halves' round keys, `offset` that of R. With
    `adder`, `out` takes the sum's labels and `second` the carry's; without it neither c nor second is touched.
    """

    def emit(builder: Any, args: Any) -> None:
        out, second, p, q, c, table, keys, offset_at, count = args
        lanes = _Lanes(builder, blocks, builder.inttoptr(keys, _I64.as_pointer()))
        offset = lanes.everywhere(offset_at)
        behind = builder.add(table, builder.mul(count, ir.Constant(_I64, LABEL_BYTES)))
        for places in lanes.each(count, GARBLED if garbling else EVALUATED):
            a, b = [lanes.load(p, i) for i in places], [lanes.load(q, i) for i in places]
            carry = [lanes.load(c, i) for i in places] if adder else []
            if adder:
                for i, *bits in zip(places, a, b, carry, strict=True):
                    lanes.store(lanes.xor(*bits), out, i)
                a, b = ([lanes.xor(x, z) for x, z in zip(word, carry, strict=True)] for word in (a, b))
            pairs = list(zip(a, b, strict=True))
            if garbling:
                made = _garbled(lanes, pairs, offset)
                for i, (_, g, e) in zip(places, made, strict=True):
                    lanes.store(g, table, i)
                    lanes.store(e, behind, i)
                labels = [label for label, _, _ in made]
            else:
                labels = _evaluated(lanes, pairs, [(lanes.load(table, i), lanes.load(behind, i)) for i in places])
            for k, (i, label) in enumerate(zip(places, labels, strict=True)):
                lanes.store(lanes.xor(label, carry[k]) if adder else label, second if adder else out, i)

    @intrinsic
    def run(
        context: Any, out: Any, second: Any, p: Any, q: Any, c: Any, table: Any, keys: Any, offset: Any, count: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit(builder, args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), generate

    return run


def linear_gate(blocks: int, inverts: bool) -> Callable[..., Any]:
    """Return the intrinsic run(out, p, q, count): the XOR of `count` labels at p and q, or of those at p and one at q.

    The second is the garbler's NOT, with the offset R at q.
    """

    @intrinsic
    def run(context: Any, out: Any, p: Any, q: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            to, at, other, size = args
            lanes = _Lanes(builder, blocks, None)
            same = lanes.everywhere(other) if inverts else None
            for places in lanes.each(size, GARBLED):
                for i in places:
                    value = same if inverts else lanes.load(other, i)
                    lanes.store(lanes.xor(lanes.load(at, i), value), to, i)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), generate

    return run
