"""The server deals for both, as CrypTen's first party does: same work, same traffic, no privacy from the server."""

from __future__ import annotations

from collections.abc import Iterator

from pibench.errors import MaterialError
from pibench.mpc.backends.backend import Bytes, Ints
from pibench.mpc.masked.gadgets import layers_of
from pibench.mpc.masked.gadgets.product import weight_masks
from pibench.mpc.masked.sources.dealer import Dealing, DealtClient, DealtServer
from pibench.mpc.ring.randomness import SEED_BYTES


class FirstPartyServer(DealtServer):
    """A dealer at home: what it deals to the server is sent nowhere."""

    _corrections: Iterator[Bytes]

    def _share_seed(self, seed: bytes) -> dict[str, Ints]:
        self._masks = weight_masks(self.backend, layers_of(self.gadgets), seed)
        return self._masks

    def _order(self, inferences: int) -> None:
        """Nobody is asked."""

    def _next_seed(self) -> bytes:
        dealing = Dealing(self.plan, self.gadgets, self.backend, self._masks)
        self.party.peer.send(dealing.client_seed)
        self._corrections = iter(dealing)
        return dealing.server_seed

    def _correction(self, size: int) -> Bytes:
        made = next(self._corrections)
        if len(made) != size:
            raise MaterialError(f"a correction has {len(made)} bytes where the plan wants {size}")
        return made


class FirstPartyClient(DealtClient):
    """Its seeds come from the server."""

    def _next_seed(self) -> bytes:
        seed = bytearray(SEED_BYTES)
        self.party.peer.recv_into(seed)
        return bytes(seed)


SERVER, CLIENT = FirstPartyServer, FirstPartyClient
