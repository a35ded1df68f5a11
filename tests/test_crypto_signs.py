"""A ReLU's correlations from transfers: each against its integer definition, over the whole range of its inputs."""

from __future__ import annotations

import os
from dataclasses import fields

import numpy as np
import pytest
from test_crypto_ot import both

from pibench.mpc.crypto import softspoken
from pibench.mpc.crypto.aes import Words
from pibench.mpc.crypto.signs import ClientSigns, Layout, Own, ServerSigns, Shares
from pibench.mpc.crypto.softspoken import OtReceiver, OtSender

LAYOUTS = {
    "relu": Layout(bits=30, low=0, digits=(7, 7, 7, 7), shift=0, width=46),
    "relu with its low bits": Layout(bits=46, low=16, digits=(7, 7, 7, 7), shift=16, width=62),
    "pool": Layout(bits=31, low=0, digits=(8, 7, 7, 7), shift=0, width=62),
    "pooled": Layout(bits=34, low=4, digits=(7, 7, 7, 7), shift=0, width=46),
    "narrow": Layout(bits=27, low=0, digits=(7, 6, 6, 6), shift=3, width=40),
    "wide": Layout(bits=34, low=0, digits=(8, 8, 8, 8), shift=0, width=50),
}
Roles = tuple[OtSender, OtReceiver, OtReceiver, OtSender]


@pytest.fixture(scope="module")
def roles() -> Roles:
    """Both directions: the server sends and receives, the client receives and sends."""
    (server, client), _ = both(
        lambda channel: softspoken.set_up_both(channel, b"s", b"down", b"up"),
        lambda channel: softspoken.set_up_both(channel, b"s", b"up", b"down"),
    )
    (down, back), (up, into) = server, client
    assert (down.delta != up.delta).any()
    return down, back, into, up


def uniform(count: int, bits: int) -> Words:
    return np.frombuffer(os.urandom(8 * count), np.uint64) & np.uint64((1 << bits) - 1)


def permuted() -> Words:
    """A table of 64 random bits, moved by every place."""
    entries = np.frombuffer(os.urandom(64), np.uint8) & 1
    place = np.arange(64)
    weights = np.uint64(1) << place.astype(np.uint64)
    return np.array([(entries[place ^ mu].astype(np.uint64) * weights).sum() for mu in range(64)], np.uint64)


def halves(
    layout: Layout, n: int, edges: Words | None = None
) -> tuple[list[Words], list[np.ndarray], list[np.ndarray]]:
    """Both parties' random bits; `edges` are values that r takes first."""
    r = [uniform(n, layout.bits) for _ in range(2)]
    if edges is not None:
        r[1][: edges.size] = r[0][: edges.size] ^ edges
    mu = [uniform(n, 6).astype(np.uint8) for _ in range(2)]
    s = [uniform(n, 1).astype(np.uint8) for _ in range(2)]
    return r, mu, s


def exchange(layout: Layout, roles: Roles, own: list[Own], table: Words) -> tuple[Shares, Shares, list[int]]:
    down, back, into, up = roles
    client, server = ClientSigns(layout, own[1], into), ServerSigns(layout, own[0], table)
    moved, said = server.answer(down, client.message)
    choices = server.choose(back)
    client.take(into, moved, said)
    last = client.finish(up, choices)
    return server.finish(back, last), client.shares, [client.message.nbytes, moved.nbytes, said.nbytes, last.nbytes]


