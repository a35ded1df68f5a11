"""Garbling and evaluation in numpy and the `cryptography` package, a gate at a time: the same bits, more slowly.

What runs where numba compiles without AES instructions, and what the kernels are tested against.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray

from pibench.mpc.crypto.garbling.circuit import Circuit, Code
from pibench.mpc.crypto.garbling.layout import BLOCK, KEY_BLOCKS, Keys

Words = NDArray[np.uint64]
_ONE = np.uint64(1)


def run(circuit: Circuit, keys: Keys, a: Words, b: Words, offset: Words | None, tables: Words, out: Words) -> None:
    """Garble (with an offset) or evaluate (without); arrays as in `garbling.garble`, flat."""
    lanes = out.size // (2 * circuit.outputs)
    start = 0
    while start < lanes:
        block = keys.first_block + start // BLOCK
        blocks = min(KEY_BLOCKS - block % KEY_BLOCKS, (lanes - start) // BLOCK)  # whole ones under one key
        size = BLOCK if blocks else lanes - start
        cut = [
            _cut(array, wires, start, max(1, blocks), size)
            for array, wires in (
                (a, circuit.garbler), (b, circuit.evaluator), (out, circuit.outputs), (tables, 2 * circuit.ands)
            )
        ]  # fmt: skip
        _Piece(circuit, keys, block // KEY_BLOCKS, offset, cut[3]).run(*cut[:3])
        start += max(1, blocks) * size


def _cut(array: Words, wires: int, start: int, blocks: int, size: int) -> Words:
    """Return a view (blocks, wires, size, 2) of flat labels or ciphertexts."""
    first = 2 * wires * start
    return array[first : first + 2 * wires * blocks * size].reshape(blocks, wires, size, 2)


class _Piece:
    """Blocks of equal size under one set of keys; labels of a wire are (blocks, lanes, 2)."""

    def __init__(self, circuit: Circuit, keys: Keys, key_block: int, offset: Words | None, tables: Words) -> None:
        self._circuit, self._offset, self._tables = circuit, offset, tables
        self._salt = Cipher(AES(keys.salt[:2].tobytes()), ECB())
        self._position = (keys.high, key_block << 20)
        self._gates = 0

    def run(self, a: Words, b: Words, out: Words) -> None:
        wires: dict[int, Words] = {i: a[:, i] for i in range(a.shape[1])}
        wires |= {a.shape[1] + i: b[:, i] for i in range(b.shape[1])}
        for code, made, second, p, q, c in self._circuit.ops.tolist():
            if code == Code.XOR:
                wires[made] = wires[p] ^ wires[q]
            elif code == Code.NOT:
                wires[made] = wires[p] if self._offset is None else wires[p] ^ self._offset
            elif code == Code.AND:
                wires[made] = self._and(wires[p], wires[q])
            else:
                x, y, z = wires[p], wires[q], wires[c]
                wires[made], wires[second] = x ^ y ^ z, self._and(x ^ z, y ^ z) ^ z
        for i in range(out.shape[1]):
            out[:, i] = wires[self._circuit.first_output + i]

    def _and(self, a: Words, b: Words) -> Words:
        """See gates.py for the formulas."""
        first, second = (self._hasher(2 * self._gates + half) for half in (0, 1))
        g, e = self._tables[:, 2 * self._gates], self._tables[:, 2 * self._gates + 1]
        self._gates += 1
        ca, cb = (np.negative(label[..., :1] & _ONE) for label in (a, b))
        left, right = first(a), second(b)
        if self._offset is not None:
            g[:] = left ^ first(a ^ self._offset) ^ (cb & self._offset)
            e[:] = right ^ second(b ^ self._offset) ^ a
        made: Words = left ^ right ^ (ca & g) ^ (cb & (e ^ a))
        return made

    def _hasher(self, gate: int) -> _Hash:
        high, low = self._position
        key = self._salt.encryptor().update(np.array([low | gate, high], np.uint64).tobytes())
        return _Hash(Cipher(AES(key), ECB()))


class _Hash:
    """H(x) = AES_K(s) ^ s with s = sigma(x), of labels (..., 2)."""

    def __init__(self, cipher: Cipher[ECB]) -> None:
        self._cipher = cipher

    def __call__(self, labels: Words) -> Words:
        turned = np.stack([labels[..., 0] ^ labels[..., 1], labels[..., 0]], -1)
        sealed = np.frombuffer(self._cipher.encryptor().update(turned.tobytes()), np.uint64)
        made: Words = sealed.reshape(turned.shape) ^ turned
        return made
