"""Rings, kernels and the encryption, beside big integers; sizes, and what is claimed of them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import rlwe_reference as big
from hypothesis import given, settings
from hypothesis import strategies as st

from pibench.errors import UsageError
from pibench.mpc.crypto.rlwe import arithmetic, bfv, ntt, params, residues, sampling
from pibench.mpc.crypto.rlwe.primes import DEGREE, LANES, is_prime, primes, ring
from pibench.mpc.ring.randomness import Stream

KEY = bytes(range(16))


def random_lanes(r, groups=1, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, p, (groups, r.n, LANES), np.uint32) for p in r.primes], 1)


def test_primes_are_the_largest_of_their_kind() -> None:
    assert primes(7)[:2] == (134176769, 133955585) or primes(7)[0] % (2 * DEGREE) == 1
    for p in primes(7):
        assert p < 1 << 27
        assert p % (2 * DEGREE) == 1
        assert all(p % d for d in range(3, math.isqrt(p) + 1, 2))
    between = range(primes(7)[-1], 1 << 27, 2 * DEGREE)
    assert sum(is_prime(candidate) for candidate in between) == 7


@pytest.mark.parametrize("n", [64, 128, 256, 2048, 8192])
def test_products_are_those_of_big_integers(n: int) -> None:
    r = ring(2, n)
    x = random_lanes(r, 2)
    x[0, :, :3] = np.array(r.primes, np.uint32)[:, None, None] - 1  # the largest there are
    f = x.copy()
    ntt.forward(f, r)
    assert (f < r.moduli[:, None, None]).all()
    product = np.zeros_like(f[:1])
    for lane in (0, LANES - 1):
        factor = arithmetic.fixed_factor(np.ascontiguousarray(f[1, :, :, lane]), r)
        product[:] = 0
        arithmetic.multiply_add(product, f[:1], factor, r.moduli)
        want = big.multiply(big.join(x[0, :, :, lane], r.primes), big.join(x[1, :, :, lane], r.primes), r.q)
        assert big.coefficients(product, r, lane) == want
    ntt.backward(f, r)
    assert (f == x).all()


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(1, 64), count=st.integers(5, 7), words=st.lists(st.integers(0, (1 << 64) - 1), min_size=1))
def test_scaling_is_exact(bits: int, count: int, words: list[int]) -> None:
    r, m = ring(count, 32), [w % (1 << bits) for w in words]
    got = big.join(arithmetic.scaled(np.array(m, np.uint64), bits, r), r.primes)
    # rounded half down: (q m + t/2 - r) / t, r in [0, t)
    assert got == [((r.q * x + (1 << (bits - 1))) >> bits) % r.q for x in m]


@settings(max_examples=60, deadline=None)
@given(width=st.integers(33, 96), count=st.integers(5, 7), data=st.data())
def test_fractions_are_the_nearest(width: int, count: int, data: st.DataObject) -> None:
    r = ring(count, 32)
    numbers = data.draw(st.lists(st.one_of(st.integers(0, r.q - 1), st.integers(0, 99), st.just(r.q - 1)), min_size=1))
    x = np.array([[c % p for c in numbers] for p in r.primes], np.uint32)
    low, high = residues.to_fraction(x, width, r)
    for c, a, b in zip(numbers, low.tolist(), high.tolist(), strict=True):
        got, exact = (b << 64) + a, c << width
        assert 0 <= got < 1 << width
        off = abs(big.signed((got * r.q - exact) % (r.q << width), r.q << width))
        assert 2 * off <= r.q + (r.q >> 1)  # half a unit and a little


@settings(max_examples=40, deadline=None)
@given(numbers=st.lists(st.integers(0, (1 << 96) - 1), min_size=1), small=st.integers(-(1 << 93), 1 << 93))
def test_words_and_residues(numbers: list[int], small: int) -> None:
    r = ring(4, 32)
    words = np.array([[x & ((1 << 64) - 1) for x in numbers], [x >> 64 for x in numbers]], np.uint64)
    assert residues.from_words(words, r).T.tolist() == [[x % p for p in r.primes] for x in numbers]
    x = np.array([[small % p] for p in r.primes], np.uint32)
    low, high = residues.to_words(x, r)
    assert int(low[0]) + (int(high[0]) << 64) == small % (1 << 96)


@pytest.mark.parametrize("flood", [87, 98, 62, 126])
def test_floods_are_uniform_between_their_bounds(flood: int) -> None:
    r, size = ring(6, 32), 4000
    coins = Stream(KEY).words(2 * size).view(np.uint64).reshape(2, -1)
    coins[:, 0], coins[:, 1] = 0, ~np.uint64(0)
    x = np.zeros((6, size), np.uint32)
    residues.add_flood(x, coins, flood, r)
    got = [big.signed(v, r.q) for v in big.join(x, r.primes)]
    assert got[0] == -(1 << flood)
    assert got[1] == (1 << flood) - 1
    assert max(map(abs, got)) <= 1 << flood
    unit = np.array([v / 2**flood for v in got[2:]])
    assert abs(unit.mean()) < 5 / math.sqrt(3 * size)
    assert abs(unit.var() - 1 / 3) < 0.03
    assert (np.histogram(unit, 16, (-1, 1))[0] > size / 16 * 0.75).all()


def test_public_polynomials_are_shake() -> None:
    r, seed = ring(2, 64), bytes(32)
    got = sampling.expand(seed, 9, r)
    head = seed + (8).to_bytes(4, "little") + (1).to_bytes(4, "little")
    words = np.frombuffer(hashlib.shake_128(head).digest(4 * 400), np.uint32) & ((1 << 27) - 1)
    assert got[1, 1, :, 0].tolist() == words[words < r.primes[1]][:64].tolist()
    assert not got[1, :, :, 1:].any()  # no ciphertext, no mask


def test_secrets_and_errors_have_their_distributions() -> None:
    stream = Stream(KEY)
    s, e = sampling.ternary(stream, 4, DEGREE), sampling.error(stream, 4, DEGREE)
    assert [round((s == v).mean(), 2) for v in (-1, 0, 1)] == [0.33, 0.33, 0.33]
    assert abs(e.mean()) < 0.03
    assert abs(e.var() - sampling.ERROR_VARIANCE) < 0.1
    assert np.abs(e).max() <= sampling.ERROR_BOUND
    two = sampling.error(stream, 1, DEGREE)
    assert (two != sampling.error(stream, 1, DEGREE)).any()  # a stream never repeats


def key_pair(p: params.Parameters) -> tuple[bfv.SecretKey, bfv.PublicKey]:
    secret, seed = bfv.SecretKey(p.primes, p.degree), sampling.public_seed()
    return secret, bfv.PublicKey.of(secret.public(seed), seed, secret.ring)


@pytest.mark.parametrize("bits", [1, 41, 46, 62, 64])
def test_a_ciphertext_opens_with_big_integers(bits: int) -> None:
    p = replace(params.choose(bits, 1 << 22, 1 << 20), degree=64)
    secret, _ = key_pair(p)
    r = p.ring
    m = Stream(KEY).words(64 * LANES).view(np.uint64).reshape(1, 64, LANES) & np.uint64((1 << bits) - 1)
    seed, c0 = secret.encrypt(m, LANES, p)
    other, _ = secret.encrypt(m, LANES, p)
    assert seed != other
    s = [big.signed(v, r.q) for v in big.coefficients(_lanes(secret._plus[:, 0]), r)]
    assert set(s) <= {-1, 0, 1}
    a = big.coefficients(sampling.expand(seed, LANES, r), r, 3)
    phase = [(x + y) % r.q for x, y in zip(big.coefficients(c0, r, 3), big.multiply(a, s, r.q), strict=True)]
    for x, want in zip(phase, m[0, :, 3].tolist(), strict=True):
        assert abs(big.signed((x - r.q * want // (1 << bits)) % r.q, r.q)) <= sampling.ERROR_BOUND + 1


def _lanes(x: np.ndarray) -> np.ndarray:
    return np.repeat(x[None, :, :, None], LANES, 3)


def test_a_public_key_is_an_encryption_of_zero() -> None:
    p = replace(params.choose(46, 1 << 22, 1 << 20), degree=64)
    secret, public = key_pair(p)
    r = p.ring
    a, b, s = (big.coefficients(_lanes(f[:, 0]), r) for f in (public.a, public.b, secret._plus))
    noise = [big.signed((x + y) % r.q, r.q) for x, y in zip(b, big.multiply(a, s, r.q), strict=True)]
    assert 0 < max(map(abs, noise)) <= sampling.ERROR_BOUND


# what the zoo's networks and other people's ask for: rings of 32 to 64 bits, all classes of weights
@pytest.mark.parametrize("limit", params.LIMITS)
@pytest.mark.parametrize("bits", [32, 37, 41, 45, 46, 47, 54, 62, 63, 64])
def test_parameters_in_use_are_safe(bits: int, limit: int) -> None:
    coefficients = 1 << 20
    p = params.choose(bits, 1 << limit, coefficients)
    q = math.prod(primes(p.primes))
    # Homomorphic Encryption Standard, table 1: 218 at n = 8192 (ternary, 128 bits classical); Bossuat et al.: 214
    assert p.degree == 8192
    assert math.log2(q) <= 214
    # the noise that moves a flood, by public limits alone: weights times (error + rounding), u e + e0 + e1 s
    moved = (1 << limit) * (21 + 0.5) + 8192 * 21 + 21 + 8192 * 21
    assert coefficients * moved / 2 ** (p.flood + 1) <= 2**-40
    assert p.hiding_bits(1 << limit, coefficients) >= 40
    # decryption: half a step against flood, noise, and the answer's roundings; c1's meets a ternary secret
    step = q / 2**bits
    tail = math.sqrt(8192 / 2 * (40 + 20 + 1) * math.log(2))  # 2 exp(-2 x^2 / n) = 2^-60 a coefficient
    worst = (2**p.flood + moved) / step + tail * 2.0 ** (bits - 8 * p.mask_bytes) + 2.0 ** (bits - 8 * p.body_bytes)
    assert worst < 0.5
    assert p.margin(1 << limit, 60) > 0


def test_what_is_not_safe_is_refused() -> None:
    with pytest.raises(UsageError, match="no parameters hide 40 bits"):
        params.choose(64, 1 << 60, 1 << 20)
    with pytest.raises(UsageError, match="no parameters hide 40 bits"):
        params.choose(64, 1 << 26, 1 << 60)
    with pytest.raises(UsageError, match="a ring of 65 bits"):
        params.choose(65, 1 << 22, 1 << 20)
    assert params.choose(46, 1 << 22, 600_000).primes == 5
    assert params.choose(62, 1 << 22, 600_000).primes == 6
