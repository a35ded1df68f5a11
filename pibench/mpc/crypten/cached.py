"""Stock CrypTen with its tuples made before: requests traced once in setup, filled in offline, consumed online.

This is CrypTen's own tuple cache. An inference on zeros in setup (through the whole protocol, over the wire) records
which tuples one batch asks for; `offline(n)` makes them n times.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pibench.errors import MaterialError
from pibench.lowering.program import Weights
from pibench.mpc.crypten.protocol import CrypTen
from pibench.mpc.protocol import Protocol


class CrypTenCached(CrypTen):
    """One side of stock CrypTen, tuples from its cache."""

    name: ClassVar[str] = "crypten-cached"

    def setup(self, weights: Weights | None) -> None:
        """Do what CrypTen does, then trace one inference."""
        super().setup(weights)
        from pibench.mpc.crypten.kernels import provider

        self._provider: Any = provider()
        self._made = 0
        self._provider.request_cache = []
        self._provider.tuple_cache = {}
        self._provider.trace(True)
        shape = (self.party.batch, *self.program.input_shape)
        self._run(None if self.party.is_server else torch.zeros(shape))
        self._provider.trace(False)

    def offline(self, inferences: int) -> None:
        """Make the traced tuples for this many batches; rank 0 makes them for both, so nothing is sent."""
        for _ in range(inferences):
            self._provider.fill_cache()
        self._made += inferences

    def online(self, images: Tensor | None) -> Tensor | None:
        """Run one batch on cached tuples; raises MaterialError where none are left (CrypTen's own cache would fail)."""
        if self._made == 0:
            raise MaterialError("no tuples are left for another inference", remedy="make more offline")
        logits = super().online(images)
        self._made -= 1
        return logits

    def close(self) -> None:
        """Drop the cache, which belongs to the process, and leave."""
        if self._communicator is not None:
            self._provider.request_cache, self._provider.tuple_cache = [], {}
        super().close()


PROTOCOL: type[Protocol] = CrypTenCached
