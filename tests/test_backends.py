"""The torch backend against the processor's own, word for word; limbs over the full range of their words."""

from __future__ import annotations

import itertools
import threading
import time

import networks_for_tests as networks
import pytest
import torch
from masked_pair import Outcome, run_masked

from pibench.errors import PartyError, UsageError
from pibench.links.meter import Meter
from pibench.mpc.backends import choice, with_torch
from pibench.mpc.backends.backend import Backend, ring_mask
from pibench.mpc.backends.check import compare_with_host, differing
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.backends.torch_products import Float64, Int8, LimbConv, balanced_most, conv_words, limbs_of_full_words
from pibench.mpc.backends.with_torch import TorchBackend, TorchStream
from pibench.mpc.masked import protocol as masked
from pibench.mpc.masked.sources import dealer
from pibench.mpc.protocol import CLIENT, SERVER
from pibench.mpc.ring.randomness import Stream

pytestmark = pytest.mark.timeout(120)
HOST = backend_for("cpu")


class Elsewhere(TorchBackend):
    """torch's processor device taken for a card: nothing is shared with host memory, and time is waited for."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.waited = 0

    def lift(self, array):
        return super().lift(array).clone()

    def host(self, array):
        return super().host(array.clone())

    @property
    def synchronise(self):
        def wait() -> None:
            self.waited += 1

        return wait


# ---- operations


def test_every_operation_is_the_same_word_for_word():
    for _ in range(3):
        assert differing(TorchBackend("cpu"), HOST) == []


@pytest.mark.parametrize("size", [1, 8, 64])
def test_every_operation_is_the_same_at_small_sizes(size):
    assert differing(Elsewhere(), HOST, size) == []


def test_a_device_that_computes_otherwise_is_refused_by_name():
    class Wrong(TorchBackend):
        def decide(self, bits, reply, table, c, sign_bit):
            return super().decide(bits, reply, table, c, sign_bit - 1)

    with pytest.raises(PartyError, match=r"computes otherwise than the processor: answer \(6, 6, 6, 6\)"):
        compare_with_host(Wrong("cpu"))


def test_every_operation_of_the_interface_is_compared():
    called: set[str] = set()

    class Listening(TorchBackend):
        def __getattribute__(self, name):
            called.add(name)
            return super().__getattribute__(name)

    assert differing(Listening("cpu"), HOST) == []
    interface = {name for name in vars(Backend) if not name.startswith("_")}
    assert interface - called == {"device", "prepare", "synchronise", "buffer"}


# ---- whole networks


def seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the dealing server draw the same seeds in every run."""
    count = itertools.count(1)
    monkeypatch.setattr(dealer, "fresh_seed", lambda: next(count).to_bytes(16, "big"))


