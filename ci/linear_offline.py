"""What a network's linear layers cost offline without a dealer: both parties in this process, one thread a party.

    python ci/linear_offline.py resnet18-c100 drd-c100-12k --fraction-bits 16

Weights are random, of the size that training starts from; every share is checked against the product of integers where
`--check` is given. Seconds are processor time of each party's work, so other load disturbs them less than a clock.
"""

from __future__ import annotations

import argparse
import resource
import socket
import threading
import time
from typing import Any

import numpy as np
import torch

from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.lowering.lower import lower
from pibench.lowering.merge import merge
from pibench.mpc.crypto.rlwe.layer import Layer
from pibench.mpc.crypto.rlwe.linear import KEPT_BYTES, LinearClient, LinearServer
from pibench.mpc.masked.gadgets.product import Product
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.planner import plan_program
from pibench.networks.build import build, stage_of
from pibench.networks.card import load_card


def layers_of(name: str, options: Options) -> list[Layer]:
    """Return the linear layers of a card as the masked protocol plans them."""
    card = load_card(name)
    program, weights = lower(build(card.network), card.network.input_shape, stage_of)
    plan = plan_program(merge(program, weights)[0], options, 1)
    return [
        Layer.of(step.out, step.layer, plan.values[step.inputs[0]].shape, plan.values[step.out].bits)
        for step in plan.steps
        if isinstance(step, Product)
    ]


def _weights(layer: Layer, fraction_bits: int, rng: np.random.Generator) -> np.ndarray:
    reads = np.prod(layer.weight_shape[1:])
    return np.rint(rng.normal(0, (2 / reads) ** 0.5, layer.weight_shape) * 2**fraction_bits).astype(np.int64)


def measure(name: str, fraction_bits: int, check: bool, kept_bytes: int) -> None:
    """Print one network's line."""
    layers, rng = layers_of(name, Options(fraction_bits=fraction_bits)), np.random.default_rng(0)
    weights = {layer.name: _weights(layer, fraction_bits, rng) for layer in layers}
    parts = {x.name: rng.integers(-(2**63), 2**63 - 1, (1, x.channels, *x.size)) for x in layers}
    meters = Meter(), Meter()
    left, right = (Channel(end, meter) for end, meter in zip(socket.socketpair(), meters, strict=True))
    server, client = LinearServer(layers, weights, 1, kept_bytes=kept_bytes), LinearClient(layers, 1)
    spent: dict[str, list[float]] = {"server": [], "client": []}

    def timed(side: str, act: Any) -> Any:
        start = time.thread_time()
        made = act()
        spent[side].append(time.thread_time() - start)
        return made

    made: dict[str, Any] = {}

    def serve() -> None:
        timed("server", lambda: server.setup(left))
        for _ in range(3):
            made["k0"] = timed("server", lambda: server.correlate(left))

    thread = threading.Thread(target=serve)
    thread.start()
    timed("client", lambda: client.setup(right))
    wall = []
    for _ in range(3):
        start = time.perf_counter()
        made["k1"] = timed("client", lambda: client.correlate(right, parts))
        wall.append(time.perf_counter() - start)
    thread.join()
    if check:
        _check(layers, weights, parts, made)
    sizes = client.exchange
    up, down = (sum(size(x.name) for x in layers) / 1e6 for size in (sizes.request_bytes, sizes.answer_bytes))
    cold, s, c = spent["server"][1], min(spent["server"][1:]), min(spent["client"][1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{name}: {len(layers)} layers, bits {sorted({x.bits for x in layers})}; server {cold:.3f} s, then "
        f"{s:.3f} s, client {c:.3f} s, "
        f"sum {s + c:.3f} s, clock {min(wall):.3f} s; up {up:.1f} MB, down {down:.1f} MB; setup server "
        f"{spent['server'][0]:.2f} s, client {spent['client'][0]:.2f} s; peak of both {peak:.2f} GiB",
        flush=True,
    )


def _check(layers: list[Layer], weights: dict[str, Any], parts: dict[str, Any], made: dict[str, Any]) -> None:
    from pibench.mpc.ring.words import conv_words

    for x in layers:
        part, weight = torch.from_numpy(parts[x.name]), torch.from_numpy(weights[x.name])
        want = conv_words(part, weight, x.stride, x.padding, x.dilation, x.groups).numpy()
        off = (made["k0"][x.name] + made["k1"][x.name] - want).view(np.uint64) << np.uint64(64 - x.bits)
        assert not off.any(), x


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", nargs="+")
    parser.add_argument("--fraction-bits", type=int, default=16)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--kept-mib", type=int, default=KEPT_BYTES >> 20, help="memory for transformed weights")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for card in asked.cards:
        measure(card, asked.fraction_bits, asked.check, asked.kept_mib << 20)
