"""How labels and ciphertexts of many lanes lie in memory and on the wire, and which public key serves which gate.

A lane is one evaluation of a circuit (one ReLU). Lanes go in blocks of 128, the last one shorter and filled up to a
multiple of 16 with lanes of zeros. Labels, two 64-bit words each, lie as [block][wire][lane]; ciphertexts as
[block][gate][half][lane].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pibench.mpc.crypto.aes import round_keys

Words = NDArray[np.uint64]
BLOCK = 128  # lanes
KEY_BLOCKS = 8  # blocks a key
FILL = 16  # lanes to a multiple of which a layer is filled up
_GATE_BITS, _BLOCK_BITS = 20, 44  # of a key's position: gate and half; key block


def filled(lanes: int) -> int:
    """Return the lanes of a layer with those that fill it up."""
    return -(-lanes // FILL) * FILL


@dataclass(frozen=True)
class Keys:
    """Public keys of one circuit's hashes over one layer's lanes: AES_salt(instance, key block, gate, half).

    `instance` is handed out once in the life of a salt; positions are absolute, so that garbler and evaluator may go
    through a layer in pieces of different sizes (of whole blocks). A key serves 1,024 lanes of one half of one gate,
    2^11 hashes: in the ideal cipher model (Guo, Katz, Wang, Weng and Yu, CRYPTO 2020) the multi-instance bound is 2^11
    times that of one use: 116 bits remain of the 127 that are unknown of Delta.
    """

    salt: Words
    instance: int
    first_block: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.instance < 1 << 63 and 0 <= self.first_block < KEY_BLOCKS << (_BLOCK_BITS - 1)):
            raise ValueError("a position of a key is out of range")

    def at(self, lane: int) -> Keys:
        """Return the keys from this lane on, the first of a block."""
        if lane % BLOCK:
            raise ValueError(f"a piece begins at lane {lane}, which begins no block")
        return replace(self, first_block=self.first_block + lane // BLOCK)

    @property
    def high(self) -> int:
        """The first word of a position."""
        return self.instance


def expand_salt(salt: bytes) -> Words:
    """Return the round keys of a public salt of 16 bytes."""
    return round_keys(salt)


@njit(cache=True, nogil=True)
def encode(zero: Words, words: Words, first: int, count: int, wires: int, offset: Words, out: Words) -> None:
    """Active labels of wires `first`, ...: of lane i and wire j, zero's label, and R on top where words[i] has bit j.

    `wires` lie side by side in a lane. Lanes beyond `words` get the label of zero.
    """
    lanes = out.size // (2 * wires)
    for start in range(0, lanes, BLOCK):
        size = min(BLOCK, lanes - start)
        known = max(0, min(size, words.size - start))
        for wire in range(count):
            at = 2 * (start * wires + (first + wire) * size)
            for i in range(known):
                chosen = -((words[start + i] >> np.uint64(wire)) & np.uint64(1))
                out[at + 2 * i] = zero[at + 2 * i] ^ (chosen & offset[0])
                out[at + 2 * i + 1] = zero[at + 2 * i + 1] ^ (chosen & offset[1])
            for i in range(2 * known, 2 * size):
                out[at + i] = zero[at + i]


@njit(cache=True, nogil=True)
def colours(labels: Words, wires: int, out: Words) -> None:
    """Lowest bits of the labels: bit j of out[i] is that of lane i and wire j (64 wires at most)."""
    lanes = labels.size // (2 * wires)
    for start in range(0, lanes, BLOCK):
        size = min(BLOCK, lanes - start)
        known = max(0, min(size, out.size - start))
        out[start : start + known] = 0
        for wire in range(wires):
            at = 2 * (start * wires + wire * size)
            for i in range(known):
                out[start + i] |= (labels[at + 2 * i] & np.uint64(1)) << np.uint64(wire)


@njit(cache=True, nogil=True)
def choices(words: Words, first: int, count: int, wires: int, lanes: int, out: NDArray[np.uint8]) -> None:
    """Bits 0 to count - 1 of words[i] are lane i's choices of wires `first`, ...: a byte each, in the labels' order.

    `lanes` are filled up; those beyond `words` choose zero.
    """
    for start in range(0, lanes, BLOCK):
        size = min(BLOCK, lanes - start)
        known = max(0, min(size, words.size - start))
        for wire in range(count):
            at = start * wires + (first + wire) * size
            for i in range(known):
                out[at + i] = np.uint8((words[start + i] >> np.uint64(wire)) & np.uint64(1))
            out[at + known : at + size] = 0