class Valid:
    """A backend whose products have zeros above their valid bits: what is there depends on how they were made."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def _cut(self, multiply, bits):
        return lambda x, add: multiply(x, add) & ring_mask(bits)

    def conv(self, weight, shape, *, bits, **options):
        return self._cut(self._backend.conv(weight, shape, bits=bits, **options), bits)

    def matrix(self, weight, *, bits, **options):
        return self._cut(self._backend.matrix(weight, bits=bits, **options), bits)


def run_on(monkeypatch, backends, name, batch=2, **options) -> Outcome:
    """Run one network, server and client each on a backend, with the same seeds whenever it is called."""
    kinds = {rank: Valid(backend) for rank, backend in zip((SERVER, CLIENT), backends, strict=True)}

    class OnBackends(masked.MaskedProtocol):
        def _choose_backend(self):
            return kinds[self.party.rank]

    program, weights = networks.program_of(name)
    images = [torch.randn(batch, *networks.SHAPE, generator=torch.Generator().manual_seed(k)) for k in (0, 1)]
    with monkeypatch.context() as patch:
        seeds(patch)
        return run_masked(program, weights, images, OnBackends, **options)


@pytest.mark.parametrize("where", [(SERVER,), (CLIENT,), (SERVER, CLIENT)])
@pytest.mark.parametrize("name", ["residual", "poly", "culled"])
def test_a_whole_network_says_the_same_words(name, where, monkeypatch):
    plain = run_on(monkeypatch, (HOST, HOST), name)
    device = run_on(monkeypatch, [Elsewhere() if rank in where else HOST for rank in (SERVER, CLIENT)], name)
    assert device.heard == plain.heard
    assert all(map(torch.equal, device.logits, plain.logits))
    assert len(plain.heard[CLIENT][0]) >= 3


@pytest.mark.parametrize("name", [name for name in networks.everything() if name not in {"residual", "poly", "culled"}])
def test_every_other_operation_says_the_same_words(name, monkeypatch):
    both = Elsewhere()
    assert run_on(monkeypatch, (both, both), name, 1).heard == run_on(monkeypatch, (HOST, HOST), name, 1).heard


@pytest.mark.parametrize("where", [(SERVER,), (CLIENT,), (SERVER, CLIENT)])
def test_a_wide_image_says_the_same_words(where, monkeypatch):
    options = {"wide_image": True, "relu_messages": 2}
    plain = run_on(monkeypatch, (HOST, HOST), "culled", **options)
    device = run_on(
        monkeypatch, [Elsewhere() if rank in where else HOST for rank in (SERVER, CLIENT)], "culled", **options
    )
    assert device.heard == plain.heard
    assert all(map(torch.equal, device.logits, plain.logits))


@pytest.mark.parametrize(
    "options", [{"provider": "dealer"}, {"provider": "two-party"}, {"check_ranges": True}, {"relu_messages": 2}]
)
@pytest.mark.timeout(300)
def test_material_from_any_source_serves_a_device(options, monkeypatch):
    both = Elsewhere()
    outcome = run_on(monkeypatch, (both, both), "residual", **options)
    plain = run_on(monkeypatch, (HOST, HOST), "residual", **options)
    for made, wanted in zip(outcome.logits, plain.logits, strict=True):
        assert (made - wanted).abs().max() < 2**-9


def test_material_that_was_kept_serves_either_backend(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    kept = {"keep_dir": str(tmp_path / "kept")}
    made = run_on(monkeypatch, (Elsewhere(), Elsewhere()), "culled", deal_ahead=4, **kept)
    taken = run_on(monkeypatch, (HOST, HOST), "culled", **kept)
    again = run_on(monkeypatch, (Elsewhere(), Elsewhere()), "culled", **kept)
    for later in (taken, again):
        assert later.offline[CLIENT].total.sent_bytes < made.offline[CLIENT].total.sent_bytes
        for one, other in zip(later.logits, made.logits, strict=True):
            assert (one - other).abs().max() < 2**-9


def test_the_meter_waits_for_the_device(monkeypatch):
    server, client = Elsewhere(), Elsewhere()
    outcome = run_on(monkeypatch, (server, client), "residual")
    parts = len(outcome.online[SERVER][0].parts)
    assert server.waited > 4 * parts
    assert client.waited > 0
    assert Meter().synchronise is None


# ---- masks


def draws_from_torch(backend: TorchBackend) -> bool:
    """Whether a whole inference on this backend moves torch's own generator."""
    with pytest.MonkeyPatch.context() as patch:
        program, weights = networks.program_of("culled")
        image = [torch.ones(1, *networks.SHAPE)]
        before = torch.random.get_rng_state()
        patch.setattr(masked.MaskedProtocol, "_choose_backend", lambda self: backend)
        run_masked(program, weights, image)
        return not torch.equal(before, torch.random.get_rng_state())


def test_no_mask_comes_from_the_generator_of_torch():
    class Weak(TorchStream):
        def words(self, count):
            return torch.randint(-(2**63), 2**63 - 1, (count,))

    class Careless(TorchBackend):
        def stream(self, seed):
            return Weak(self, seed)

    assert not draws_from_torch(TorchBackend("cpu"))
    assert draws_from_torch(Careless("cpu"))


def test_a_seed_gives_the_same_stream_on_either_backend():
    seed = bytes(range(16))
    for kind, arguments in (("bytes", (33,)), ("words", (7,)), ("small", (9, 63)), ("halves", (5,))):
        mine, theirs = getattr(Elsewhere().stream(seed), kind)(*arguments), getattr(Stream(seed), kind)(*arguments)
        assert HOST.raw(Elsewhere().host(mine)).tobytes() == theirs.tobytes()


# ---- products: limbs over the full range of their words


def integers(x: list[int], weights: list[int], bits: int) -> int:
    total = sum(a * b for a, b in zip(x, weights, strict=True)) % (1 << bits)
    return total - (total >> (bits - 1) << bits)


