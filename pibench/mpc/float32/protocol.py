"""PyTorch in float32, over the same sockets: what the network itself takes, before any ring and any secrecy.

The three steps are those of `plaintext`; the program is computed by torch's own kernels (lowering/reference.py).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pibench.lowering import reference
from pibench.lowering.program import Op, Weights
from pibench.mpc.plaintext.protocol import Plaintext


class Float32(Plaintext):
    """One side of it."""

    name: ClassVar[str] = "float32"
    word: ClassVar[torch.dtype] = torch.float32

    def _encode(self, images: Tensor) -> Tensor:
        return images.to(torch.float32)

    def _decode(self, logits: Tensor) -> Tensor:
        return logits

    def _prepare(self, weights: Weights) -> None:
        self._weights = {name: weight.to(self.party.device) for name, weight in weights.items()}

    @torch.no_grad()
    def _apply(self, op: Op, inputs: list[Tensor]) -> Tensor:
        return reference.apply(op, inputs, self._weights, self.program)


PROTOCOL = Float32
