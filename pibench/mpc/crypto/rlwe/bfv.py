"""The encryption of Brakerski, Fan and Vercauteren with plaintexts modulo 2^bits, cut to what one linear layer needs.

The client has the secret key s, encrypts under it with masks a from a fresh seed (c0 = -a s + e + round(q m / 2^bits)),
and decrypts. The server multiplies by small integers in the clear, and answers with

    c1 = sum(W a) + u a* + e1,    c0 = sum(W c0) + u b* - round(q s / 2^bits) + flood  (of wanted coefficients alone),

(b*, a*) the client's public key, u ternary, e1 an error, s its share. Sources: Brakerski, CRYPTO 2012; Fan and
Vercauteren, 2012; the answer's re-randomisation and flooding as circuit privacy by Gentry, 2009.

Security (semi-honest, unaudited, for measurement). *The server's view*: public key and ciphertexts, uniform by ring-LWE
with a ternary secret (`params.py` for its size); a* from a seed that the server chose, masks from the client's fresh
seeds by SHAKE128. *The client's view with its output* W k - s: c1 is uniform by ring-LWE with secret u, whose errors e1
and flood nobody else learns; given c1, the wanted c0 are fixed by the output and the decryption's noise, which is a
uniform flood moved by W's share of it, within the distance that `Parameters.hiding_bits` counts. A simulator draws c1
uniformly, and c0 from the output and a flood. Without u the client would solve for W, since it chose a; without the
flood it would take W from the noise, since it knows e. What happens after the flood (fractions of q, fewer
coefficients) is a function of what the simulator makes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pibench.mpc.crypto.rlwe import ntt
from pibench.mpc.crypto.rlwe.arithmetic import Words, add, fixed_factor, lift, multiply_add, scaled
from pibench.mpc.crypto.rlwe.axis import Index
from pibench.mpc.crypto.rlwe.params import Parameters
from pibench.mpc.crypto.rlwe.primes import LANES, Lanes, Ring, ring
from pibench.mpc.crypto.rlwe.residues import add_flood, from_words, to_fraction, to_words
from pibench.mpc.crypto.rlwe.sampling import error, expand, public_seed, ternary
from pibench.mpc.ring.randomness import Stream, fresh_seed


@dataclass(frozen=True)
class PublicKey:
    """b = e - a s and a, in the transformed domain, as factors (primes, 2, n) of the largest ring in use."""

    b: Lanes
    a: Lanes

    @classmethod
    def of(cls, b: Lanes, seed: bytes, full: Ring) -> PublicKey:
        """Make a public key of its residues b (primes, n) and the seed of a."""
        return cls(fixed_factor(b, full), fixed_factor(expand(seed, 1, full)[0, :, :, 0], full))


@dataclass(frozen=True)
class Answer:
    """One layer's answer for one image: c1 whole, c0 in the wanted places; low and high words of fractions of q."""

    masks: Words  # (2, outputs n): eight polynomials side by side, then the next eight
    bodies: Words  # (2, wanted)


class SecretKey:
    """The client's key, in the largest ring in use; the smaller rings' are the first of its primes."""

    def __init__(self, primes: int, degree: int) -> None:
        self.ring, self.stream = ring(primes, degree), Stream(fresh_seed())
        s = self._transformed(ternary(self.stream, 1, degree))
        self._minus = fixed_factor(np.where(s, self.ring.moduli[:, None] - s, 0), self.ring)
        self._plus = fixed_factor(s, self.ring)

    def _transformed(self, small: np.ndarray) -> Lanes:
        x = lift(small, self.ring)
        ntt.forward(x, self.ring)
        return np.ascontiguousarray(x[0, :, :, 0])  # one of the eight

    def public(self, seed: bytes) -> Lanes:
        """Return the public key's b (primes, n) for a seed of a."""
        b = np.zeros((1, self.ring.count, self.ring.n, LANES), np.uint32)
        b[0, :, :, 0] = self._transformed(error(self.stream, 1, self.ring.n))
        multiply_add(b, expand(seed, 1, self.ring), self._minus, self.ring.moduli)
        return np.ascontiguousarray(b[0, :, :, 0])

    def encrypt(self, m: Words, count: int, parameters: Parameters) -> tuple[bytes, Lanes]:
        """Encrypt the first `count` polynomials of m (groups, n, LANES), words below 2^bits.

        Returns the seed of the masks and c0 (groups, primes, n, LANES), transformed. Lanes beyond `count` are no
        ciphertexts and must not be sent.
        """
        small, seed = parameters.ring, public_seed()
        c0 = lift(error(self.stream, len(m), small.n), small)
        for g in range(len(m)):
            body = scaled(m[g].reshape(-1), parameters.bits, small).reshape(1, *c0.shape[1:])
            add(c0[g : g + 1], body, small.moduli)
        ntt.forward(c0, small)
        multiply_add(c0, expand(seed, count, small), self._minus, small.moduli)
        return seed, c0

    def decrypt(self, answer: Answer, wanted: Index, parameters: Parameters) -> Words:
        """Return the words below 2^bits in the wanted places of an answer: flat, groups of LANES polynomials."""
        width = 8 * parameters.mask_bytes
        x, small = _answer_lanes(answer.masks, parameters)
        ntt.forward(x, small)
        y = np.zeros_like(x)
        multiply_add(y, x, self._plus, small.moduli)
        ntt.backward(y, small)
        phase = to_words(gather(y, wanted), small)
        made = np.empty(wanted.size, np.uint64)
        _rounded(phase, answer.bodies, width, width - 8 * parameters.body_bytes, parameters.bits, made)
        return made


