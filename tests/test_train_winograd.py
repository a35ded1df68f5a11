"""3x3 convolutions in tiles: the numbers of the definition in float64, whole and in chunks, and only where they win."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pibench.training import convolutions, winograd
from pibench.training.convolutions import trained_convolutions

SIZES = [(4, 4), (8, 4), (12, 16)]  # of the last, one tile has no edge


def drawn(count: int, channels: int, outputs: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, weight and the gradient of what comes out."""
    rng = torch.Generator().manual_seed(1)
    images = torch.randn(count, channels, *size, generator=rng)
    weight = torch.randn(outputs, channels, 3, 3, generator=rng)
    return images, weight, torch.randn(count, outputs, *size, generator=rng)


def direct(images: Tensor, weight: Tensor, given: Tensor) -> list[Tensor]:
    """Return output and gradients from the definition in float64: nine shifted products."""
    x, w, dy = (each.detach().double() for each in (images, weight, given))
    height, width = x.shape[2:]
    padded = functional.pad(x, (1, 1, 1, 1))
    out, to_padded, to_weight = torch.zeros_like(dy), torch.zeros_like(padded), torch.zeros_like(w)
    for i in range(3):
        for j in range(3):
            seen = padded[:, :, i : i + height, j : j + width]
            out += torch.einsum("nchw,oc->nohw", seen, w[:, :, i, j])
            to_padded[:, :, i : i + height, j : j + width] += torch.einsum("nohw,oc->nchw", dy, w[:, :, i, j])
            to_weight[:, :, i, j] = torch.einsum("nohw,nchw->oc", dy, seen)
    return [out, to_padded[:, :, 1:-1, 1:-1], to_weight]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("chunk_images", [1, 3, 100])
def test_outputs_and_gradients_are_those_of_the_definition(
    size: tuple[int, int], layout: torch.memory_format, chunk_images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = 36 * 4 * 24 * (size[0] // 4) * (size[1] // 4)
    monkeypatch.setattr(winograd, "CHUNK_BYTES", chunk_images * one)
    images, weight, given = drawn(7, 16, 24, size)
    x = images.contiguous(memory_format=layout).requires_grad_()
    w = weight.contiguous(memory_format=layout).requires_grad_()
    made = winograd.convolve_in_tiles(x, w)
    made.backward(given.contiguous(memory_format=layout))  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert w.grad is not None
    for found, want in zip((made, x.grad, w.grad), direct(images, weight, given), strict=True):
        assert found.dtype == torch.float32
        assert float((found.detach() - want).abs().max() / want.abs().max()) < 3e-5


def test_one_thread_and_two_tell_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images, weight, _ = drawn(5, 8, 16, (8, 8))
    told = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        told.append(winograd.convolve_in_tiles(images, weight))
    assert torch.equal(*told)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_a_gradient_that_nobody_wants_is_not_computed(
    wanted: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    real = winograd._run
    monkeypatch.setattr(winograd, "_run", lambda kernel, *rest: (ran.append(kernel.__name__), real(kernel, *rest)))
    images, weight, given = drawn(2, 8, 8, (4, 4))
    images.requires_grad_(wanted[0])
    weight.requires_grad_(wanted[1])
    made = winograd.convolve_in_tiles(images, weight)
    forward = ["_spread", "_gather"]
    assert ran == forward
    if not any(wanted):
        assert not made.requires_grad
        return
    made.backward(given)  # type: ignore[no-untyped-call]
    back = {(True, False): ["_spread_transposed"], (False, True): ["_spread"]}[wanted]
    assert ran == [*forward, "_gather_transposed", *back]
    want = direct(images, weight, given)
    found = images.grad if wanted[0] else weight.grad
    assert found is not None
    assert torch.allclose(found.double(), want[1 if wanted[0] else 2], atol=1e-4)


def test_no_images_have_no_gradient() -> None:
    images, weight = torch.zeros(0, 8, 4, 4), torch.ones(8, 8, 3, 3, requires_grad=True)
    winograd.convolve_in_tiles(images, weight).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.parametrize(("images", "weight"), [((2, 12, 4, 4), (8, 12)), ((2, 8, 6, 4), (8, 8)), ((8, 4, 4), (8, 8))])
def test_what_makes_no_whole_tiles_is_refused(images: tuple[int, ...], weight: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no whole tiles"):
        winograd.convolve_in_tiles(torch.zeros(images), torch.zeros(*weight, 3, 3))


def test_the_matrices_make_a_filtering_exactly() -> None:
    rng = np.random.default_rng(1)
    b, a, g = (np.array(each, dtype=object) for each in (winograd.INPUTS, winograd.OUTPUTS, winograd.WEIGHTS))
    data, taps = rng.integers(-99, 99, (6, 6)).astype(object), rng.integers(-99, 99, (3, 3)).astype(object)
    made = a @ ((g @ taps @ g.T) * (b @ data @ b.T)) @ a.T
    want = [[(data[i : i + 3, j : j + 3] * taps).sum() * 24 * 24 for j in range(4)] for i in range(4)]
    assert made.tolist() == want


@pytest.mark.parametrize(
    ("channels", "size", "kind", "wins"),
    [
        ((64, 64), (4, 4), torch.float32, True), ((64, 128), (32, 8), torch.float32, True),
        ((32, 64), (8, 8), torch.float32, False), ((68, 68), (8, 8), torch.float32, False),
        ((64, 64), (6, 8), torch.float32, False), ((64, 64), (2, 2), torch.float32, False),
        ((64, 64), (8, 8), torch.bfloat16, False), ((64, 64), (8, 8), torch.float64, False),
    ],
)  # fmt: skip
def test_it_is_taken_where_it_wins(
    monkeypatch: pytest.MonkeyPatch, channels: tuple[int, int], size: tuple[int, int], kind: torch.dtype, wins: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    layer = nn.Conv2d(*channels, 3, padding=1, bias=False)
    shape = torch.Size((2, channels[0], *size))
    assert winograd.tiles_pay(layer, shape, kind) is wins
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not winograd.tiles_pay(layer, shape, kind)


def test_training_takes_it_and_inference_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[torch.Size] = []
    real = winograd.convolve_in_tiles

    def noted(images: Tensor, weight: Tensor) -> Tensor:
        ran.append(images.shape)
        return real(images, weight)

    monkeypatch.setattr(convolutions, "WAYS", ((winograd.tiles_pay, noted),))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    module = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False),
    )  # fmt: skip
    images = torch.randn(2, 3, 8, 8)
    with trained_convolutions(module):
        taught = module(images)
        assert ran == [torch.Size((2, 64, 8, 8))]  # the first has three channels, the others a bias and a stride
        with torch.no_grad():
            module(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            module(images)
    assert torch.allclose(module(images), taught, atol=1e-4)
    assert len(ran) == 1
    assert not any("forward" in vars(layer) for layer in module)
