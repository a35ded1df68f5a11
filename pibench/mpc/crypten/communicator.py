"""CrypTen's communicator, counted where the buffer leaves: stock gloo, or our own channel for one wire under all.

Payload of this party for each collective, one round each: an all-reduce of n bytes sends n and receives n, a reduce or
gather sends n where the result is not, a broadcast sends n where the value is. What gloo puts around it (headers, the
second hop of its all-reduce) is the interface counter's matter. The whole time inside a gloo call counts as waiting.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pibench.errors import TransportError
from pibench.links import gloo
from pibench.links.meter import Meter
from pibench.links.transport import Channel, listen
from pibench.mpc.crypten.compat import crypten
from pibench.mpc.crypten.cuda import by_host
from pibench.mpc.protocol import Party

_CRYPTEN = crypten()
Tensors = Tensor | list[Tensor]


def n_bytes(tensors: Tensors) -> int:
    """Return the payload of one tensor or of a batch of them."""
    batch = tensors if isinstance(tensors, list) else [tensors]
    return sum(t.numel() * t.element_size() for t in batch)


class MeteredGloo(_CRYPTEN.communicator.DistributedCommunicator):  # type: ignore[misc, name-defined]
    """CrypTen's own communicator over gloo, reporting to a meter; one group for all, with a deadline."""

    def __init__(self, party: Party, rendezvous: str, timeout_s: float) -> None:
        self.world_size, self.rank, self._name = 2, party.rank, f"rank{party.rank}"
        self.main_group = self.ttp_group = None  # the default group
        self.ttp_initialized = False
        self._meter, self._peer = party.meter, 1 - party.rank
        self.reset_communication_stats()
        host, _, port = rendezvous.rpartition(":")
        try:
            gloo.join(host, int(port), timeout_s, listen(host, int(port)) if party.is_server else None)
        except (RuntimeError, ValueError) as error:
            raise TransportError(
                f"no gloo process group at {rendezvous}: {_first_line(error)}",
                remedy="is the port free, and can both parties reach it?",
            ) from error

    @contextmanager
    def _counted(self, sent: int, received: int, rounds: int = 1) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        except RuntimeError as error:  # not passed on as it is: CrypTen would take it for a lack of memory and retry
            raise TransportError(f"the gloo connection broke: {_first_line(error)}") from error
        self._meter.waited(time.perf_counter() - start)
        self._meter.sent(sent)
        self._meter.received(received)
        self._meter.round(rounds)

    @by_host
    def send(self, tensor: Tensor, dst: int) -> None:
        """Send to the peer."""
        with self._counted(n_bytes(tensor), 0):
            super().send(tensor, dst)

    @by_host
    def recv(self, tensor: Tensor, src: int | None = None) -> Tensor:
        """Receive from the peer."""
        with self._counted(0, n_bytes(tensor)):
            return super().recv(tensor, src)  # type: ignore[no-any-return]

    def isend(self, tensor: Tensor, dst: int) -> Any:
        """Send in the background (CrypTen exchanges its seeds so); the round is the receiver's."""
        with self._counted(n_bytes(tensor), 0, rounds=0):
            return super().isend(tensor, dst)

    def irecv(self, tensor: Tensor, src: int | None = None) -> Any:
        """Receive in the background."""
        with self._counted(0, n_bytes(tensor)):
            return super().irecv(tensor, src)

    def scatter(self, scatter_list: Any, src: int, size: Any = None, device: Any = None) -> Tensor:
        """Hand each party its tensor of a list."""
        sends = self.rank == src
        n = n_bytes(scatter_list[self._peer]) if sends else 8 * torch.Size(size).numel()
        with self._counted(n * sends, n * (not sends)):
            return super().scatter(scatter_list, src, size=size, device=device)  # type: ignore[no-any-return]

    @by_host
    def reduce(self, input: Tensors, dst: int, op: Any = dist.ReduceOp.SUM, batched: bool = False) -> Any:
        """Combine at one party."""
        n, there = n_bytes(input), self.rank == dst
        with self._counted(n * (not there), n * there):
            return super().reduce(input, dst, op=op, batched=batched)

    @by_host
    def all_reduce(self, input: Tensors, op: Any = dist.ReduceOp.SUM, batched: bool = False) -> Any:
        """Combine at both parties."""
        n = n_bytes(input)
        with self._counted(n, n):
            return super().all_reduce(input, op=op, batched=batched)

    @by_host
    def gather(self, tensor: Tensor, dst: int) -> Any:
        """Collect at one party."""
        n, there = n_bytes(tensor), self.rank == dst
        with self._counted(n * (not there), n * there):
            return super().gather(tensor, dst)

    @by_host
    def all_gather(self, tensor: Tensor) -> Any:
        """Collect at both parties."""
        n = n_bytes(tensor)
        with self._counted(n, n):
            return super().all_gather(tensor)

    @by_host
    def broadcast(self, input: Tensors, src: int, group: Any = None, batched: bool = False) -> Any:
        """Copy one party's value to the other."""
        n, here = n_bytes(input), self.rank == src
        with self._counted(n * here, n * (not here)):
            return super().broadcast(input, src, group=group, batched=batched)

    def close(self) -> None:
        """Leave the process group."""
        if dist.is_initialized():
            dist.destroy_process_group()