def _answer_lanes(masks: Words, parameters: Parameters) -> tuple[Lanes, Ring]:
    """Return c1 as residues of a ring that holds its product with a ternary secret as an integer."""
    n = parameters.degree
    small = ring(3 if parameters.mask_bytes <= 8 else 4, n)
    count = masks.shape[1] // n
    x = np.zeros((-(-count // LANES), small.count, n, LANES), np.uint32)
    for g in range(len(x)):
        real = min(LANES, count - g * LANES)
        part = np.ascontiguousarray(masks[:, g * LANES * n : (g * LANES + real) * n])
        x[g, :, :, :real] = from_words(part, small).reshape(small.count, n, real)
    return x, small


class Answering:
    """The server's half: what it does to sums of products before they leave."""

    def __init__(self, key: PublicKey) -> None:
        self._key, self._stream = key, Stream(fresh_seed())

    def answer(self, c0: Lanes, c1: Lanes, count: int, share: Words, wanted: Index, parameters: Parameters) -> Answer:
        """Hide sums of products (groups, primes, n, LANES), transformed, used up, and give up most of q.

        The first `count` of them are answers; `share` is flat, of wanted places, below 2^bits.
        """
        body = self.hide(c0, c1, share, wanted, parameters)
        return Answer(_masks(c1, count, parameters), to_fraction(body, 8 * parameters.body_bytes, parameters.ring))

    def hide(self, c0: Lanes, c1: Lanes, share: Words, wanted: Index, parameters: Parameters) -> Lanes:
        """Re-randomise, subtract the share and flood, modulo q: returns c0 (primes, wanted), leaves c1 in place."""
        small, bits = parameters.ring, parameters.bits
        u = lift(ternary(self._stream, len(c0), small.n), small)
        ntt.forward(u, small)
        multiply_add(c0, u, self._key.b, small.moduli)
        multiply_add(c1, u, self._key.a, small.moduli)
        ntt.backward(c0, small)
        ntt.backward(c1, small)
        add(c1, lift(error(self._stream, len(c1), small.n), small), small.moduli)
        body = gather(c0, wanted)
        minus = (np.uint64(0) - share) & np.uint64((1 << bits) - 1)
        add(body[None, :, :], scaled(minus, bits, small)[None, :, :], small.moduli)
        coins = self._stream.words(2 * wanted.size).view(np.uint64).reshape(2, -1)
        add_flood(body, coins, parameters.flood, small)
        return body


def _masks(c1: Lanes, count: int, parameters: Parameters) -> Words:
    out, n = np.empty((2, count * parameters.degree), np.uint64), parameters.degree
    for g, group in enumerate(c1):
        real = min(LANES, count - g * LANES)
        made = to_fraction(group.reshape(len(group), -1), 8 * parameters.mask_bytes, parameters.ring)
        out[:, g * LANES * n : (g * LANES + real) * n] = made.reshape(2, n, LANES)[:, :, :real].reshape(2, -1)
    return out


def gather(x: Lanes, places: Index) -> Lanes:
    """Return (primes, places): coefficients of x (groups, primes, n, LANES) by position in (groups, n, LANES)."""
    out = np.empty((x.shape[1], places.size), np.uint32)
    _gather(x.reshape(-1), places, x.shape[1], x.shape[2] * x.shape[3], out)
    return out


@njit(cache=True, nogil=True)
def _gather(x: Lanes, places: Index, primes: int, size: int, out: Lanes) -> None:
    for j in range(places.size):
        group, rest = places[j] // size, places[j] % size
        for i in range(primes):
            out[i, j] = x[(group * primes + i) * size + rest]


@njit(cache=True, nogil=True)
def _rounded(phase: Words, body: Words, width: int, up: int, bits: int, out: Words) -> None:
    """round((phase + body 2^up) 2^bits / 2^width) modulo 2^bits."""
    drop, left = np.uint64(width - bits), np.uint64(64 - width + bits)
    half, mask = np.uint64(1) << np.uint64(width - bits - 1), ~np.uint64(0) >> np.uint64(64 - bits)
    for j in range(out.size):
        b0, b1 = body[0, j], body[1, j]
        if up:  # public
            b1 = (b1 << np.uint64(up)) | (b0 >> np.uint64(64 - up))
            b0 = b0 << np.uint64(up)
        low = phase[0, j] + b0
        high = phase[1, j] + b1 + np.uint64(low < b0)
        low += half
        high += np.uint64(low < half)
        out[j] = ((low >> drop) | (high << left)) & mask
