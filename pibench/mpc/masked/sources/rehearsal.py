"""Compile what two parties need to make material, or load it from numba's cache, before anything is measured."""

from __future__ import annotations

import functools
import socket
import threading
from typing import Any

import torch

from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.lowering.program import Conv, Input, Program, Relu
from pibench.mpc.backends.choice import prepare_host
from pibench.mpc.crypto.rlwe.params import FEWEST_PRIMES, MOST_PRIMES
from pibench.mpc.crypto.rlwe.primes import ring
from pibench.mpc.masked.gadgets import gadgets_of
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.sources.two_party import CLIENT, SERVER
from pibench.mpc.protocol import Party

_SHAPE = (1, 2, 2)


@functools.cache
def compile_exchanges() -> None:
    """Make material for one small inference, both halves in this process; raises what either of them raised."""
    prepare_host()
    for primes in range(FEWEST_PRIMES, MOST_PRIMES + 1):
        ring(primes)  # tables of constants
    ops = (
        Input(name="input", inputs=(), shape=_SHAPE),
        Conv(name="conv", inputs=("input",), shape=_SHAPE, weight="w", bias=None, kernel=(1, 1)),
        Relu(name="relu", inputs=("conv",), shape=_SHAPE),
    )
    failed: list[BaseException] = []
    threads = [
        threading.Thread(target=_rehearse, args=(rank, sock, Program(ops), failed))
        for rank, sock in enumerate(socket.socketpair())
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _rehearse(rank: int, sock: socket.socket, program: Program, failed: list[BaseException]) -> None:
    meter = Meter()
    channel = Channel(sock, meter)
    try:
        options: dict[str, Any] = {"provider": "two-party"}
        plan = plan_program(program, Options(**options))
        half = (SERVER, CLIENT)[rank](plan, gadgets_of(plan), Party(rank, channel, meter, options=options))
        half.setup({"w": torch.ones(1, 1, 1, 1)} if rank == 0 else None, None)
        list(half.make(2))  # weights are kept from their second use on
    except BaseException as error:  # handed to whoever waits for both
        failed.append(error)
    finally:
        channel.close()
