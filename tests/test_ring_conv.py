"""Ring convolutions are exact, whatever the shape; so are products of full words."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pibench.mpc.ring import registers
from pibench.mpc.ring.conv import Engine, RingConv, cut_first, limbs_for
from pibench.mpc.ring.winograd import F2, F4
from pibench.mpc.ring.words import RingMatrix, conv_words

ENGINES = (True, False) if registers.words_available() else (False,)


def exact(x: torch.Tensor, w: torch.Tensor, stride: int, padding: int, dilation: int, groups: int) -> torch.Tensor:
    """torch's own int64 convolution wraps modulo 2^64: slow, and the reference."""
    return torch.nn.functional.conv2d(x, w, None, stride, padding, dilation, groups)


@settings(max_examples=25, deadline=None)
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
    for tiling, ifma in itertools.product((False, F2, F4, None), ENGINES):
        conv = RingConv(
            w, tuple(x.shape[1:]), bits=bits, stride=(stride, stride), padding=(padding, padding),
            dilation=(dilation, dilation), groups=groups, tiling=tiling, ifma=ifma,
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
    for tiling, ifma in itertools.product((False, F2), ENGINES):
        conv = RingConv(w, (64, 4, 4), bits=48, padding=(1, 1), tiling=tiling, ifma=ifma)
        assert ((conv(x.numpy()) - exact(x, w, 1, 1, 1, 1).numpy()) << 16 == 0).all()


@pytest.mark.skipif(not registers.words_available(), reason="this processor has no AVX-512 IFMA")
@pytest.mark.parametrize("bits", [46, 52, 53, 62])
def test_extreme_words_are_exact_in_the_52_bit_engine(bits):
    """The most negative words and the largest weights, where a low limb's sums come nearest to the engine's words."""
    x = torch.full((1, 64, 6, 6), -(1 << (bits - 1)))
    w = torch.full((8, 64, 3, 3), 2**18 - 1)
    conv = RingConv(w, (64, 6, 6), bits=bits, padding=(1, 1), tiling=False, ifma=True)
    assert conv.engine.exact
    assert conv.engine.limbs == (1 if bits <= 52 else 2)
    assert ((conv(x.numpy()) - exact(x, w, 1, 1, 1, 1).numpy()) << (64 - bits) == 0).all()


@pytest.mark.skipif(not registers.words_available(), reason="this processor has no AVX-512 IFMA")
@pytest.mark.parametrize("bits", [47, 53, 62, 64])
def test_words_that_are_cut_before_a_filtering_are_exact_to_the_extremes(bits):
    """The low limb's sums as large as they get (at 64 bits), of either sign, beside every high limb."""
    low = bits + F4.spare_bits - registers.WORD_BITS
    weight = torch.full((8, 64, 3, 3), 2**18 - 1)
    assert bits < 64 or int(weight[0].sum()).bit_length() + low - 1 == 45, "the most there may be"
    words = torch.tensor([-(1 << (low - 1)), (1 << (low - 1)) - 1, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, 1 << low])
    x = words[torch.randint(len(words), (1, 64, 8, 8), generator=torch.Generator().manual_seed(1))]
    for image in (x, torch.full_like(x, words[0].item()), torch.full_like(x, words[1].item())):
        for sign in (1, -1):
            conv = RingConv(sign * weight, (64, 8, 8), bits=bits, padding=(1, 1), tiling=F4, ifma=True)
            assert conv.tiling is F4
            assert conv.engine == Engine(True, 2, low, registers.WORDS, first=True)
            want = exact(image, sign * weight, 1, 1, 1, 1)
            assert ((conv(image.numpy()) - want.numpy()) << (64 - bits) == 0).all()


@pytest.mark.skipif(not registers.words_available(), reason="this processor has no AVX-512 IFMA")
def test_a_filter_whose_low_sums_would_not_be_whole_is_not_cut_before_its_filtering():
    weight = torch.full((8, 512, 3, 3), 2**21)
    assert cut_first(F4, weight, 64) is None
    conv = RingConv(weight, (512, 6, 6), bits=64, padding=(1, 1), tiling=F4, ifma=True)
    assert conv.tiling is None
    x = torch.full((1, 512, 6, 6), (1 << 17) - 1)
    assert (conv(x.numpy()) == exact(x, weight, 1, 1, 1, 1).numpy()).all()


@pytest.mark.skipif(not registers.words_available(), reason="this processor has no AVX-512 IFMA")
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 600), st.integers(1, 60), st.integers(0, 2**31))
def test_the_52_bit_product_is_that_of_integers(batches, rows, inner, columns, seed):
    rng = np.random.default_rng(seed)
    a = rng.integers(-(2**31) + 1, 2**31, (batches, rows, inner))
    b = rng.integers(-(2**63), 2**63 - 1, (batches, inner, columns))
    width = registers.WORDS.panel_width(columns)
    padded = np.zeros((batches, inner, -(-columns // width) * width), np.int64)
    padded[..., :columns] = b
    panels = np.ascontiguousarray(padded.reshape(batches, inner, -1, width).transpose(0, 2, 1, 3))
    out = np.full((batches, -(-rows // registers.WORDS.rows) * registers.WORDS.rows, padded.shape[2]), -1)
    registers.multiply(registers.pack_rows(a, registers.WORDS), panels, out, registers.WORDS.lanes)
    assert ((out[:, :rows, :columns] - a @ b) << 12 == 0).all()


@pytest.mark.skipif(not registers.doubles_available(), reason="this processor has no fused multiply-adds")
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([registers.DOUBLES, registers.SHORT_DOUBLES]), st.integers(1, 3), st.integers(1, 20),
    st.integers(1, 600), st.integers(1, 70), st.integers(0, 2**31),
)  # fmt: skip
def test_the_product_of_doubles_is_that_of_integers(unit, batches, rows, inner, columns, seed):
    """Sums of 600 products of 31 and 12 bits stay below 2^53; what the panels hold beyond the columns is no number."""
    rng = np.random.default_rng(seed)
    a = rng.integers(-(2**31) + 1, 2**31, (batches, rows, inner))
    b = rng.integers(-(2**12), 2**12, (batches, inner, columns))
    width = unit.panel_width(columns)
    padded = np.full((batches, inner, -(-columns // width) * width), np.nan)
    padded[..., :columns] = b
    panels = np.ascontiguousarray(padded.reshape(batches, inner, -1, width).transpose(0, 2, 1, 3))
    out = np.full((batches, -(-rows // unit.rows) * unit.rows, padded.shape[2]), np.nan)
    registers.multiply(registers.pack_rows(a, unit), panels, out, unit.lanes)
    assert (out[:, :rows, :columns] == a @ b).all()


@pytest.mark.skipif(not registers.doubles_available(), reason="this processor has no fused multiply-adds")
def test_weights_of_more_than_31_bits_go_through_torchs_product():
    weight = torch.tensor([1 << 31, -(1 << 31) + 1]).view(2, 1, 1, 1)
    conv = RingConv(weight, (1, 4, 4), bits=46, ifma=False)
    assert conv.engine.unit is None
    assert RingConv(weight // 2, (1, 4, 4), bits=46, ifma=False).engine.unit == registers.DOUBLES
    x = torch.randint(-(2**45), 2**45, (1, 1, 4, 4))
    assert ((conv(x.numpy()) - exact(x, weight, 1, 0, 1, 1).numpy()) << 18 == 0).all()


def test_a_processor_without_the_instruction_takes_the_ordinary_way(tmp_path):
    """LLVM would end the process, not raise: a kernel for a generic processor must not name the instruction."""
    code = (
        "import numpy as np, torch\nfrom pibench.mpc.ring.conv import RingConv\n"
        "conv = RingConv(torch.ones(8, 2, 1, 1, dtype=torch.int64), (2, 2, 2), bits=46)\n"
        "print(conv.engine.exact, conv(np.ones((1, 2, 2, 2), np.int64)).sum())"
    )
    env = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.split()) == (0, ["False", "64"]), done.stderr


@pytest.mark.parametrize("largest", [2**17, 2**40])
@pytest.mark.parametrize("batch", [1, 5])
def test_matrices_are_exact_modulo_2_to_64(largest, batch):
    weight = torch.randint(-largest, largest, (7, 33))
    x, add = torch.randint(-(2**63), 2**63 - 1, (batch, 33)), torch.randint(-(2**63), 2**63 - 1, (batch, 7))
    made = RingMatrix(weight)
    assert made.matrix.dtype == ("int32" if largest < 2**31 else "int64")
    assert (made(x.numpy(), add.numpy()) == (x @ weight.T + add).numpy()).all()
