"""Extension of 128 base transfers to any number of correlated ones: SoftSpokenOT with k = 4 (Roy, CRYPTO 2022).

The receiver has a choice bit c a transfer and gets a row t of 128 bits; the sender has one offset Delta for all of them
and gets q with t = q ^ c Delta. Delta's lowest bit is 1, so rows serve as labels of garbled wires as they are: the
sender's label of zero is q. Everything else (random, chosen, additive transfers) is hashed from rows: `transfers.py`.

Each of 32 trees of 16 seeds stands for four bits of Delta: they are the number of the seed that the sender lacks. The
receiver sends one vector a tree, the sum of all its keystreams and of the choices: a quarter of what IKNP sends.

Security: semi-honest (no consistency check). Messages hide c behind the keystream that the sender lacks (AES-128 in
counter mode); the receiver knows nothing of Delta, which only chose base transfers. State lives as long as its
connection: it is never stored, copied or resumed, and every row serves once. Unaudited, for measurement.

Cost: setup, once a connection and direction: the base transfers and one message more, 8,192 bytes from the sender and
4,128 back. Extension: one message, 4 bytes a transfer, from the receiver.
"""

from __future__ import annotations

import hashlib
import os
from typing import NoReturn

import numpy as np

from pibench.links.transport import Channel
from pibench.mpc.crypto import ggm
from pibench.mpc.crypto.aes import Words, round_keys
from pibench.mpc.crypto.baseot import POINT_BYTES, BaseReceiver, answer_base
from pibench.mpc.crypto.rows import TREES, receive_rows, send_rows

BITS = 128  # of Delta, and as many base transfers
TRANSFER_BYTES = 4  # that the receiver sends for one
OFFER_BYTES = 2 * POINT_BYTES * BITS
ANSWER_BYTES = POINT_BYTES + 2 * ggm.SEED_BYTES * BITS


class _OfOneConnection:
    """State that lives in one process and connection: a copy of it would make rows a second time."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("transfers are of one connection: they are neither copied nor stored")


class OtSender(_OfOneConnection):
    """The side with the offset: `delta` (2,), and rows q (n, 2) for every message of the receiver."""

    def __init__(self, delta: Words, trees: list[ggm.Tree], salt: bytes) -> None:
        self.delta, self.salt = delta, round_keys(salt)
        self.position = 0  # rows so far; the first of the next extension
        self._block = 0  # of the keystreams
        holes = _holes(delta)
        # leaf x ^ hole in place x; the hole itself, in place 0, counts for nothing
        placed = [tree[x ^ hole] or bytes(16) for tree, hole in zip(trees, holes, strict=True) for x in range(16)]
        self._keys = np.concatenate([round_keys(seed) for seed in placed])
        self._masks = np.array([-(hole >> b & 1) for hole in holes for b in range(4)], np.int64).view(np.uint64)

    def extend(self, message: Words, into: Words | None = None) -> Words:
        """Return the rows q (n, 2) of the receiver's message: n / 2 words, n a multiple of 64; `into` takes them."""
        count, rest = divmod(message.size, TREES)
        if rest:
            raise ValueError(f"a message of {message.size} words is none of whole groups of 64 transfers")
        rows = np.empty((64 * count, 2), np.uint64) if into is None else into.reshape(64 * count, 2)
        self._block = send_rows(self._keys, self._block, self._masks, message.reshape(-1), rows)
        self.position += len(rows)
        return rows


class OtReceiver(_OfOneConnection):
    """The side that chooses: rows t (n, 2) and the message for the sender, for every n choices."""

    def __init__(self, trees: list[list[bytes]], salt: bytes) -> None:
        self.salt = round_keys(salt)
        self.position = 0
        self._block = 0
        self._keys = np.concatenate([round_keys(seed) for tree in trees for seed in tree])

    def extend(self, choices: Words, into: Words | None = None) -> tuple[Words, Words]:
        """Return rows t (n, 2) and the message (n / 2 words) for n choices, 64 a word from the lowest bit.

        `into`, contiguous, takes the rows.
        """
        count = 64 * choices.size
        rows = np.empty((count, 2), np.uint64) if into is None else into.reshape(count, 2)
        message = np.empty(TREES * choices.size, np.uint64)
        self._block = receive_rows(self._keys, self._block, choices, rows, message)
        self.position += len(rows)
        return rows, message


def message_bytes(count: int) -> int:
    """Bytes that the receiver sends for `count` transfers (a multiple of 64)."""
    return TRANSFER_BYTES * count


class SenderSetup:
    """The sender's half of a setup: `offer` goes to the peer's `answer_setup`, whose answer `finish` takes."""

    def __init__(self, session: bytes, role: bytes) -> None:
        self._context = session + role
        self._delta = np.frombuffer(os.urandom(16), np.uint64).copy()
        self._delta[0] |= np.uint64(1)
        self._holes = _holes(self._delta)
        self._base = BaseReceiver(ggm.path_choices(self._holes), session, role)
        self.offer = self._base.offer

    def finish(self, answer: bytes) -> OtSender:
        """Return the sender; raises TransportError for what is no answer."""
        point, seeds = answer[:POINT_BYTES], answer[POINT_BYTES:]
        trees = ggm.puncture(self._holes, self._base.keys(point), seeds)
        return OtSender(self._delta, trees, _salt(self._context, self.offer, point))


def answer_setup(offer: bytes, session: bytes, role: bytes) -> tuple[OtReceiver, bytes]:
    """Return the receiver, and the answer to the sender's offer."""
    answer, keys = answer_base(offer, BITS, session, role)
    trees, said = ggm.grow(keys)
    return OtReceiver(trees, _salt(session + role, offer, answer)), answer + said


def set_up_sender(channel: Channel, session: bytes, role: bytes) -> OtSender:
    """Make the sender's half of an extension; `session` and `role` are the peer's `set_up_receiver`'s.

    Raises TransportError for a peer that stops or answers with what is no answer.
    """
    setup, heard = SenderSetup(session, role), bytearray(ANSWER_BYTES)
    channel.send(setup.offer)
    channel.recv_into(heard)
    return setup.finish(bytes(heard))


def set_up_receiver(channel: Channel, session: bytes, role: bytes) -> OtReceiver:
    """Make the receiver's half of an extension; see `set_up_sender`."""
    heard = bytearray(OFFER_BYTES)
    channel.recv_into(heard)
    receiver, answer = answer_setup(bytes(heard), session, role)
    channel.send(answer)
    return receiver


def set_up_both(channel: Channel, session: bytes, mine: bytes, theirs: bytes) -> tuple[OtSender, OtReceiver]:
    """Make both directions at the same time, each with an offset of its own: two exchanges, for both parties alike.

    `mine` is the role of the direction in which this party is the sender, the peer's `theirs`.
    """
    setup, offer, answer = SenderSetup(session, mine), bytearray(OFFER_BYTES), bytearray(ANSWER_BYTES)
    channel.exchange(setup.offer, offer)
    receiver, said = answer_setup(bytes(offer), session, theirs)
    channel.exchange(said, answer)
    return setup.finish(bytes(answer)), receiver


def _holes(delta: Words) -> list[int]:
    """Return Delta's 32 groups of four bits, from the lowest."""
    number = int.from_bytes(delta.tobytes(), "little")
    return [number >> (4 * tree) & 15 for tree in range(TREES)]


def _salt(context: bytes, offer: bytes, answer: bytes) -> bytes:
    """Both sides' public salt of hash keys: fresh a connection and direction, since offer and answer are."""
    return hashlib.sha256(b"pibench OT salt 1" + context + offer + answer).digest()[:16]
