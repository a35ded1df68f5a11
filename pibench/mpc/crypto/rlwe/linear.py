"""Two parties' shares of W k for all linear layers of a network, by homomorphic encryption: no third party.

The client knows k, words of a layer's ring, the server integers W; afterwards they hold K1 and K0 with
K0 + K1 = W k modulo 2^bits, and K0 is uniform. Both are semi-honest; what each sees, and why it says nothing more, is
argued in `bfv.py`. The client's k and the answer's masks serve once. Unaudited, for measurement.

Setup, once a connection, 2 messages: the server's seed of a* and its class of weights (which of LIMITS the largest sum
of absolute weights of any output is below: all that it says of them), then the client's public key.
An inference, 2 messages: the client sends every layer's ciphertexts, then the server every layer's answer. It works
while they arrive, and keeps answers until it has heard all, since neither reads while it sends: so layers go in
portions of PORTION_BYTES at most, each with its 2 messages, whatever the network.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pibench.errors import MalformedError, PartyError, UsageError
from pibench.links.transport import Channel
from pibench.mpc.crypto.rlwe.arithmetic import Words
from pibench.mpc.crypto.rlwe.bfv import Answer, Answering, PublicKey, SecretKey
from pibench.mpc.crypto.rlwe.layer import Layer
from pibench.mpc.crypto.rlwe.packing import choose_packing
from pibench.mpc.crypto.rlwe.params import LIMITS, Parameters, choose
from pibench.mpc.crypto.rlwe.primes import DEGREE, PRIME_BITS
from pibench.mpc.crypto.rlwe.product import Weights
from pibench.mpc.crypto.rlwe.sampling import SEED_BYTES, expand, public_seed
from pibench.mpc.crypto.rlwe.wire import (
    CHECK_BYTES,
    Bytes,
    check_of,
    pack_residues,
    pack_words,
    residue_bytes,
    unpack_residues,
    unpack_words,
)
from pibench.mpc.ring.randomness import Stream, fresh_seed

Ints = NDArray[np.int64]
VERSION = 1
PORTION_BYTES = 256 << 20
KEPT_BYTES = 2 << 30  # of transformed weights


class Exchange:
    """What both parties derive from the public layers: packings, parameters, sizes of messages."""

    def __init__(self, layers: list[Layer], images: int, degree: int = DEGREE) -> None:
        self.layers, self.images, self.degree = {layer.name: layer for layer in layers}, images, degree
        self.packings = {layer.name: choose_packing(layer, degree) for layer in layers}
        self.parameters: dict[str, Parameters] = {}
        self.limit = LIMITS[-1]  # log2 of what an output's absolute weights sum to at most, settled with the parameters
        described = f"{VERSION} {degree} {images} {layers}"
        self.digest = np.frombuffer(hashlib.sha256(described.encode()).digest(), np.uint8)

    def settle(self, limit: int, coefficients: int = 0) -> int:
        """Choose every layer's parameters for the class of weights; returns the primes of the largest.

        `coefficients` is what one inference answers, where that is more than these layers.
        """
        self.limit = limit
        coefficients = coefficients or sum(layer.outputs for layer in self.layers.values()) * self.images
        for name, layer in self.layers.items():
            made = choose(layer.bits, 1 << limit, coefficients)
            self.parameters[name] = Parameters(made.bits, made.primes, made.flood, self.degree)
        return max(p.primes for p in self.parameters.values())

    def hiding_bits(self) -> float:
        """Return -log2 of the distance between an inference's floods and as many moved by noise, by public limits."""
        moved = sum(
            self.images * layer.outputs * 2.0 ** -self.parameters[name].hiding_bits(1 << self.limit, 1)
            for name, layer in self.layers.items()
        )
        return -math.log2(moved) if moved else math.inf

    def ciphertexts(self, name: str) -> int:
        """Ciphertexts that the client sends for a layer."""
        packing = self.packings[name]
        return self.images * len(packing.tiles) * packing.inputs

    def request_bytes(self, name: str) -> int:
        """Bytes that the client sends for a layer."""
        return SEED_BYTES + residue_bytes(self.ciphertexts(name), self.parameters[name].ring) + CHECK_BYTES

    def answer_bytes(self, name: str) -> int:
        """Bytes that the server answers for a layer."""
        return self.images * sum(sum(sizes) for sizes in self.answer_sizes(name)) + CHECK_BYTES

    def answer_sizes(self, name: str) -> list[tuple[int, int]]:
        """Bytes of c1 and of c0 of one image, by tile."""
        packing, p = self.packings[name], self.parameters[name]
        masks = packing.outputs * self.degree * p.mask_bytes
        return [(masks, places.size * p.body_bytes) for places in packing.places]

    @property
    def setup_server_bytes(self) -> int:
        """Bytes that the server sends once a connection."""
        return SEED_BYTES + 1 + self.digest.size

    @property
    def setup_client_bytes(self) -> int:
        """Bytes that the client sends once a connection: its public key."""
        largest = max(p.primes for p in self.parameters.values())
        return self.digest.size + largest * self.degree * PRIME_BITS // 8 + CHECK_BYTES

    def portions(self) -> list[list[str]]:
        """Layers in their order, in portions that the server can hold."""
        made: list[list[str]] = [[]]
        held = 0
        for name in self.layers:
            size = self.answer_bytes(name)
            if made[-1] and held + size > PORTION_BYTES:
                made.append([])
                held = 0
            made[-1].append(name)
            held += size
        return made


