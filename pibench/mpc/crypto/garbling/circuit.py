"""Boolean circuits as flat lists of operations, built from words: an AND costs two ciphertexts, the rest nothing.

Wires are numbered: the garbler's inputs, the evaluator's, the outputs, then scratch that is used again as soon as what
stood there is read for the last time. A full adder is one operation with one AND, c ^ ((p ^ c) & (q ^ c)), so that its
labels are read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Word = list[int]  # wires, lowest bit first


class Code(IntEnum):
    """What an operation computes, from its inputs p, q, c."""

    XOR = 0  # p ^ q
    NOT = 1  # ~p
    AND = 2  # p & q
    ADD = 3  # the sum p ^ q ^ c, and beside it the carry


ANDS = (Code.AND, Code.ADD)
NONE = -1


@dataclass(frozen=True)
class Circuit:
    """A circuit; `ops` int32 (operations, 6): code, output, second output (the carry of ADD), and inputs p, q, c."""

    garbler: int  # input wires, from 0
    evaluator: int  # input wires after those
    outputs: int  # wires after those
    scratch: int  # wires after those
    ops: NDArray[np.int32]

    @cached_property
    def ands(self) -> int:
        """ANDs, two ciphertexts of 16 bytes each."""
        return int(np.isin(self.ops[:, 0], ANDS).sum())

    @property
    def first_output(self) -> int:
        """The number of the lowest output wire."""
        return self.garbler + self.evaluator

    @property
    def wires(self) -> int:
        """All wires, scratch included."""
        return self.first_output + self.outputs + self.scratch


class Builder:
    """Builds a circuit wire by wire; words are lists of wires, and addition is that of the ring of their length."""

    def __init__(self, garbler: int, evaluator: int) -> None:
        self._counts = (garbler, evaluator)
        self._ops: list[tuple[int, ...]] = []
        self._next = garbler + evaluator

    def inputs(self, first: int, count: int) -> Word:
        """Return the input wires `first`, ..."""
        return list(range(first, first + count))

    def xor(self, p: int, q: int) -> int:
        """Return p ^ q."""
        return self._emit(Code.XOR, p, q)

    def invert(self, p: int) -> int:
        """Return ~p."""
        return self._emit(Code.NOT, p)

    def both(self, p: int, q: int) -> int:
        """Return p & q: one AND."""
        return self._emit(Code.AND, p, q)

    def full(self, p: int, q: int, c: int) -> tuple[int, int]:
        """Return the sum and the carry of three bits: one AND."""
        carry = self._take()
        made = self._take()
        self._ops.append((Code.ADD, made, carry, p, q, c))
        return made, carry

    def add(self, p: Word, q: Word, carries_out: bool = False) -> tuple[Word, int]:
        """Return p + q modulo 2^len(q), p no longer than q, and the carry out if it is wanted.

        len(q) - 1 ANDs, one more with the carry out: above p, a half adder passes the carry on.
        """
        made, carry = [self.xor(p[0], q[0])], NONE
        last = len(q) - 1
        if last or carries_out:
            carry = self.both(p[0], q[0])
        for i in range(1, last + 1):
            if i == last and not carries_out:
                made.append(self.xor(q[i], self.xor(p[i], carry) if i < len(p) else carry))
            elif i < len(p):
                total, carry = self.full(p[i], q[i], carry)
                made.append(total)
            else:
                made.append(self.xor(q[i], carry))
                carry = self.both(q[i], carry)
        return made, carry

    def build(self, outputs: Word) -> Circuit:
        """Return the circuit with these outputs (each made by an operation, none twice), wires numbered as above."""
        placed = _place(self._ops, outputs, sum(self._counts))
        ops = np.full((len(self._ops), 6), NONE, np.int32)
        for row, (code, *wires) in zip(ops, self._ops, strict=True):
            row[:] = code, *[placed[wire] if wire >= 0 else NONE for wire in wires]
        scratch = int(ops[:, 1:].max()) + 1 - sum(self._counts) - len(outputs)
        return Circuit(*self._counts, len(outputs), max(0, scratch), ops)

    def _emit(self, code: Code, p: int, q: int = NONE) -> int:
        made = self._take()
        self._ops.append((code, made, NONE, p, q, NONE))
        return made

    def _take(self) -> int:
        self._next += 1
        return self._next - 1


def _place(ops: list[tuple[int, ...]], outputs: Word, inputs: int) -> dict[int, int]:
    """Return the wires' numbers: inputs as they are, outputs after them, the others on scratch that has become free."""
    last = {wire: at for at, (_, made, second, *read) in enumerate(ops) for wire in (made, second, *read)}
    placed = {wire: wire for wire in range(inputs)} | {wire: inputs + i for i, wire in enumerate(outputs)}
    top, free = inputs + len(outputs), list[int]()
    fixed = set(placed)
    for at, (_, made, second, *read) in enumerate(ops):
        for wire in (made, second):
            if wire >= 0 and wire not in placed:
                placed[wire] = free.pop() if free else (top := top + 1) - 1
        for wire in {made, second, *read} - fixed:
            if wire >= 0 and last[wire] == at:
                free.append(placed[wire])
    return placed
