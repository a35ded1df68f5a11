"""Kernels of `masked` against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from pibench.mpc.backends import kernels
from pibench.mpc.backends.backend import DIGITS


@pytest.mark.parametrize("digits", [(6,) * 4, (7,) * 4, (8,) * 4, (7, 7, 6, 6), (8, 7, 7, 7), (9, 8, 8, 8)])
def test_table_shares_open_to_the_comparison_of_every_digit(digits: tuple[int, ...]) -> None:
    n, rng = 3000, np.random.default_rng(sum(digits))
    c, r = rng.integers(-(2**63), 2**63 - 1, (2, n))
    r[: n // 2] = c[: n // 2] ^ (rng.integers(0, 2, n // 2) << digits[0])  # equal digits are rare otherwise
    server = rng.integers(0, 2**64, (sum(1 << (bits - 6) for bits in digits), n), np.uint64)
    client = server.copy()
    kernels.deal_digits(r, digits, client)
    masks, read = rng.integers(0, 64, (2, n)).astype(np.uint8), np.empty((2, n), np.uint8)
    for words, mask, bits in zip((server, client), masks, read, strict=True):
        kernels.read_digits(c, words, mask, digits, bits)
    opened = read[0] ^ read[1] ^ masks[0] ^ masks[1]
    for j in range(DIGITS):
        at, last = np.uint64(sum(digits[:j])), np.uint64((1 << digits[j]) - 1)
        cj, rj = ((word.view(np.uint64) >> at) & last for word in (c, r))
        assert ((opened >> (j if j < 3 else 6) & 1) == (cj < rj)).all()
        if j:
            assert ((opened >> (2 + j) & 1) == (cj == rj)).all()
