"""CrypTen on a card, emulated on the processor: its class of words over tensors that stay where they are."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.distributed as dist
from networks_for_tests import program_of
from test_protocol_crypten import images_of
from two_parties import Side, run_two
from two_threads import channel_pair

from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.lowering.reference import evaluate
from pibench.mpc.crypten import cuda
from pibench.mpc.crypten.compat import crypten
from pibench.mpc.protocol import CLIENT, SERVER, Party, protocol_class
from pibench.mpc.ring.products import conv2d
from pibench.mpc.ring.randomness import Stream

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def words(monkeypatch):
    """CrypTen's class, as it is on a card, over tensors of the processor."""
    return emulated(monkeypatch.setattr)


def emulated(replace: Any) -> Any:
    crypten()
    from crypten.cuda import CUDALongTensor

    def stay(self, data=None, device=None):
        self._tensor = getattr(data, "_tensor", data)

    replace(CUDALongTensor, "__init__", stay)
    return CUDALongTensor


def stock(words: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class as CrypTen 0.4.1 ships it."""
    import importlib.util

    spec = importlib.util.find_spec("crypten.cuda.cuda_tensor")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.CUDALongTensor, "__init__", words.__init__)
    return module.CUDALongTensor


def uniform(*shape: int) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return torch.from_numpy(Stream(count.to_bytes(16, "big")).words(count)).view(shape)


def wrong_share(kind: Any, channels: int) -> float:
    x, weight = uniform(1, channels, 8, 8), uniform(8, channels, 3, 3)
    made = torch.conv2d(kind(x), kind(weight), padding=1)._tensor
    return float((made != conv2d(x, weight, padding=(1, 1))).double().mean())


def test_stock_forgets_the_channels(words, monkeypatch):
    kind = stock(words, monkeypatch)
    assert [wrong_share(kind, channels) for channels in (16, 64, 128)] == [0, 0, 0]
    assert 0.3 < wrong_share(kind, 256) < 0.7
    assert 0.8 < wrong_share(kind, 512) <= 1.0


def test_stock_is_wrong_at_the_worst_from_57_channels_on(words, monkeypatch):
    kind = stock(words, monkeypatch)
    odd = torch.full((1, 57, 3, 3), -1)
    odd[0, 0, 0, 0] = -3  # an odd sum of products: what rounding loses shows
    ones = torch.full((1, 57, 3, 3), -1)
    assert torch.conv2d(kind(odd), kind(ones))._tensor.item() != int((odd * ones).sum())
    assert torch.conv2d(words(odd), words(ones))._tensor.item() == int((odd * ones).sum())


@pytest.mark.parametrize("channels", [1, 56, 57, 128, 256, 512, 2048])
def test_every_output_is_exact(words, channels):
    assert wrong_share(words, channels) == 0
    worst = torch.full((1, channels, 3, 3), -1)  # all limbs as large as they can be
    assert torch.conv2d(words(worst), words(worst))._tensor.item() == 9 * channels


@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": (0, 2)}, {"dilation": 2}, {"groups": 1}])
def test_the_options_of_a_convolution_stay(words, options):
    x, weight = uniform(2, 70, 9, 8), uniform(4, 70, 3, 3)
    whole = {name: value if isinstance(value, tuple) else (value, value) for name, value in options.items()}
    wanted = conv2d(x, weight, **({} if "groups" in options else whole))
    assert torch.equal(torch.conv2d(words(x), words(weight), **options)._tensor, wanted)


def test_the_other_convolutions_are_exact_too(words):
    x, weight = uniform(2, 300, 7), uniform(5, 300, 3)
    made = torch.conv1d(words(x), words(weight))._tensor
    assert torch.equal(made, conv2d(x[:, :, None], weight[:, :, None])[:, :, 0])
    back = torch.conv_transpose2d(words(uniform(1, 300, 4, 4)), words(uniform(300, 2, 3, 3)))._tensor
    flipped = uniform(300, 2, 3, 3).flip(2, 3).transpose(0, 1)
    assert torch.equal(back, conv2d(uniform(1, 300, 4, 4), flipped, padding=(2, 2)))


def test_how_many_limbs_a_sum_takes():
    assert [cuda.limbs_for(terms) for terms in (1, 512, 513, 4608, 1 << 21)] == [3, 3, 4, 4, 4]
    with pytest.raises(ValueError, match="no limbs"):
        cuda.limbs_for(1 << 22)


def test_convolutions_in_groups_are_refused_as_before(words):
    with pytest.raises(ValueError, match="no convolution in groups on CUDA"):
        torch.conv2d(words(uniform(1, 4, 3, 3)), words(uniform(4, 2, 3, 3)), groups=2)


def test_collectives_take_words_of_a_card(words):
    from pibench.mpc.crypten.communicator import OverChannel

    channels = channel_pair((Meter(), Meter()))
    parties = [OverChannel(Party(rank, channel, Meter())) for rank, channel in enumerate(channels)]
    mine, theirs = words(uniform(5)), words(uniform(6)[:5])
    made: dict[int, Any] = {}
    calls = [
        threading.Thread(target=lambda p=p, w=w: made.update({p.rank: p.all_reduce(w, op=dist.ReduceOp.BXOR)}))
        for p, w in zip(parties, (mine, theirs), strict=True)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    for result in made.values():
        assert isinstance(result, words)
        assert torch.equal(result._tensor, mine._tensor ^ theirs._tensor)


# ---- whole networks: every share is CrypTen's class of a card


def on_a_card(side: Side) -> list[torch.Tensor | None]:
    """Run the networks of the payload under CrypTen with every share wrapped."""
    wrapper = emulated(setattr)
    from crypten.common import rng
    from crypten.mpc.primitives import arithmetic, binary
    from crypten.mpc.provider import tfp_provider

    def wrapped(draw: Any) -> Any:
        def drawn(*args: Any, **options: Any) -> Any:
            made = draw(*args, **options)
            return made if isinstance(made, wrapper) else wrapper(made)

        return drawn

    for module in (rng, arithmetic, binary, tfp_provider):
        for name in ("generate_random_ring_element", "generate_kbit_random_tensor"):
            if hasattr(module, name):
                setattr(module, name, wrapped(getattr(module, name)))
    wrapper.is_cuda = property(lambda self: True)
    convolved, convolve = [], getattr(wrapper, cuda.CONVOLUTIONS)

    def counted(*given: Any, **options: Any) -> Any:
        convolved.append(given)
        return convolve(*given, **options)

    setattr(wrapper, cuda.CONVOLUTIONS, staticmethod(counted))
    logits = []
    for protocol, name, wire in side.payload:
        program, weights = program_of(name)
        meter = Meter()
        channel = Channel(side.sock.dup(), meter, timeout_s=60)
        party = Party(side.rank, channel, meter, batch=2, options={"wire": wire, "rendezvous": side.rendezvous})
        runner = protocol_class(protocol)(program, party)
        runner.setup(weights if side.rank == SERVER else None)
        runner.offline(1)
        logits.append(runner.online(images_of(name, 2) if side.rank == CLIENT else None))
        assert convolved, "no share was wrapped"
        convolved.clear()
        runner.close()
        channel.barrier()
    return logits


CASES = [("crypten", "residual", "gloo"), ("crypten-cached", "masked", "channel"), ("crypten", "poly", "channel")]


def test_whole_networks_give_the_answers_of_the_processor():
    both = run_two("test_crypten_cuda:on_a_card", payload=CASES)
    for (_, name, _), logits in zip(CASES, both[CLIENT], strict=True):
        program, weights = program_of(name)
        wanted = evaluate(program, weights, images_of(name, 2), dtype=torch.float64)
        assert (logits - wanted).abs().max() < 3e-3