def low(a: Words, b: Words, bits: int) -> Words:
    return (a + b) & np.uint64((1 << bits) - 1)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_share_against_its_definition(name: str, roles: Roles) -> None:
    layout, n = LAYOUTS[name], 256
    one = np.uint64(1)
    places = np.arange(layout.bits, dtype=np.uint64)
    edges = np.concatenate([[np.uint64(0), np.uint64((1 << layout.bits) - 1)], one << places])
    r, mu, s = halves(layout, n, edges)
    table = permuted()
    mine, yours, _ = exchange(layout, roles, [Own.of(r[k], mu[k], s[k]) for k in range(2)], table)
    whole, sign = r[0] ^ r[1], (s[0] ^ s[1]).astype(np.uint64)
    cut, top = -(whole >> np.uint64(layout.shift)), whole >> np.uint64(layout.bits - 1)
    modulus = np.uint64((1 << layout.width) - 1)
    assert (low(mine.r, yours.r, layout.bits) == whole).all()
    assert (low(mine.cut, yours.cut, layout.width) == cut & modulus).all()
    assert (low(mine.s, yours.s, layout.width) == sign).all()
    assert (low(mine.s_cut, yours.s_cut, layout.width) == (cut * sign) & modulus).all()
    assert (low(mine.top, yours.top, 32) == top).all()
    assert (low(mine.s_top, yours.s_top, 32) == top * sign).all()
    for at, bits, rows in layout.places:
        value = (whole >> np.uint64(at)) & np.uint64((1 << bits) - 1)
        words = (mine.words ^ yours.words)[rows]
        for k in range(len(words)):
            hot = np.where(value >> np.uint64(6) == k, one << (value & np.uint64(63)), np.uint64(0))
            assert (words[k] == hot).all()
    flips = -(((whole >> np.uint64(layout.sign)) & one) ^ sign)
    assert ((mine.table ^ yours.table)[0] == table[mu[0] ^ mu[1]] ^ flips).all()


@pytest.mark.parametrize("digit_bits", [6, 7, 8])
def test_digits_over_their_whole_range(digit_bits: int, roles: Roles) -> None:
    """Every pair (digit, other half's digit) of the narrow width, every digit of the wider ones."""
    layout = Layout(bits=4 * digit_bits + 2, low=0, digits=(digit_bits,) * 4, shift=0, width=40)
    n = max(64, 1 << digit_bits)
    r, mu, s = halves(layout, n)
    r[0] = np.arange(n, dtype=np.uint64)
    for shift in (0, 1, n // 2 + 1):
        r[1] = (np.arange(n, dtype=np.uint64) * np.uint64(5) + np.uint64(shift)) & np.uint64((1 << digit_bits) - 1)
        own = [Own.of(r[k], mu[k], s[k]) for k in range(2)]
        mine, yours, _ = exchange(layout, roles, own, permuted())
        words = (mine.words ^ yours.words)[layout.places[0][2]]
        found = np.unpackbits(words.T.copy().view(np.uint8), axis=1, bitorder="little")
        assert (found.sum(1) == 1).all()
        assert (found.argmax(1) == r[0] ^ r[1]).all()


def test_messages_have_the_declared_sizes(roles: Roles) -> None:
    for layout in LAYOUTS.values():
        r, mu, s = halves(layout, 128)
        own = [Own.of(r[k], mu[k], s[k]) for k in range(2)]
        *_, sizes = exchange(layout, roles, own, permuted())
        assert sizes == [4 * 128 * layout.asked, *layout.sizes(128)]


def test_messages_and_shares_are_uniform(roles: Roles) -> None:
    """The halves that hide nothing (all zeros, all ones) give messages as uniform as any."""
    layout, n = LAYOUTS["relu"], 2048
    down, back, into, up = roles
    for fill in (0, 1):
        own = Own(np.full(n, fill * ((1 << layout.bits) - 1), np.uint64), np.full(n, fill * 127, np.uint64))
        client = ClientSigns(layout, own, into)
        server = ServerSigns(layout, own, permuted())
        moved, said = server.answer(down, client.message)
        choices = server.choose(back)
        client.take(into, moved, said)
        last = client.finish(up, choices)
        for message in (client.message, moved, said, choices, last):
            counts = np.bincount(message.view(np.uint8), minlength=256)
            expected = message.nbytes / 256
            assert ((counts - expected) ** 2 / expected).sum() < 400  # chi squared: mean 255, deviation 23
        made = server.finish(back, last)
        for held in (made, client.shares):
            for field in fields(held):
                if field.name not in ("words", "table"):
                    ones = np.bitwise_count(getattr(held, field.name) & np.uint64(0xFFFF)).mean()
                    # r, top and s have even parts of both halves' own bits: the lowest bit is theirs
                    assert abs(ones - 8) < 0.7, field.name


def test_a_fresh_piece_has_fresh_shares(roles: Roles) -> None:
    layout = LAYOUTS["relu"]
    own = [Own(np.zeros(64, np.uint64), np.zeros(64, np.uint64))] * 2
    first, _, _ = exchange(layout, roles, own, permuted())
    again, _, _ = exchange(layout, roles, own, permuted())
    assert (first.cut != again.cut).all()
    assert (first.words != again.words).mean() > 0.9