class LinearClient:
    """The client: knows k, holds the secret key."""

    def __init__(self, layers: list[Layer], images: int, degree: int = DEGREE) -> None:
        self.exchange = Exchange(layers, images, degree)

    def setup(self, channel: Channel) -> None:
        """Make a key pair for this connection; raises PartyError where the server runs something else."""
        hello = _heard(channel, self.exchange.setup_server_bytes)
        _agree(hello[SEED_BYTES + 1 :], self.exchange.digest)
        limit = int(hello[SEED_BYTES])
        if limit not in LIMITS:
            raise MalformedError(f"the server names a class of weights, 2^{limit}, that there is not")
        primes = self.exchange.settle(limit)
        self._key = SecretKey(primes, self.exchange.degree)
        b = np.zeros((1, primes, self.exchange.degree, 8), np.uint32)
        b[0, :, :, 0] = self._key.public(hello[:SEED_BYTES].tobytes())
        channel.send(_checked([self.exchange.digest, pack_residues(b, 1)]))

    def correlate(self, channel: Channel, parts: Mapping[str, Ints]) -> dict[str, Ints]:
        """Return K1 (images, *output) of every layer for the client's parts k (images, *input), by the layer's name."""
        made: dict[str, Ints] = {}
        for portion in self.exchange.portions():
            for name in portion:
                channel.send(self.request(name, parts[name]))
            for name in portion:
                made[name] = self.take(name, _heard(channel, self.exchange.answer_bytes(name)))
        return made

    def request(self, name: str, part: Ints) -> Bytes:
        """Encrypt one layer's part: a message."""
        layer, packing = self.exchange.layers[name], self.exchange.packings[name]
        words = _cut(part, layer.bits).reshape(self.exchange.images, layer.channels, *layer.size)
        count = self.exchange.ciphertexts(name)
        seed, c0 = self._key.encrypt(packing.pack(words), count, self.exchange.parameters[name])
        return _checked([np.frombuffer(seed, np.uint8), pack_residues(c0, count)])

    def take(self, name: str, message: Bytes) -> Ints:
        """Decrypt one layer's answer; raises MalformedError where it is damaged."""
        layer, packing = self.exchange.layers[name], self.exchange.packings[name]
        p, data = self.exchange.parameters[name], _verified(message, f"the answer for {name}")
        made, at = np.empty((self.exchange.images, layer.filters, *layer.out_size), np.uint64), 0
        for image in range(self.exchange.images):
            pieces = []
            for places, (masks, bodies) in zip(packing.places, self.exchange.answer_sizes(name), strict=True):
                answer = Answer(
                    unpack_words(data[at : at + masks], masks // p.mask_bytes, p.mask_bytes),
                    unpack_words(data[at + masks : at + masks + bodies], places.size, p.body_bytes),
                )
                pieces.append(self._key.decrypt(answer, places, p))
                at += masks + bodies
            made[image] = packing.join(pieces)
        return made.view(np.int64)


class LinearServer:
    """The server: knows W, learns nothing but its own uniform shares."""

    def __init__(
        self, layers: list[Layer], weights: Mapping[str, Ints], images: int, degree: int = DEGREE,
        kept_bytes: int = KEPT_BYTES, limit: int = 0,
    ) -> None:  # fmt: skip
        """`limit` is one of LIMITS, to be named whatever the weights; 0: the smallest that they fit."""
        self._limit = limit
        self.exchange, self._stream = Exchange(layers, images, degree), Stream(fresh_seed())
        self._integers = {layer.name: weights[layer.name].reshape(layer.weight_shape) for layer in layers}
        self._weights: dict[str, Weights] = {}
        self._used: set[str] = set()
        self._room_bytes = kept_bytes

    def setup(self, channel: Channel) -> None:
        """Choose a*'s seed and parameters, and take the client's key.

        Raises UsageError where weights are too large, PartyError where the client runs something else.
        """
        exchange, seed = self.exchange, public_seed()
        limit = weight_class(self._integers, self._limit)
        head = np.frombuffer(seed + bytes([limit]), np.uint8)
        channel.send(np.concatenate([head, exchange.digest]))
        exchange.settle(limit)
        message = _heard(channel, exchange.setup_client_bytes)
        data = _verified(message, "the client's public key")
        _agree(data[: exchange.digest.size], exchange.digest)
        largest = max(exchange.parameters.values(), key=lambda p: p.primes).ring
        b = unpack_residues(data[exchange.digest.size :], 1, largest, "the public key")
        self._answering = Answering(PublicKey.of(b[0, :, :, 0], seed, largest))
        self._prepare()

    def _prepare(self) -> None:
        for name, integers in self._integers.items():
            packing, ring = self.exchange.packings[name], self.exchange.parameters[name].ring
            self._weights[name] = Weights(packing, ring, integers)

    def correlate(self, channel: Channel) -> dict[str, Ints]:
        """Return K0 (images, *output) of every layer, by its name."""
        made: dict[str, Ints] = {}
        for portion in self.exchange.portions():
            answers = []
            for name in portion:
                answer, made[name] = self.answer(name, _heard(channel, self.exchange.request_bytes(name)))
                answers.append(answer)
            for answer in answers:
                channel.send(answer)
        return made

    def answer(self, name: str, message: Bytes) -> tuple[Bytes, Ints]:
        """Return the answer to a layer's ciphertexts, and K0; raises MalformedError where they are none."""
        layer, packing, p = self.exchange.layers[name], self.exchange.packings[name], self.exchange.parameters[name]
        data, count = _verified(message, f"the request for {name}"), self.exchange.ciphertexts(name)
        c1 = expand(data[:SEED_BYTES].tobytes(), count, p.ring)
        c0 = unpack_residues(data[SEED_BYTES:], count, p.ring, f"the request for {name}")
        share = _cut(self._stream.words(self.exchange.images * layer.outputs), layer.bits)
        share = share.reshape(self.exchange.images, layer.filters, *layer.out_size)
        pieces = [piece for image in share for piece in packing.cut(image)]
        tiles, said = len(packing.tiles), []
        sums = self._ready(name).products(c0, c1, self.exchange.images * tiles)
        for k, ((s0, s1), piece) in enumerate(zip(sums, pieces, strict=True)):
            made = self._answering.answer(s0, s1, packing.outputs, piece, packing.places[k % tiles], p)
            said += pack_words(made.masks, p.mask_bytes) + pack_words(made.bodies, p.body_bytes)
        return _checked(said), share.view(np.int64)

    def _ready(self, name: str) -> Weights:
        """Return a layer's weights; from its second use on they are kept transformed, while there is room."""
        weights = self._weights[name]
        if name not in self._used:
            self._used.add(name)
        elif weights.kept is None and weights.kept_bytes <= self._room_bytes:
            self._room_bytes -= weights.kept_bytes
            weights.keep()
        return weights


def weight_class(weights: Mapping[str, Ints], limit: int = 0) -> int:
    """Return log2 of the smallest of LIMITS that no output's sum of absolute weights exceeds, or `limit` if given.

    Raises UsageError where weights exceed it.
    """
    largest = 0
    for integers in weights.values():
        most = int(np.abs(integers).reshape(len(integers), -1).sum(1).max(initial=0))
        if most > 1 << (limit or LIMITS[-1]):
            remedy = "raise weight_bits" if limit and limit < LIMITS[-1] else "use provider: dealer"
            raise UsageError(  # the client hears of it: no layer and no figure but the public limit
                f"an output reads weights of more in sum than the 2^{limit or LIMITS[-1]} that the encryption hides",
                remedy=f"lower fraction_bits or {remedy}",
            )
        largest = max(largest, most)
    return limit or next(one for one in LIMITS if largest <= 1 << one)


def _cut(words: Ints, bits: int) -> Words:
    cut: Words = np.ascontiguousarray(words).view(np.uint64) & np.uint64((1 << bits) - 1)
    return cut


def _heard(channel: Channel, size: int) -> Bytes:
    into = np.empty(size, np.uint8)
    channel.recv_into(into)
    return into


def _checked(parts: list[Bytes]) -> Bytes:
    data = np.concatenate(parts)
    return np.concatenate([data, check_of(data)])


def _verified(message: Bytes, what: str) -> Bytes:
    data = message[:-CHECK_BYTES]
    if (check_of(data) != message[-CHECK_BYTES:]).any():
        raise MalformedError(f"{what} arrived damaged")
    return data


def _agree(theirs: Bytes, mine: Bytes) -> None:
    if (theirs != mine).any():
        raise PartyError(
            "the peer encrypts other layers, or by another version",
            remedy="run the same pibench with the same program on both sides",
        )
