"""Two parties of the masked protocol as threads of one process, over a socket pair that can be listened to."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor

from pibench.errors import TransportError
from pibench.links.meter import Meter, PhaseTally
from pibench.links.transport import Channel
from pibench.lowering.program import Program, Weights
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.masked.client import Client
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.protocol import MaskedProtocol
from pibench.mpc.masked.sources.dealer import Dealer, deal_orders
from pibench.mpc.masked.sources.source import Material
from pibench.mpc.protocol import CLIENT, SERVER, Party

Pair = tuple[socket.socket, socket.socket]
DEALER = 2


class Tapped(Channel):
    """A channel that remembers what its owner received."""

    def __init__(self, sock: socket.socket, meter: Meter) -> None:
        super().__init__(sock, meter, timeout_s=30.0)
        self.heard: list[bytes] = []

    def recv_into(self, into: Any) -> None:
        super().recv_into(into)
        self.heard.append(bytes(memoryview(into).cast("B")))


@dataclass
class Outcome:
    """What one run of both parties gave, by rank where there are two."""

    logits: list[Tensor] = field(default_factory=list)
    online: dict[int, list[PhaseTally]] = field(default_factory=lambda: {SERVER: [], CLIENT: []})
    setup: dict[int, PhaseTally] = field(default_factory=dict)
    offline: dict[int, PhaseTally] = field(default_factory=dict)
    heard_offline: dict[int, list[bytes]] = field(default_factory=dict)
    heard: dict[int, list[list[bytes]]] = field(default_factory=lambda: {SERVER: [], CLIENT: []})
    material: dict[int, list[Material]] = field(default_factory=lambda: {SERVER: [], CLIENT: []})
    errors: dict[int, BaseException] = field(default_factory=dict)


def run_masked(
    program: Program, weights: Weights, images: list[Tensor], protocol: type[MaskedProtocol] | None = None,
    keep: bool = False, **options: Any,
) -> Outcome:  # fmt: skip
    """Run every batch of images (the server deals unless told otherwise); raises the first party's error if any."""
    outcome = Outcome()
    protocol = protocol or MaskedProtocol  # as it is now: tests replace it
    if protocol.name == "masked":
        options = {"provider": "first-party", **options}
    dealers = [socket.socketpair() for _ in range(2)] if options.get("provider") == "dealer" else []
    threads = [
        threading.Thread(
            target=_party, args=(rank, sock, program, weights, images, options, outcome, dealers, protocol, keep)
        )
        for rank, sock in enumerate(socket.socketpair())
    ]
    if dealers:
        ends = [pair[1] for pair in dealers]
        threads.append(threading.Thread(target=_deal, args=(ends, program, options, len(images[0]), outcome)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if outcome.errors:
        # a party that stops makes its peer see a closed connection: the cause comes first
        raise min(outcome.errors.items(), key=lambda found: (isinstance(found[1], TransportError), found[0]))[1]
    return outcome


def _party(
    rank: int, sock: socket.socket, program: Program, weights: Weights, images: list[Tensor], options: dict[str, Any],
    outcome: Outcome, dealers: list[Pair], kind: type[MaskedProtocol], keep: bool,
) -> None:  # fmt: skip
    meter = Meter()
    channel = Tapped(sock, meter)
    dealer = Channel(dealers[rank][0], meter, timeout_s=30.0) if dealers else None
    try:
        party = Party(rank, channel, meter, dealer, batch=len(images[0]), options=options)
        protocol = kind(program, party)
        with meter.phase() as outcome.setup[rank]:
            protocol.setup(weights if rank == SERVER else None)
        channel.barrier()
        channel.heard = outcome.heard_offline[rank] = []
        with meter.phase() as outcome.offline[rank]:
            protocol.offline(len(images))
        for batch in images:
            channel.barrier()
            channel.heard = []
            outcome.material[rank] += protocol._material[:1] if keep else []
            with meter.phase() as tally:
                logits = protocol.online(batch if rank == CLIENT else None)
            outcome.online[rank].append(tally)
            outcome.heard[rank].append(channel.heard)
            if logits is not None:
                outcome.logits.append(logits)
    except BaseException as error:  # handed to the test's own thread
        outcome.errors[rank] = error
    finally:
        channel.close()
        if dealer is not None:
            dealer.close()


def _deal(ends: list[socket.socket], program: Program, options: dict[str, Any], batch: int, outcome: Outcome) -> None:
    """Deal to both parties until the server hangs up."""
    server, client = (Channel(sock, Meter(), timeout_s=30.0) for sock in ends)
    try:
        deal_orders(Dealer(program, options, batch, server, client), server)
    except BaseException as error:
        outcome.errors[DEALER] = error
    finally:
        server.close()
        client.close()


def assert_uniform(outcome: Outcome, rank: int, messages: int, values: tuple[int, ...] = (128, 256)) -> None:
    """Every byte of a party's first so many messages, of all runs, is like any other; of some, so many values count."""
    for k in range(messages):
        data = np.frombuffer(b"".join(heard[k] for heard in outcome.heard[rank]), np.uint8)
        count = int(data.max()) + 1  # six or seven bits a byte in some messages
        assert count in values
        assert stats.chisquare(np.bincount(data, minlength=count)).pvalue > 1e-6


def units(outcome: Outcome, plan: Plan, run: int = 0) -> np.ndarray[Any, Any]:
    """Return the logits of one run as whole units of the fraction bits, as the client has them before float32.

    The run must have kept its material.
    """
    client = Client(plan, {}, backend_for("cpu"), None, Meter())  # type: ignore[arg-type]
    part = outcome.material[CLIENT][run].parts[plan.output.name]
    return client._add(np.frombuffer(outcome.heard[CLIENT][run][-1], np.uint8), part)


def words(data: bytes, width: int) -> np.ndarray[Any, Any]:
    """Return what a message of packed ring elements holds, as unsigned numbers below 2^(8 width)."""
    from pibench.mpc.ring.packing import unpack

    values = unpack(np.frombuffer(data, np.uint8).copy(), width)
    return values & ((1 << (8 * width)) - 1) if width < 8 else values
