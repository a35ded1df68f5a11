"""What a round of a protocol over gloo takes on a link: measured with gloo, before the first inference.

Round trips of one socket say too little about it. A small all-reduce is four messages one after the other, and gloo
moves each through threads of its own, which wait for one another (docs/links.md has the likely cause). On two cores
that is milliseconds a round, far more on average than the fastest round takes. So: as many bytes as the case sends in a
round, two tensors at once as CrypTen's products send them, some computing in between, and the mean.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

from pibench.links.link import LinkUp, pair_of_processes
from pibench.links.transport import listen

if TYPE_CHECKING:
    from torch import Tensor

WARMUPS, LEAST, MOST, BUDGET_S = 5, 10, 150, 3.0
COMPUTING_S = 0.002
PATIENCE_S = 30.0


def round_ms(up: LinkUp, n_bytes: int) -> float:
    """Return the mean milliseconds of a round of `n_bytes` each way, between two processes on the link."""
    found = pair_of_processes(up, "pibench.links.glooprobe", str(n_bytes))
    return float(found["round_ms"])


def measure(rank: int, n_bytes: int) -> float:
    """Return the mean seconds of a round, as this process sees it; both processes run as many."""
    import torch
    import torch.distributed as dist

    message = [torch.zeros(max(1, n_bytes // 16), dtype=torch.int64) for _ in range(2)]
    count = torch.zeros(1, dtype=torch.int64)
    first_s = [_round_s(message) for _ in range(WARMUPS)]
    if rank == 0:
        count[0] = min(MOST, max(LEAST, int(BUDGET_S / (min(first_s) + COMPUTING_S))))
    dist.all_reduce(count)
    times_s = [_round_s(message) for _ in range(int(count))]
    return sum(times_s) / len(times_s)


def _round_s(message: list[Tensor]) -> float:
    """Compute a little, then time one round."""
    import torch.distributed as dist

    until, some = time.perf_counter() + COMPUTING_S, message[0]
    while time.perf_counter() < until:
        some = some ^ (some + 1)
    start = time.perf_counter()
    for request in [dist.all_reduce(tensor, async_op=True) for tensor in message]:
        request.wait()
    return time.perf_counter() - start


def main(argv: list[str]) -> int:
    """Be one of the two: `serve HOST BYTES` prints its port; `lead HOST PORT BYTES` prints what was measured."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns of addresses without a name
    import torch
    import torch.distributed as dist

    from pibench.links import gloo

    torch.set_num_threads(1)
    serves, host = argv[1] == "serve", argv[2]
    listener = listen(host) if serves else None
    port = listener.getsockname()[1] if listener is not None else int(argv[3])
    if serves:
        print(port, flush=True)
    gloo.join(host, port, PATIENCE_S, listener)
    found_s = measure(int(not serves), int(argv[-1]))
    if not serves:
        print(json.dumps({"round_ms": found_s * 1e3}), flush=True)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may hang at an orderly exit


if __name__ == "__main__":
    main(sys.argv)
