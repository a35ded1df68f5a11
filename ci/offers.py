"""What plans of fewer messages compute more: `OFFER_S` and `WIDE_S` of the planner, and the figures in the docs.

    python ci/offers.py

A ReLU of two messages: the steps that differ between the gadgets `relu_truth_tables.py` and `relu_two_messages.py`, of
both parties, on random words. A wide image: a convolution of three words instead of one, a multiply-accumulate of one
word. All in one thread; processor time, the least of several runs. What both read and send alike is left out.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from pibench.mpc.backends.choice import backend_for
from pibench.mpc.masked.gadgets.relu_two_messages import ENTRIES, KEY_BYTES
from pibench.mpc.masked.gadgets.wide import PRODUCT_BITS
from pibench.mpc.ring.randomness import fresh_seed

SIGN_BIT, WIDTH = 28, 6  # of four digits of 7 bits; bytes of an output
Steps = dict[str, Callable[[], Any]]


def steps(n: int) -> Steps:
    """Return both parties' differing steps for n ReLUs, by name."""
    b = backend_for("cpu")
    b.prepare()
    s = b.stream(fresh_seed())
    c, table = s.words(n) & ((4 << SIGN_BIT) - 1), s.words(n).view("uint64")
    bits, theirs = s.small(n, 127), s.small(n, 127)
    share = s.words(n), s.words(n), s.words(n), s.halves(n), s.halves(n)
    part, key, flip = s.words(n), s.bytes(KEY_BYTES), s.small(n, 1)
    pads, packed = s.bytes(ENTRIES * WIDTH * n), s.bytes(WIDTH * n)

    def client_four() -> None:
        beta = b.unpack_bits(b.pack_bits(flip), n)
        b.pack(b.select(c, beta, *share, SIGN_BIT, 0, 0) - part, WIDTH)

    def client_two() -> None:
        first = b.offer_signs(theirs, bits, c, SIGN_BIT)
        for sign, pad in zip((first, first ^ 1), b.entry_pads(key, bits, theirs), strict=True):
            b.pack(b.select(c, sign, *share, SIGN_BIT, 0, 0) - part + pad, WIDTH)

    def server_four() -> None:
        beta = b.decide(bits, theirs, table, c, SIGN_BIT)
        b.pack_bits(beta)
        y = b.select(c, beta, *share, SIGN_BIT, 0, 1)
        y += b.unpack(packed, WIDTH)

    def server_two() -> None:
        y = b.select(c, b.decide(bits, theirs, table, c, SIGN_BIT), *share, SIGN_BIT, 0, 1)
        offers = b.unpack(packed, WIDTH), b.unpack(packed, WIDTH)
        b.take_offer(bits, theirs, table, flip, pads, WIDTH, offers, y)

    return {
        "client, four": client_four, "client, two": client_two,
        "server, four": server_four, "server, two": server_two,
    }  # fmt: skip


def a_word_more_s(size: int, channels: int, repeats: int) -> float:
    """Return the seconds that a multiply-accumulate of one more word takes: 3x3, maps of size x size."""
    b, shape = backend_for("cpu"), (channels, size, size)
    s = b.stream(fresh_seed())
    weight = torch.randint(-(1 << 16), 1 << 16, (channels, channels, 3, 3), generator=torch.Generator().manual_seed(1))
    took = {}
    for words in (1, 3):
        rows, count = (words, *shape), words * channels * size * size
        multiply = b.conv(
            weight, shape, batch=words, bits=PRODUCT_BITS, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1
        )
        x, add = s.words(count).reshape(rows), s.words(count).reshape(rows)
        took[words] = least_s(functools.partial(multiply, x, add), repeats)
    return (took[3] - took[1]) / 2 / (9 * channels * channels * size * size)


def least_s(step: Callable[[], Any], repeats: int) -> float:
    """Return the least processor time of some runs."""
    step()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return min(times)


def main() -> int:
    """Print nanoseconds a ReLU, what two messages take more, and what a word more takes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--relus", type=int, default=65_536)
    parser.add_argument("--size", type=int, default=16, help="height and width of the maps of a wide image's layer")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    took = {name: 1e9 * least_s(step, args.repeats) / args.relus for name, step in steps(args.relus).items()}
    for name, ns in took.items():
        print(f"{name:12} {ns:6.1f} ns a ReLU")
    more = sum(ns if "two" in name else -ns for name, ns in took.items())
    print(f"two messages take {more:.1f} ns a ReLU more, both parties together")
    word = 1e9 * a_word_more_s(args.size, 32, args.repeats)
    print(f"a word more takes {word:.3f} ns a multiply-accumulate")
    return 0


if __name__ == "__main__":
    sys.exit(main())
