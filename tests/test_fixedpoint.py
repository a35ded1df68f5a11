"""Encoding is nearest, decoding exact, also where CrypTen's is not; ring products are exact modulo 2^64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pibench.errors import UsageError
from pibench.mpc.ring import products as ring
from pibench.mpc.ring.fixedpoint import decode, encode, truncate


def test_round_trip_is_nearest() -> None:
    values = torch.tensor([0.0, 1.0, -1.0, 0.1, -0.1, 3.14159, -(2.0**-17), 2.0**-16, -1234.56789])
    assert torch.equal(encode(values), (values.double() * 65536).round().long())
    assert (decode(encode(values)) - values).abs().max() <= 2.0**-17 + 1e-4


def test_every_small_negative_is_decoded_exactly() -> None:
    ring_values = torch.arange(-(2**20), 2**20)
    decoded = decode(ring_values, dtype=torch.float64)
    assert torch.equal(decoded * 65536, ring_values.double())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2.0**50])
def test_what_does_not_fit_is_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="not finite or too large"):
        encode(torch.tensor([0.0, bad]))


def test_truncation_rounds_to_nearest() -> None:
    assert truncate(torch.tensor([0, 32767, 32768, -32768, -32769, 65536])).tolist() == [0, 0, 1, 0, -1, 1]


@pytest.mark.parametrize(
    ("shape", "weight", "options"),
    [
        ((2, 4, 7, 6), (6, 4, 3, 3), {}),
        ((1, 4, 7, 6), (6, 4, 3, 2), {"stride": (2, 1), "padding": (1, 2)}),
        ((2, 4, 9, 9), (8, 2, 3, 3), {"groups": 2, "dilation": (2, 1), "padding": (2, 1)}),
        ((3, 4, 5, 5), (4, 1, 1, 1), {"groups": 4, "stride": (2, 2)}),
        ((2, 3, 4, 4), (5, 3, 4, 4), {}),
    ],
)
def test_convolution_is_exact_modulo_2_64(shape: tuple[int, ...], weight: tuple[int, ...], options: dict) -> None:  # type: ignore[type-arg]
    x, w = (torch.randint(-(2**63), 2**63 - 1, s) for s in (shape, weight))
    expected = F.conv2d(x, w, **options)
    assert torch.equal(ring.conv2d(x, w, **options), expected)
    assert expected.any()


def test_linear_is_exact_modulo_2_64() -> None:
    x, w = (torch.randint(-(2**63), 2**63 - 1, s) for s in ((3, 17), (5, 17)))
    expected = [[sum(int(a) * int(b) for a, b in zip(i, o, strict=True)) for o in w] for i in x]
    wrapped = torch.tensor([[(v + 2**63) % 2**64 - 2**63 for v in row] for row in expected])
    assert torch.equal(ring.linear(x, w), wrapped)
