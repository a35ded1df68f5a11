"""Convolutions of every kind as products of polynomials, two parties' shares of them, and what each could find out."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import rlwe_reference as big
from hypothesis import given, settings
from hypothesis import strategies as st
from two_threads import channel_pair

from pibench.errors import PartyError, PibenchError, TransportError, UsageError
from pibench.links.meter import Meter
from pibench.lowering import program as ir
from pibench.mpc.crypto.rlwe import bfv, params, sampling
from pibench.mpc.crypto.rlwe.layer import Layer
from pibench.mpc.crypto.rlwe.linear import LinearClient, LinearServer, weight_class
from pibench.mpc.crypto.rlwe.packing import choose_packing
from pibench.mpc.crypto.rlwe.primes import LANES, ring
from pibench.mpc.crypto.rlwe.product import Weights

rng = np.random.default_rng(7)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, dilation = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(pair)
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(draw(st.integers(low, low + 9)) for low in least)
    channels, filters = groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 5))
    return Layer("x", 64, channels, size, filters, kernel, draw(pair), padding, dilation, groups)


@settings(max_examples=150, deadline=None)
@given(layer=layers(), n=st.sampled_from([128, 256, 512]), images=st.integers(1, 2))
def test_every_convolution_is_a_product_of_polynomials(layer: Layer, n: int, images: int) -> None:
    packing = choose_packing(layer, n)
    w = rng.integers(-9, 10, layer.weight_shape)
    part = rng.integers(0, 1 << 20, (images, layer.channels, *layer.size)).astype(np.uint64)
    polynomials = packing.pack(part)
    tiles = images * len(packing.tiles)
    assert polynomials.shape == (-(-tiles * packing.inputs // LANES), n, LANES)
    got = np.stack([_plain(packing, w, polynomials, image) for image in range(images)])
    assert (got == big.convolve(layer, w, part)).all()


def _plain(packing, w: np.ndarray, polynomials: np.ndarray, image: int) -> np.ndarray:
    """The packed layer on one image without encryption: integers modulo one prime are wide enough for these."""
    r = ring(2, packing.n)
    x = np.stack([(polynomials % p).astype(np.uint32) for p in r.primes], 1)
    from pibench.mpc.crypto.rlwe import ntt

    ntt.forward(x, r)
    tiles = len(packing.tiles)
    sums = list(Weights(packing, r, w).products(x, x, (image + 1) * tiles))[image * tiles :]
    pieces = []
    for (s, _), places in zip(sums, packing.places, strict=True):
        y = np.ascontiguousarray(s)
        ntt.backward(y, r)
        values = [big.signed(v, r.q) for v in big.join(bfv.gather(y, places), r.primes)]
        pieces.append(np.array(values, np.int64).view(np.uint64))
    return packing.join(pieces)


def test_a_strided_or_pointwise_layer_sends_only_what_it_reads() -> None:
    base = Layer("x", 46, 16, (16, 16), 16, (1, 1), (2, 2))
    quarter = choose_packing(Layer("x", 46, 16, (8, 8), 16))
    assert choose_packing(base).inputs * choose_packing(base).wide == quarter.inputs * quarter.wide
    dense = choose_packing(Layer("x", 46, 512, (1, 1), 100))
    assert dense.inputs + dense.outputs <= 8
    assert choose_packing(Layer("x", 46, 64, (32, 32), 64, (3, 3), (1, 1), (1, 1))).area == 33 * 33


def test_large_maps_are_cut_and_too_large_kernels_refused() -> None:
    packing = choose_packing(Layer("x", 46, 3, (224, 224), 4, (7, 7), (2, 2), (3, 3)))
    assert len(packing.tiles) > 1
    with pytest.raises(UsageError, match="too large for polynomials"):
        choose_packing(Layer("x", 46, 1, (100, 100), 1, (100, 100)))


def run(layers, weights, parts, images=1, n=512, **options):
    """Both parties in threads; returns their shares and the meters' totals of setup and of one inference."""
    meters = Meter(), Meter()
    left, right = channel_pair(meters, 20)
    server, client = LinearServer(layers, weights, images, n, **options), LinearClient(layers, images, n)
    made, tallies, errors = {}, {}, []

    def serve() -> None:
        try:
            for phase, act in (("setup", lambda: server.setup(left)), ("offline", lambda: server.correlate(left))):
                with meters[0].phase() as tally:
                    made["server", phase] = act()
                tallies["server", phase] = tally.total
        except PibenchError as error:
            errors.append(error)
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for phase, act in (("setup", lambda: client.setup(right)), ("offline", lambda: client.correlate(right, parts))):
            with meters[1].phase() as tally:
                made["client", phase] = act()
            tallies["client", phase] = tally.total
    finally:
        right.close() if errors else None
        thread.join(20)
        left.close()
        right.close()
    if errors:
        raise errors[0]
    return made["server", "offline"], made["client", "offline"], tallies, client


