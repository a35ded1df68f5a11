"""A protocol without secrecy for tests of the machinery: the client sends its image, the server answers with logits.

`options["misbehave"]` = {"role": "server"|"client", "phase": "setup"|"offline"|"online", "how": ...} plants a fault.
`options["delay_s"]` sleeps in the ReLUs of each online phase, `options["offline_s"]` in each offline phase.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pibench.lowering.program import Op, Program, Weights
from pibench.lowering.reference import evaluate
from pibench.mpc.protocol import Cost, Protocol
from pibench.mpc.spec import Arrangement, ProtocolSpec, Trust


class FakeProtocol(Protocol):
    """Runs the plaintext interpreter on the server."""

    name = "fake"

    def setup(self, weights: Weights | None) -> None:
        """Keep the weights."""
        assert (weights is None) == (not self.party.is_server)
        self.weights = weights
        self._misbehave("setup")

    def offline(self, inferences: int) -> None:
        """Exchange eight bytes an inference."""
        party = self.party.beside or self.party
        with party.meter.op("other", "", "material"):
            time.sleep(float(party.options.get("offline_s", 0.0)))
            party.peer.exchange(bytes(8 * inferences), bytearray(8 * inferences))
        self._misbehave("offline")

    def online(self, images: Tensor | None) -> Tensor | None:
        """Send the images one way and the logits the other."""
        self._misbehave("online")
        meter, peer = self.party.meter, self.party.peer
        shape = (self.party.batch, *self.program.input_shape)
        with meter.op("linear", "stem", "conv"):
            if images is not None:
                peer.send(images.contiguous().numpy())
            else:
                received = torch.empty(shape)
                peer.recv_into(received.numpy())
        with meter.op("relu", "S1", "relu"):
            time.sleep(float(self.party.options.get("delay_s", 0.0)))
        logits = torch.empty((self.party.batch, *self.program.output.shape))
        with meter.op("linear", "head", "fc"):
            if self.weights is not None:
                answer = evaluate(self.program, self.weights, received)
                peer.send((answer + float(self.party.options.get("error", 0.0))).numpy())
                return None
            peer.recv_into(logits.numpy())
        return logits

    def _misbehave(self, phase: str) -> None:
        fault = self.party.options.get("misbehave", {})
        mine = "server" if self.party.is_server else "client"
        if fault.get("phase") != phase or fault.get("role") != mine:
            return
        print(f"{mine} is about to {fault['how']}", flush=True)
        match fault["how"]:
            case "raise":
                raise ValueError("planted")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(7)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hang":
                time.sleep(600)


def cost(program: Program, op: Op, batch: int, options: Mapping[str, Any]) -> Cost:
    """One round there and one back."""
    if op is program.ops[0]:
        return Cost(rounds=1, client_bytes=4 * batch * torch.Size(op.shape).numel())
    if op is program.output:
        return Cost(rounds=1, server_bytes=4 * batch * torch.Size(op.shape).numel())
    return Cost()


@dataclass(frozen=True)
class Options:
    """What tests may plant."""

    misbehave: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    error: float = 0.0
    offline_s: float = 0.0
    overlap: bool = False


PROTOCOL = FakeProtocol
SPEC = ProtocolSpec(
    name="fake", module="fake_protocol", options=Options, cost="fake_protocol:cost",
    arrange=lambda options: Arrangement(trust=Trust("all shown", "nothing is secret"), beside=options.overlap),
)  # fmt: skip