class OverChannel(_CRYPTEN.communicator.Communicator):  # type: ignore[misc, name-defined]
    """CrypTen's communicator over our own connection: an all-reduce is one exchange, a single hop."""

    def __init__(self, party: Party) -> None:
        self.rank, self._name = party.rank, f"rank{party.rank}"
        self._channel: Channel = party.peer  # it counts
        self._meter: Meter = party.meter
        self.reset_communication_stats()

    def get_rank(self) -> int:
        """Return this party's rank."""
        return self.rank

    def get_world_size(self) -> int:
        """Two parties."""
        return 2

    @by_host
    def send(self, tensor: Tensor, dst: int) -> None:
        """Send to the peer."""
        self._channel.send(_buffer([tensor]).numpy())

    @by_host
    def recv(self, tensor: Tensor, src: int | None = None) -> Tensor:
        """Receive from the peer."""
        into = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        self._channel.recv_into(into.numpy())
        return into

    def isend(self, tensor: Tensor, dst: int) -> _Done:
        """Send at once: small values only pass here, and sockets hold them."""
        self.send(tensor, dst)
        return _Done()

    def irecv(self, tensor: Tensor, src: int | None = None) -> _Done:
        """Receive at once, into the tensor given."""
        tensor.copy_(self.recv(tensor, src))
        return _Done()

    @by_host
    def all_reduce(self, input: Tensors, op: Any = dist.ReduceOp.SUM, batched: bool = False) -> Any:
        """Exchange and combine; a batch of tensors is one message."""
        tensors = input if isinstance(input, list) else [input]
        mine = _buffer(tensors)
        theirs = torch.empty_like(mine)
        self._channel.exchange(mine.numpy(), theirs.numpy())
        total = _combine(mine, theirs, op)
        parts = torch.split(total, [t.numel() for t in tensors])
        result = [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
        return result if isinstance(input, list) else result[0]

    @by_host
    def reduce(self, input: Tensors, dst: int, op: Any = dist.ReduceOp.SUM, batched: bool = False) -> Any:
        """Combine at one party."""
        if isinstance(input, list):
            results = [self.reduce(t, dst, op) for t in input]
            return results if self.rank == dst else None
        if self.rank != dst:
            self.send(input, dst)
            return None
        return _combine(self.recv(input), input, op)

    @by_host
    def broadcast(self, input: Tensors, src: int, group: Any = None, batched: bool = False) -> Any:
        """Copy one party's value into the other's tensor."""
        for tensor in input if isinstance(input, list) else [input]:
            if self.rank == src:
                self.send(tensor, 1 - src)
            else:
                tensor.copy_(self.recv(tensor, src))
        return input

    @by_host
    def gather(self, tensor: Tensor, dst: int) -> list[Any]:
        """Collect at one party."""
        if self.rank != dst:
            self.send(tensor, dst)
            return [None]
        pair = [tensor, self.recv(tensor)]
        return pair if dst == 0 else pair[::-1]

    @by_host
    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Collect at both parties."""
        theirs = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        self._channel.exchange(_buffer([tensor]).numpy(), theirs.numpy())
        return [tensor, theirs] if self.rank == 0 else [theirs, tensor]

    def barrier(self) -> None:
        """Meet the peer."""
        self._channel.barrier()

    def close(self) -> None:
        """Leave the channel to its owner."""


class _Done:
    """A request that is already complete."""

    def wait(self) -> None:
        """Return at once."""


def start(party: Party, wire: str, rendezvous: str, timeout_s: float) -> MeteredGloo | OverChannel:
    """Connect, make this CrypTen's communicator, and let CrypTen exchange its seeds."""
    communicator = MeteredGloo(party, rendezvous, timeout_s) if wire == "gloo" else OverChannel(party)
    # CrypTen asks its module for the communicator at every call: these two names are its only door.
    _CRYPTEN.communicator.get = lambda: communicator
    _CRYPTEN.communicator.is_initialized = lambda: True
    _CRYPTEN._setup_prng()
    return communicator


def _buffer(tensors: list[Tensor]) -> Tensor:
    """Return the tensors one after the other in one contiguous buffer."""
    return tensors[0].contiguous().view(-1) if len(tensors) == 1 else torch.cat([t.reshape(-1) for t in tensors])


def _combine(a: Tensor, b: Tensor, op: Any) -> Tensor:
    if op == dist.ReduceOp.SUM:
        return a + b
    if op == dist.ReduceOp.BXOR:
        return a ^ b
    raise TransportError(f"CrypTen asked for {op}, which two parties here never reduce by")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