LAYERS = [
    Layer("conv", 46, 3, (9, 8), 5, (3, 3), (1, 1), (1, 1)),
    Layer("deep", 62, 6, (9, 9), 6, (3, 3), (2, 2), (1, 1), (1, 1), 6),
    Layer("dense", 64, 40, (1, 1), 10),
    Layer("tiled", 41, 2, (30, 30), 2, (3, 3), (1, 1), (1, 1)),
]


@pytest.mark.parametrize(("images", "kept"), [(1, 1 << 30), (3, 0)])
def test_shares_add_up_to_the_product(images: int, kept: int, monkeypatch) -> None:
    if images > 1:
        monkeypatch.setattr("pibench.mpc.crypto.rlwe.linear.PORTION_BYTES", 1 << 16)
    weights = {layer.name: rng.integers(-400, 400, layer.weight_shape) for layer in LAYERS}
    parts = {x.name: rng.integers(-(2**63), 2**63 - 1, (images, x.channels, *x.size)) for x in LAYERS}
    k0, k1, tallies, client = run(LAYERS, weights, parts, images, kept_bytes=kept)
    for layer in LAYERS:
        mask = np.uint64((1 << layer.bits) - 1)
        want = big.convolve(layer, weights[layer.name], parts[layer.name].view(np.uint64) & mask)
        assert ((k0[layer.name] + k1[layer.name]).view(np.uint64) & mask == want).all()
    exchange, names = client.exchange, [layer.name for layer in LAYERS]
    sent = {key: tally.sent_bytes for key, tally in tallies.items()}
    assert sent["client", "setup"] == exchange.setup_client_bytes
    assert sent["server", "setup"] == exchange.setup_server_bytes
    assert sent["client", "offline"] == sum(map(exchange.request_bytes, names))
    assert sent["server", "offline"] == sum(map(exchange.answer_bytes, names))
    assert len(exchange.portions()) == (1 if images == 1 else 4)
    # the key goes the same way as the first request, so it is the same link
    assert tallies["server", "setup"].rounds + tallies["server", "offline"].rounds == 1 + 2 * len(exchange.portions())


def test_a_program_s_layers_are_described() -> None:
    conv = ir.Conv(name="c", inputs=("x",), shape=(8, 4, 4), stage="", site="", weight="w", bias=None, kernel=(3, 3),
                   stride=(2, 2), padding=(1, 1))  # fmt: skip
    layer = Layer.of("c", conv, (3, 8, 8), 46)
    assert (layer.out_size, layer.weight_shape, layer.outputs) == ((4, 4), (8, 3, 3, 3), 128)


def test_the_worst_flood_and_the_largest_weights_decrypt(monkeypatch) -> None:
    """Every coin of the flood at either end, weights at their class's limit: still right, at full degree."""
    coins: list[int] = [0]
    plain = bfv.add_flood
    monkeypatch.setattr(bfv, "add_flood", lambda x, c, f, r: plain(x, np.full_like(c, np.uint64(coins[0])), f, r))
    for bits in (41, 46, 62, 64):
        layer = Layer("x", bits, 4, (8, 8), 4, (3, 3), (1, 1), (1, 1))
        w = np.zeros(layer.weight_shape, np.int64)
        w[:, 0, 0, 0], w[:, 1, 1, 1] = (1 << 22) - 3, -3
        part = rng.integers(-(2**63), 2**63 - 1, (1, 4, 8, 8))
        for coins[0] in (0, (1 << 64) - 1):
            k0, k1, _, _ = run([layer], {"x": w}, {"x": part}, n=8192)
            mask = np.uint64((1 << bits) - 1)
            assert (
                (k0["x"] + k1["x"]).view(np.uint64) & mask == big.convolve(layer, w, part.view(np.uint64) & mask)
            ).all()