def extremes(limbs: int, bits: int) -> tuple[int, int]:
    """The words all of whose balanced limbs are the least, and the largest, modulo 2^64."""
    low = sum(-(1 << (bits - 1)) << (bits * k) for k in range(limbs))
    high = sum(((1 << (bits - 1)) - 1) << (bits * k) for k in range(limbs))
    return tuple((value + (1 << 63)) % (1 << 64) - (1 << 63) for value in (low, high))


WIDEST = 512 * 9  # inner size of the widest layers of ResNet18
ENGINES = ("float64", "int8")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bits", [36, 46, 52, 62, 64])
@pytest.mark.parametrize("sign", [1, -1])
def test_limbs_are_exact_at_the_worst_of_their_words_and_weights(engine, bits, sign):
    largest = (1 << 17) - 1
    weight = torch.full((2, WIDEST, 1, 1), sign * largest)
    weight[1, ::2] *= -1
    conv = LimbConv(weight, (WIDEST, 1, 1), batch=1, bits=bits, engine=engine)
    for word in extremes(conv.engine.limbs, conv.engine.limb_bits):
        x = torch.full((1, WIDEST, 1, 1), word)
        made = conv(x, torch.zeros(1, 2, 1, 1, dtype=torch.int64))
        for row in (0, 1):
            wanted = integers(x.flatten().tolist(), weight[row].flatten().tolist(), bits)
            assert (made[0, row].item() << (64 - bits)) % 2**64 == (wanted << (64 - bits)) % 2**64


@pytest.mark.parametrize("engine", ENGINES)
def test_limbs_are_exact_on_random_words_of_all_shapes(engine):
    for bits, inner, kernel in ((46, 3, 3), (62, 64, 1), (46, 512, 3)):
        weight = torch.from_numpy(Stream(bytes(16)).words(5 * inner * kernel**2) >> 46).view(5, inner, kernel, kernel)
        x = torch.from_numpy(Stream(bytes(15) + b"1").words(2 * inner * 16)).view(2, inner, 4, 4)
        options = {"bits": bits, "padding": (1, 1), "stride": (2, 1)}
        add = torch.zeros(2, 5, *((2, 4) if kernel == 3 else (3, 6)), dtype=torch.int64)
        made = LimbConv(weight, (inner, 4, 4), batch=2, engine=engine, **options)(x, add)
        wanted = HOST.conv_words(x.numpy(), weight.numpy(), (2, 1), (1, 1), (1, 1), 1)
        assert ((made.numpy() - wanted) << (64 - bits) == 0).all()


def test_one_limb_fewer_would_be_wrong():
    weight = torch.full((1, WIDEST, 1, 1), (1 << 17) - 1)
    conv = LimbConv(weight, (WIDEST, 1, 1), batch=1, bits=46, engine="float64")
    assert conv.engine.limbs == 2
    conv.engine = Float64(1, 46)
    x = torch.full((1, WIDEST, 1, 1), (1 << 45) - 1)
    made = conv(x, torch.zeros(1, 1, 1, 1, dtype=torch.int64)).item()
    assert (made - integers([(1 << 45) - 1] * WIDEST, [(1 << 17) - 1] * WIDEST, 64)) % 2**46 != 0


def test_how_many_limbs_the_papers_layers_take():
    rows = torch.full((1, 2, WIDEST), (1 << 17) - 1)
    assert Float64.fitting(rows, 46) == Float64(2, 23)
    assert Float64.fitting(rows, 62) == Float64(3, 21)
    assert Int8.fitting(rows, 46) == Int8(6, 3)
    assert Int8.fitting(rows, 62) == Int8(8, 3)
    assert Int8.fitting(torch.ones(1, 1, 1 << 17, dtype=torch.int64), 46) is None
    assert Int8.fitting(torch.ones(2, 1, 9, dtype=torch.int64), 46) is None
    assert Float64.fitting(torch.full((1, 1, 2), 1 << 53), 46) is None
    assert [balanced_most(n) for n in (1, 2)] == [127, 127 * 257]


@pytest.mark.parametrize("inner", [9, 512, 2048, WIDEST])
def test_full_words_are_exact_at_their_worst(inner):
    limbs, bits = limbs_of_full_words(inner)
    assert (limbs, bits) == ((3, 22) if inner <= 512 else (4, 16))
    for a, b in itertools.product(extremes(limbs, bits), repeat=2):
        x, weight = torch.full((1, inner, 1, 1), a), torch.full((1, inner, 1, 1), b)
        made = conv_words(x, weight, (1, 1), (0, 0), (1, 1), 1).item()
        assert made == integers([a] * inner, [b] * inner, 64)


