"""Oblivious transfer of keys by X25519: of two keys that the sender gets from each pair, the receiver can make one.

The receiver sends two public keys a transfer, of which it knows one secret; the other is 8 k times a uniform point of
the curve, whose logarithm nobody knows. The sender answers all of them with one public key, and each pair's two keys
come from the two Diffie-Hellman secrets (Bellare and Micali, CRYPTO 1989; Naor and Pinkas, SODA 2001, section 3.1).

Security: semi-honest. Both public keys are uniform in the group of prime order (to about 2^-125), so the sender learns
no choice: a point of the twist, which half of all strings are, would betray it, since an own key never is one. The
receiver lacks the other key by the Diffie-Hellman assumption on Curve25519 (RFC 7748: about 126 bits), with SHA-256
as a random oracle; keys are bound to session, role, index and transcript. Not post-quantum. Unaudited, for measurement.

Cost: one message each way, 64 bytes a transfer from the receiver and 32 bytes in all from the sender; two scalar
multiplications a transfer for either, and about two square tests for the receiver.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from pibench.errors import MalformedError

PRIME = 2**255 - 19
POINT_BYTES = 32
KEY_BYTES = 16
_LABEL = b"pibench base OT 1"


def is_on_curve(point: bytes) -> bool:
    """Return whether 32 bytes are the x of a point of Curve25519 itself, not of its twist (RFC 7748, 4.1)."""
    x = int.from_bytes(point, "little") % 2**255
    return pow(x * (x * x + 486662 * x + 1), (PRIME - 1) // 2, PRIME) == 1


def key_without_secret() -> bytes:
    """Return a uniform public key of the prime-order group whose secret nobody knows."""
    while True:
        point = os.urandom(POINT_BYTES)
        if is_on_curve(point):
            return _shared(X25519PrivateKey.generate(), point)


class BaseReceiver:
    """The side that chooses: `offer` goes to the sender, `keys` takes its answer."""

    def __init__(self, choices: Sequence[int], session: bytes, role: bytes) -> None:
        self._choices, self._context = tuple(choices), _context(session, role)
        self._secrets = [X25519PrivateKey.generate() for _ in choices]
        pairs = []
        for choice, secret in zip(self._choices, self._secrets, strict=True):
            both = (secret.public_key().public_bytes_raw(), key_without_secret())
            pairs += [both[choice], both[1 - choice]]  # choice 0 keeps the order, 1 turns it
        self.offer = b"".join(pairs)

    def keys(self, answer: bytes) -> list[bytes]:
        """Return the chosen key of every transfer; raises MalformedError for an answer that is no public key."""
        if len(answer) != POINT_BYTES:
            raise MalformedError(f"the peer's answer has {len(answer)} bytes, not {POINT_BYTES}", where="base OT")
        bound = _transcript(self._context, self.offer, answer)
        made = []
        for index, (choice, secret) in enumerate(zip(self._choices, self._secrets, strict=True)):
            made.append(_key(bound, index, choice, _shared(secret, answer)))
        return made


def answer_base(offer: bytes, count: int, session: bytes, role: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Sender: return the answer to an offer of `count` transfers, and both keys of each.

    Raises MalformedError for an offer of another length, or with a point of low order.
    """
    if len(offer) != 2 * POINT_BYTES * count:
        raise MalformedError(f"the peer's offer has {len(offer)} bytes, not {2 * POINT_BYTES * count}", where="base OT")
    secret = X25519PrivateKey.generate()
    answer = secret.public_key().public_bytes_raw()
    bound = _transcript(_context(session, role), offer, answer)
    points = [offer[at : at + POINT_BYTES] for at in range(0, len(offer), POINT_BYTES)]
    made = [_key(bound, at // 2, at % 2, _shared(secret, point)) for at, point in enumerate(points)]
    return answer, list(zip(made[0::2], made[1::2], strict=True))


def _shared(secret: X25519PrivateKey, point: bytes) -> bytes:
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(point))
    except ValueError as error:  # RFC 7748, 6.1: all zeros, whatever the secret
        raise MalformedError("the peer sent a point of low order", where="base OT") from error


def _context(session: bytes, role: bytes) -> bytes:
    return hashlib.sha256(_LABEL + bytes([len(session), len(role)]) + session + role).digest()


def _transcript(context: bytes, offer: bytes, answer: bytes) -> bytes:
    return hashlib.sha256(context + hashlib.sha256(offer).digest() + answer).digest()


def _key(bound: bytes, index: int, place: int, shared: bytes) -> bytes:
    return hashlib.sha256(bound + index.to_bytes(4, "little") + bytes([place]) + shared).digest()[:KEY_BYTES]