def hidden(monkeypatch, *, randomise: bool, flood: bool):
    """One layer's answer modulo q, before its bits are cut; what the client knows of it."""
    layer = Layer("x", 46, 1, (12, 12), 1, (3, 3), (1, 1), (1, 1))
    p, packing = replace(params.choose(46, 1 << 22, 1 << 20), degree=256), choose_packing(layer, 256)
    secret, seed = bfv.SecretKey(p.primes, 256), sampling.public_seed()
    key = bfv.PublicKey.of(secret.public(seed), seed, secret.ring)
    w = rng.integers(-4000, 4000, layer.weight_shape)
    errors = []
    plain = sampling.error
    with monkeypatch.context() as patch:
        patch.setattr(bfv, "error", lambda *args: errors.append(plain(*args)) or errors[-1])
        seed, c0 = secret.encrypt(np.zeros((1, 256, LANES), np.uint64), 1, p)  # k = 0: all that comes back is noise
    r = p.ring
    a = sampling.expand(seed, 1, r)
    ((s0, s1),) = Weights(packing, r, w).products(c0, a, 1)
    with monkeypatch.context() as patch:
        if not randomise:
            patch.setattr(bfv, "ternary", lambda s, g, n: np.zeros((g, n, LANES), np.int32))
            patch.setattr(bfv, "error", lambda s, g, n: np.zeros((g, n, LANES), np.int32))
        if not flood:
            patch.setattr(bfv, "add_flood", lambda *args: None)
        c0_, c1_ = np.ascontiguousarray(s0), np.ascontiguousarray(s1)
        body = bfv.Answering(key).hide(c0_, c1_, np.zeros(144, np.uint64), packing.places[0], p)
    s = big.coefficients(np.repeat(secret._plus[None, :, 0, :, None], LANES, 3), r)
    c1 = big.join(c1_[0, :, :, 0], r.primes)
    masks = big.multiply(c1, s, r.q)
    at = packing.places[0] // LANES
    noise = [big.signed((x + masks[i]) % r.q, r.q) for x, i in zip(big.join(body, r.primes), at, strict=True)]
    e = errors[0][0, :, 0].astype(np.int64)
    return w.ravel(), packing, r, big.coefficients(a, r), c1, noise, e


def by_division(r, a: list[int], c1: list[int]) -> np.ndarray:
    """c1 / a in the ring: the polynomial of the weights where nothing was added to their product."""
    from pibench.mpc.crypto.rlwe import ntt

    def lanes(x: list[int]) -> np.ndarray:
        y = np.repeat(np.array([[v % p for v in x] for p in r.primes], np.uint32)[None, :, :, None], LANES, 3)
        ntt.forward(y, r)
        return y

    fa, fc = lanes(a), lanes(c1)
    ratio = np.empty_like(fa)
    for i, p in enumerate(r.primes):
        for j in range(r.n):
            ratio[0, i, j] = int(fc[0, i, j, 0]) * pow(int(fa[0, i, j, 0]), -1, p) % p
    return np.array([float(big.signed(v, r.q)) for v in big.coefficients(ratio, r)])


def by_least_squares(packing, noise: list[int], e: np.ndarray) -> np.ndarray:
    """Weights from the decryption's noise, W * e with e known."""
    x = np.zeros((144, 9))
    for t, (_, _, _, off) in enumerate(packing.taps):
        at = packing.places[0] // LANES + off - (packing.wide - 1) * packing.area
        x[:, t] = np.where(at < 0, -1, 1) * e[at % len(e)]
    return np.linalg.lstsq(x, np.array([float(v) for v in noise]), rcond=None)[0]


def test_without_randomising_the_client_divides(monkeypatch) -> None:
    w, _, r, a, c1, _, _ = hidden(monkeypatch, randomise=False, flood=True)
    found = by_division(r, a, c1)
    assert sorted(np.abs(found[found != 0])) == sorted(np.abs(w[w != 0]))  # a weight may wrap with its sign
    _, _, r, a, c1, _, _ = hidden(monkeypatch, randomise=True, flood=True)
    assert np.abs(by_division(r, a, c1)).min() > 1e6  # nothing small is left