def test_a_large_batch_goes_in_parts(monkeypatch):
    from pibench.mpc.backends import torch_products

    weight = torch.arange(-13, 14).view(1, 3, 3, 3)
    x = torch.from_numpy(Stream(bytes(16)).words(5 * 3 * 36)).view(5, 3, 6, 6)
    wanted = HOST.conv_words(x.numpy(), weight.numpy(), (1, 1), (0, 0), (1, 1), 1)
    monkeypatch.setattr(torch_products, "WORK_BYTES", 1 << 14)
    made = LimbConv(weight, (3, 6, 6), batch=5, bits=50)(x, torch.zeros(5, 1, 4, 4, dtype=torch.int64))
    assert ((made.numpy() - wanted) << 14 == 0).all()
    assert (conv_words(x, weight, (1, 1), (0, 0), (1, 1), 1).numpy() == wanted).all()


def test_the_faster_of_two_exact_engines_is_taken(monkeypatch):
    weight = torch.ones(4, 8, 1, 1, dtype=torch.int64)
    conv = LimbConv(weight, (8, 4, 4), batch=1, bits=46)
    rows, x = weight.reshape(1, 4, 8), torch.ones(1, 8, 4, 4, dtype=torch.int64)
    engines = [Float64.fitting(rows, 46), Int8.fitting(rows, 46)]
    for slow in (0, 1):
        apply = LimbConv._apply

        def slowly(self, x, rows, engine, slow=engines[slow], apply=apply):
            if engine is slow:
                torch.ones(300, 300) @ torch.ones(300, 300) @ torch.ones(300, 300)
                __import__("time").sleep(0.01)
            return apply(self, x, rows, engine)

        with monkeypatch.context() as patch:
            patch.setattr(LimbConv, "_apply", slowly)
            assert conv._fastest(rows, engines, x) is engines[1 - slow]


def test_an_engine_that_a_card_has_not_is_not_taken(monkeypatch):
    weight = torch.ones(4, 8, 1, 1, dtype=torch.int64)
    conv = LimbConv(weight, (8, 4, 4), batch=1, bits=46)
    rows, x = weight.reshape(1, 4, 8), torch.ones(1, 8, 4, 4, dtype=torch.int64)
    engines = [Float64.fitting(rows, 46), Int8.fitting(rows, 46)]

    def missing(self, rows, columns):
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")

    monkeypatch.setattr(Int8, "multiply", missing)
    assert conv._fastest(rows, engines, x) is engines[0]
    monkeypatch.setattr(Float64, "multiply", missing)
    with pytest.raises(PartyError, match="no engine multiplies on this device"):
        conv._fastest(rows, engines, x)


def test_a_wrong_engine_is_found_in_setup(monkeypatch):
    weight = torch.from_numpy(Stream(bytes(16)).words(6 * 4 * 9) >> 47).view(6, 4, 3, 3)
    conv = LimbConv(weight, (4, 6, 6), batch=3, bits=46, stride=(2, 1), padding=(0, 1))
    x = torch.from_numpy(Stream(bytes(16)).words(3 * 4 * 36)).view(3, 4, 6, 6)
    conv._compare(x)
    monkeypatch.setattr(Float64, "multiply", lambda self, rows, columns: torch.bmm(rows, columns).long() + 1)
    with pytest.raises(PartyError, match="multiplies 46-bit words wrongly by its float64 engine"):
        conv._compare(x)


# ---- which one


def test_a_case_gets_the_backend_of_its_device():
    assert backend_for("cpu").name == "numpy"
    assert backend_for("cpu") is HOST


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_card_that_is_not_there_is_refused_in_words():
    with pytest.raises(UsageError, match="no device 'cuda:1': torch finds no card here"):
        backend_for("cuda:1")


def test_whoever_asks_at_once_gets_the_same_backend(monkeypatch):
    """Parties may be threads: two backends for one device are told apart where halves are moved between them."""
    started = threading.Barrier(6)

    def slow(device: str) -> str:
        time.sleep(0.05)
        return device

    def ask(into: list[object]) -> None:
        started.wait()
        into.append(backend_for("slow"))

    monkeypatch.setattr(choice, "require", slow)
    monkeypatch.setattr(with_torch, "TorchBackend", lambda device: [device])
    got: list[object] = []
    threads = [threading.Thread(target=ask, args=(got,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 6
    assert len(set(map(id, got))) == 1
