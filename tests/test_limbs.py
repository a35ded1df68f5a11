"""Ring convolutions are exact, whatever the shape; so are products of full words."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pibench.mpc.ring.limbs import RingConv, RingMatrix, conv_words, limbs_for


def exact(x: torch.Tensor, w: torch.Tensor, stride: int, padding: int, dilation: int, groups: int) -> torch.Tensor:
    """torch's own int64 convolution wraps modulo 2^64: slow, and the reference."""
    return torch.nn.functional.conv2d(x, w, None, stride, padding, dilation, groups)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3), groups=st.integers(1, 2), inner=st.integers(1, 5), outer=st.integers(1, 5),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)), kernel=st.sampled_from([1, 2, 3]),
    stride=st.integers(1, 2), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    bits=st.sampled_from([40, 48, 62, 64]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_convolution_is_exact_modulo_its_ring(
    batch, groups, inner, outer, size, kernel, stride, padding, dilation, bits, seed
):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(-(2**63), 2**63 - 1, (batch, inner * groups, *size), generator=g)
    w = torch.randint(-(2**17), 2**17, (outer * groups, inner, kernel, kernel), generator=g)
    add = torch.randint(-(2**63), 2**63 - 1, exact(x, w, stride, padding, dilation, groups).shape, generator=g)
    want = exact(x, w, stride, padding, dilation, groups) + add
    for winograd in (False, True):
        conv = RingConv(
            w, tuple(x.shape[1:]), bits=bits, stride=(stride, stride), padding=(padding, padding),
            dilation=(dilation, dilation), groups=groups, winograd=winograd,
        )  # fmt: skip
        assert ((conv(x.numpy(), add.numpy()) - want.numpy()) << (64 - bits) == 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(0, 2**31))
def test_full_words_convolve_exactly(groups, channels, stride, padding, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(-(2**63), 2**63 - 1, (2, channels * groups, 6, 5), generator=g)
    w = torch.randint(-(2**63), 2**63 - 1, (3 * groups, channels, 3, 3), generator=g)
    made = conv_words(x, w, (stride, stride), (padding, padding), (1, 1), groups)
    assert torch.equal(made, exact(x, w, stride, padding, 1, groups))


@pytest.mark.parametrize(("norm", "bits", "limbs"), [(2**16, 48, 2), (2**28, 50, 2), (2**31, 48, 3), (2**21, 64, 2)])
def test_limbs_keep_partial_sums_exact(norm, bits, limbs):
    count, width = limbs_for(norm, bits)
    assert count == limbs
    assert norm * 2 ** (width - 1) <= 2**53
    assert count * width >= bits


def test_extreme_limbs_are_exact():
    """All limbs at their largest magnitude and all weights alike: the sum that the bound is about."""
    x = torch.full((1, 64, 4, 4), -(2**47) + 2**23)
    w = torch.full((16, 64, 3, 3), 2**18 - 1)
    conv = RingConv(w, (64, 4, 4), bits=48, padding=(1, 1), winograd=True)
    assert ((conv(x.numpy()) - exact(x, w, 1, 1, 1, 1).numpy()) << 16 == 0).all()


@pytest.mark.parametrize("largest", [2**17, 2**40])
@pytest.mark.parametrize("batch", [1, 5])
def test_matrices_are_exact_modulo_2_to_64(largest, batch):
    weight = torch.randint(-largest, largest, (7, 33))
    x, add = torch.randint(-(2**63), 2**63 - 1, (batch, 33)), torch.randint(-(2**63), 2**63 - 1, (batch, 7))
    made = RingMatrix(weight)
    assert made.matrix.dtype == ("int32" if largest < 2**31 else "int64")
    assert (made(x.numpy(), add.numpy()) == (x @ weight.T + add).numpy()).all()
