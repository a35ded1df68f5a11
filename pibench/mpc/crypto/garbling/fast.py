"""Garbling and evaluation by compiled kernels with AES instructions; `plain.py` computes the same bits without.

A circuit's operations run one after another, each over a block of lanes: labels and scratch of a block stay in the
cache, and what an operation costs to look up is spread over its lanes.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pibench.mpc.crypto.aes import LANES, derive_key
from pibench.mpc.crypto.garbling.circuit import Circuit, Code
from pibench.mpc.crypto.garbling.gates import LABEL_BYTES, gate, linear_gate
from pibench.mpc.crypto.garbling.layout import BLOCK, KEY_BLOCKS, Keys
from pibench.mpc.crypto.instructions import ROUND_WORDS

Words = NDArray[np.uint64]
_XOR, _NOT, _ADD = int(Code.XOR), int(Code.NOT), int(Code.ADD)
_garble_and, _garble_add = gate(LANES, True, False), gate(LANES, True, True)
_evaluate_and, _evaluate_add = gate(LANES, False, False), gate(LANES, False, True)
_xor, _not = linear_gate(LANES, False), linear_gate(LANES, True)


def run(circuit: Circuit, keys: Keys, a: Words, b: Words, offset: Words | None, tables: Words, out: Words) -> None:
    """Garble (with an offset) or evaluate (without); arrays as in `garbling.garble`, flat."""
    shape = np.array([circuit.garbler, circuit.evaluator, circuit.outputs, circuit.scratch, circuit.ands])
    given = np.zeros(2, np.uint64) if offset is None else offset
    _run(circuit.ops, shape, a, b, given, tables, out, keys.salt, keys.high, keys.first_block, offset is not None)


@njit(cache=True, nogil=True)
def _run(
    ops: NDArray[np.int32], shape: NDArray[np.int64], a: Words, b: Words, offset: Words, tables: Words, out: Words,
    salt: Words, high: int, first: int, garbling: bool,
) -> None:  # fmt: skip
    garbler, evaluator, outputs, scratch, ands = shape
    lanes = out.size // (2 * outputs)
    keys, held = np.empty(2 * ands * ROUND_WORDS, np.uint64), np.empty(2 * scratch * BLOCK, np.uint64)
    where = np.empty(garbler + evaluator + outputs + scratch, np.int64)
    for start in range(0, lanes, BLOCK):
        size, block = min(BLOCK, lanes - start), first + start // BLOCK
        if start == 0 or block % KEY_BLOCKS == 0:
            for k in range(2 * ands):
                derive_key(salt, high, (block // KEY_BLOCKS) << 20 | k, keys, k * ROUND_WORDS)
        at = start * LABEL_BYTES
        _place(where, 0, garbler, a.ctypes.data + at * garbler, size)
        _place(where, garbler, evaluator, b.ctypes.data + at * evaluator, size)
        _place(where, garbler + evaluator, outputs, out.ctypes.data + at * outputs, size)
        _place(where, garbler + evaluator + outputs, scratch, held.ctypes.data, size)
        _block(ops, where, tables.ctypes.data + at * 2 * ands, keys.ctypes.data, offset.ctypes.data, size, garbling)


@njit(cache=True, nogil=True)
def _place(where: NDArray[np.int64], first: int, count: int, address: int, size: int) -> None:
    for i in range(count):
        where[first + i] = address + i * size * LABEL_BYTES


@njit(cache=True, nogil=True)
def _block(
    ops: NDArray[np.int32], where: NDArray[np.int64], table: int, keys: int, offset: int, size: int, garbling: bool
) -> None:
    """Run all operations over one block of `size` lanes."""
    for k in range(ops.shape[0]):
        code, out, p = ops[k, 0], where[ops[k, 1]], where[ops[k, 3]]
        if code == _NOT:
            _not(out, p, offset, size)  # the evaluator's offset is zero: it has the label of the other truth already
            continue
        q = where[ops[k, 4]]
        if code == _XOR:
            _xor(out, p, q, size)
            continue
        if code == _ADD:
            second, c = where[ops[k, 2]], where[ops[k, 5]]
            if garbling:
                _garble_add(out, second, p, q, c, table, keys, offset, size)
            else:
                _evaluate_add(out, second, p, q, c, table, keys, offset, size)
        elif garbling:
            _garble_and(out, 0, p, q, 0, table, keys, offset, size)
        else:
            _evaluate_and(out, 0, p, q, 0, table, keys, offset, size)
        table += 2 * size * LABEL_BYTES
        keys += 2 * 8 * ROUND_WORDS
