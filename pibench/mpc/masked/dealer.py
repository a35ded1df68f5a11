"""The dealer: a third process that makes correlated randomness for a program, and never sees weights or images.

It knows the public program only. Each party gets a seed; the server also gets the corrections (material.py).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.torch import load_file

from pibench.errors import TransportError
from pibench.links.meter import Meter, Tally
from pibench.links.transport import Channel
from pibench.lowering.program import Program
from pibench.mpc.masked.material import Dealing, weight_masks
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.warmup import compile_kernels
from pibench.mpc.ring.randomness import SEED_BYTES, fresh_seed

if TYPE_CHECKING:
    from pibench.session.job import Job


def serve(job: Job, server_socket: socket.socket, client_socket: socket.socket) -> dict[str, Any]:
    """Deal until the server wants no more; returns the tally of all dealing."""
    masks = {name: mask.bool() for name, mask in load_file(job.masks).items()} if job.masks else {}
    program = Program.from_json(job.program, masks)
    meter, idle = Meter(), Meter()
    total = Tally()
    server, client = (Channel(sock, meter, job.timeout_s) for sock in (server_socket, client_socket))
    orders = Channel(server_socket, idle, timeout_s=float("inf"))
    with meter.phase() as setup:
        dealer = Dealer(program, job.options, job.batch, server, client)
    total.add(setup.total)
    while wanted := _order(orders):
        with meter.phase() as tally:
            for _ in range(wanted):
                dealer.deal()
        total.add(tally.total)
    return {**vars(total), "parts": []}


def _order(orders: Channel) -> int:
    """Wait for how many inferences the server wants next; a server that has hung up wants none."""
    wanted = np.zeros(1, np.int64)
    try:
        orders.recv_into(wanted)
    except TransportError:
        return 0
    return int(wanted[0])


class Dealer:
    """Deals for one program between one pair of parties."""

    def __init__(self, program: Program, options: dict[str, Any], batch: int, server: Channel, client: Channel) -> None:
        compile_kernels()
        known = {k: v for k, v in options.items() if k in Options.__dataclass_fields__}
        self._plan = plan_program(program, Options.parse(known))
        self._batch, self._server, self._client = batch, server, client
        seed = np.empty(SEED_BYTES, np.uint8)
        server.recv_into(seed)  # the server draws it, so that material kept for its model stays good
        self._masks = weight_masks(self._plan, seed.tobytes())

    def deal(self) -> None:
        """Make and deliver the material of one batch."""
        seeds = fresh_seed(), fresh_seed(), fresh_seed()
        self._client.send(np.frombuffer(seeds[0], np.uint8))
        self._server.send(np.frombuffer(seeds[1], np.uint8))
        for correction in Dealing(self._plan, self._masks, self._batch, seeds):
            self._server.send(correction)
