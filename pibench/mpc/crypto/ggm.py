"""Trees of seeds of which one side knows every leaf and the other side every leaf but one, by one transfer a level.

Goldreich, Goldwasser and Micali, J. ACM 1986; punctured by transfers as in Doerner and shelat, CCS 2017, section 5.1.
The step from a node to its children is SHA-256 of the seed with its tree and position: it must not run backward, since
from the missing leaf's sibling an invertible step leads to their parent, and from it to the missing leaf.

Security: semi-honest; SHA-256 as a pseudorandom generator from a 128-bit seed. Unaudited, for measurement.
Cost: one message, 32 bytes a level and tree, from the side that knows all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

from pibench.errors import MalformedError

SEED_BYTES = 16
LEVELS = 4
LEAVES = 1 << LEVELS
_LABEL = b"pibench seed tree 1"

Step = Callable[[bytes, int, int, int], tuple[bytes, bytes]]
Tree = list[bytes | None]


def children(seed: bytes, tree: int, level: int, place: int) -> tuple[bytes, bytes]:
    """Return both children of a node."""
    position = bytes([level, place]) + tree.to_bytes(4, "little")
    digest = hashlib.sha256(_LABEL + position + seed).digest()
    return digest[:SEED_BYTES], digest[SEED_BYTES:]


def grow(keys: Sequence[tuple[bytes, bytes]], step: Step = children) -> tuple[list[list[bytes]], bytes]:
    """Grow a tree for every LEVELS pairs of keys; returns the leaves, and the message that lets the peer grow its own.

    Of a level's nodes the sums of the even and of the odd ones go out, each under one key of the level's pair.
    """
    trees, said = [], []
    for tree in range(len(keys) // LEVELS):
        nodes = [os.urandom(SEED_BYTES)]
        for level in range(LEVELS):
            nodes = [child for place, seed in enumerate(nodes) for child in step(seed, tree, level, place)]
            pair = keys[tree * LEVELS + level]
            said += [_xor([*nodes[side::2], pair[side]]) for side in range(2)]
        trees.append(nodes)
    return trees, b"".join(said)


def path_choices(holes: Sequence[int]) -> list[int]:
    """Return the transfers' choices for these missing leaves: on every level the side that the hole is not on."""
    return [1 - (hole >> (LEVELS - 1 - level) & 1) for hole in holes for level in range(LEVELS)]


def puncture(holes: Sequence[int], keys: Sequence[bytes], message: bytes, step: Step = children) -> list[Tree]:
    """Grow every tree but its hole, from one key a level and the peer's message.

    Raises MalformedError for a message of another length.
    """
    wanted = 2 * SEED_BYTES * LEVELS * len(holes)
    if len(message) != wanted:
        raise MalformedError(f"the seeds' message has {len(message)} bytes, not {wanted}", where="OT setup")
    trees: list[Tree] = []
    for tree, hole in enumerate(holes):
        nodes: Tree = [None]
        for level in range(LEVELS):
            below = [child for place, seed in enumerate(nodes) for child in _known(seed, tree, level, place, step)]
            prefix = hole >> (LEVELS - 1 - level)
            side = 1 - (prefix & 1)
            at = ((tree * LEVELS + level) * 2 + side) * SEED_BYTES
            terms = [seed for seed in below[side::2] if seed is not None]
            below[prefix ^ 1] = _xor([message[at : at + SEED_BYTES], keys[tree * LEVELS + level], *terms])
            nodes = below
        trees.append(nodes)
    return trees


def _known(seed: bytes | None, tree: int, level: int, place: int, step: Step) -> tuple[bytes | None, bytes | None]:
    return (None, None) if seed is None else step(seed, tree, level, place)


def _xor(terms: Sequence[bytes]) -> bytes:
    total = 0
    for term in terms:
        total ^= int.from_bytes(term, "little")
    return total.to_bytes(SEED_BYTES, "little")