def test_without_a_flood_the_client_solves(monkeypatch) -> None:
    w, packing, _, _, _, noise, e = hidden(monkeypatch, randomise=True, flood=False)
    assert (np.abs(by_least_squares(packing, noise, e) - w) < 40).all()
    w, packing, _, _, _, noise, e = hidden(monkeypatch, randomise=True, flood=True)
    assert (np.abs(by_least_squares(packing, noise, e)) > 1e6).all()


def test_messages_look_alike_whatever_is_inside() -> None:
    """Lengths depend on shapes alone; a constant part and constant weights leave no trace in the bytes."""
    layer = Layer("x", 48, 8, (8, 8), 8, (3, 3), (1, 1), (1, 1))
    heard = []
    server, client = (
        LinearServer([layer], {"x": np.ones(layer.weight_shape, np.int64)}, 1, 1024),
        LinearClient([layer], 1, 1024),
    )
    left, right = channel_pair((Meter(), Meter()), 20)
    thread = threading.Thread(target=server.setup, args=(left,))
    thread.start()
    client.setup(right)
    thread.join()
    for _ in range(2):
        request = client.request("x", np.zeros((1, 8, 8, 8), np.int64))
        answer, share = server.answer("x", request)
        heard.append((request, answer, share))
    left.close(), right.close()
    assert len(answer) == client.exchange.answer_bytes("x")
    assert (heard[0][0] != heard[1][0]).mean() > 0.9
    assert (heard[0][1] != heard[1][1]).mean() > 0.9
    for _, answer, share in heard:  # with k = 0 and s known the client's output is -s: the rest is mask and flood
        counts = np.bincount(answer, minlength=256)
        expected = answer.size / 256
        assert ((counts - expected) ** 2 / expected).sum() < 400  # chi-squared, 255 degrees of freedom
        assert len(np.unique(share & 0xFF)) > 200


def test_damage_and_strangers_are_told() -> None:
    layer = Layer("x", 46, 2, (6, 6), 2, (3, 3), (1, 1), (1, 1))
    weights = {"x": np.ones(layer.weight_shape, np.int64)}
    server, client = LinearServer([layer], weights, 1, 256), LinearClient([layer], 1, 256)
    left, right = channel_pair((Meter(), Meter()), 20)
    thread = threading.Thread(target=server.setup, args=(left,))
    thread.start()
    client.setup(right)
    thread.join()
    request = client.request("x", np.zeros((1, 2, 6, 6), np.int64))
    for at in (0, 40, len(request) - 1):
        bad = request.copy()
        bad[at] ^= 4
        with pytest.raises(TransportError, match="arrived damaged"):
            server.answer("x", bad)
    from pibench.mpc.crypto.rlwe.wire import CHECK_BYTES, check_of

    forged = request[:-CHECK_BYTES].copy()
    forged[32:] = 255  # the largest numbers of 27 bits: above every prime
    with pytest.raises(TransportError, match="no residues"):
        server.answer("x", np.concatenate([forged, check_of(forged)]))
    answer, _ = server.answer("x", request)
    answer[5] ^= 1
    with pytest.raises(TransportError, match="arrived damaged"):
        client.take("x", answer)
    left.close()
    right.close()


def test_parties_of_different_programs_part() -> None:
    layer = Layer("x", 46, 2, (6, 6), 2)
    server = LinearServer([layer], {"x": np.ones(layer.weight_shape, np.int64)}, 1, 256)
    left, right = channel_pair((Meter(), Meter()), 20)

    def serve() -> None:
        with pytest.raises(TransportError):
            server.setup(left)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(PartyError, match="other layers"):
        LinearClient([replace(layer, bits=47)], 1, 256).setup(right)
    right.close()
    thread.join()
    left.close()


def test_weights_have_classes() -> None:
    assert weight_class({"x": np.array([[1 << 21, -(1 << 21)]])}) == 22
    assert weight_class({"x": np.array([[1 << 21, -(1 << 21)], [(1 << 22), 1]])}) == 24
    with pytest.raises(UsageError, match=r"weights of more in sum than the 2\^26 that the encryption") as caught:
        weight_class({"x": np.array([[1 << 26, 1]])})
    assert "26.0" not in str(caught.value), "the client hears it, and no more than the limit is public"
    assert not caught.value.where
