"""The null protocol: same ring, same sockets, no secrecy. What it costs is the harness's own floor.

1. The client sends its encoded image in the clear.
2. The server computes the program in the ring.
3. The server sends the logits, which the client decodes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pibench.errors import UsageError
from pibench.lowering.program import Input, Op, Program, Weights
from pibench.mpc.plaintext import kernels
from pibench.mpc.plaintext.spec import SPEC, Options
from pibench.mpc.protocol import Party, Protocol
from pibench.mpc.ring.fixedpoint import decode, encode


class Plaintext(Protocol):
    """One side of the null protocol."""

    name: ClassVar[str] = "plaintext"
    word: ClassVar[torch.dtype] = torch.int64  # what is sent and computed with

    def __init__(self, program: Program, party: Party) -> None:
        super().__init__(program, party)
        self._weights: Weights = {}
        self._products: dict[str, kernels.Product] = {}
        self._device: str | None = None
        self._last_reader = {name: op.name for op in program for name in op.inputs}
        self._last_reader.pop(program.output.name, None)

    def setup(self, weights: Weights | None) -> None:
        """Encode the weights, on the server; nothing is exchanged."""
        if weights is not None:
            self._prepare(weights)
            zeros = torch.zeros(self.party.batch, *self.program.input_shape, dtype=self.word)
            self._compute(zeros.to(self.party.device))  # compiles

    def offline(self, inferences: int) -> None:
        """Do nothing: there is no correlated randomness."""

    def online(self, images: Tensor | None) -> Tensor | None:
        """Run the three steps above, each party its own half."""
        if self.party.is_server:
            self._serve()
            return None
        return self._ask(images)

    def _ask(self, images: Tensor | None) -> Tensor:
        if images is None or tuple(images.shape) != (self.party.batch, *self.program.input_shape):
            shape = None if images is None else tuple(images.shape)
            raise UsageError(f"images have shape {shape}, not {(self.party.batch, *self.program.input_shape)}")
        with self.party.meter.op("other", "", "input"):
            self.party.peer.send(self._encode(images).contiguous().numpy())  # 1
        with self.party.meter.op("other", "", "output"):
            logits = torch.empty(self.party.batch, *self.program.output.shape, dtype=self.word)
            self.party.peer.recv_into(logits.numpy())  # 3
            return self._decode(logits)

    def _serve(self) -> None:
        image = torch.empty(self.party.batch, *self.program.input_shape, dtype=self.word)
        with self.party.meter.op("other", "", "input"):
            self.party.peer.recv_into(image.numpy())  # 1
        logits = self._compute(image.to(self.party.device))  # 2
        with self.party.meter.op("other", "", "output"):
            self.party.peer.send(logits.to("cpu").contiguous().numpy())  # 3

    def _compute(self, image: Tensor) -> Tensor:
        values: dict[str, Tensor] = {}
        for op in self.program:
            with self.party.meter.op(op.kind, op.stage, op.site):
                inputs = [values[name] for name in op.inputs]
                is_input = isinstance(op, Input)
                values[op.name] = image if is_input else self._apply(op, inputs)
                for name in {name for name in op.inputs if self._last_reader.get(name) == op.name}:
                    del values[name]  # what comes next then lies in memory that is at hand
        self._device = str(values[self.program.output.name].device)
        return values[self.program.output.name]

    def _encode(self, images: Tensor) -> Tensor:
        return encode(images)

    def _decode(self, logits: Tensor) -> Tensor:
        return decode(logits)

    def _prepare(self, weights: Weights) -> None:
        self._weights = kernels.encode_weights(self.program, weights)
        device = self.party.device
        options: Options = SPEC.parse(self.party.options)
        self._products = kernels.prepare_products(
            self.program, self._weights, device, self.party.batch, options.range_bits
        )
        self._weights = {name: weight.to(device) for name, weight in self._weights.items()}

    def _apply(self, op: Op, inputs: list[Tensor]) -> Tensor:
        return kernels.apply(op, inputs, self._weights, self.program, self._products)

    def device(self) -> str | None:
        """Return where the server's last logits were made; the client computes nothing."""
        return self._device


PROTOCOL = Plaintext
