"""A square's correlations and an extension's pads from transfers, each against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from test_crypto_signs import Roles, low, roles, uniform  # noqa: F401 - a fixture

from pibench.mpc.crypto.squares import (
    ClientSquares,
    ServerSquares,
    SquareLayout,
    both_pads,
    choose_pads,
)


@pytest.mark.parametrize(
    "layout",
    [
        SquareLayout(bits=30, shift=0, width=62),
        SquareLayout(bits=46, shift=16, width=48),
        SquareLayout(bits=34, shift=3, width=64),
    ],
)
def test_every_share_against_its_definition(layout: SquareLayout, roles: Roles) -> None:  # noqa: F811
    n = 128
    down, back, into, up = roles
    r = [uniform(n, layout.bits) for _ in range(2)]
    edges = np.concatenate(
        [[np.uint64(0), np.uint64((1 << layout.bits) - 1)], np.uint64(1) << np.arange(layout.bits, dtype=np.uint64)]
    )
    r[1][: edges.size] = r[0][: edges.size] ^ edges
    client, server = ClientSquares(layout, r[1], into), ServerSquares(layout, r[0])
    said = server.answer(down, client.message)
    choices = server.choose(back)
    client.take(into, said)
    last = client.finish(up, choices)
    mine, yours = server.finish(back, last), client.shares
    assert (said.nbytes, last.nbytes) == layout.sizes(n)
    assert choices.nbytes == 4 * n * layout.chosen
    whole, modulus = r[0] ^ r[1], np.uint64((1 << layout.width) - 1)
    cut, top = -(whole >> np.uint64(layout.shift)), whole >> np.uint64(layout.bits - 1)
    assert (low(mine.r, yours.r, layout.bits) == whole).all()
    assert (low(mine.cut, yours.cut, layout.width) == cut & modulus).all()
    assert (low(mine.squared, yours.squared, layout.width) == (cut * cut) & modulus).all()
    assert (low(mine.top, yours.top, 32) == top).all()
    assert (low(mine.top_cut, yours.top_cut, 32) == (cut * top) & np.uint64(2**32 - 1)).all()


def test_pads_are_random_transfers(roles: Roles) -> None:  # noqa: F811
    _, back, _, up = roles
    held = uniform(1024, 1)
    pad, message = choose_pads(back, held)
    p0, p1 = both_pads(up, message)
    assert (pad == np.where(held == 1, p1, p0)).all()
    assert (p0 != p1).all()
    assert message.nbytes == 4 * 1024
    assert len(set(p0.tolist()) | set(p1.tolist())) == 2048
