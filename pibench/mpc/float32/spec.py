"""PyTorch in float32 as the harness knows it."""

from __future__ import annotations

from pibench.mpc.plaintext.spec import SHOWN
from pibench.mpc.spec import Arrangement, ProtocolSpec

SPEC = ProtocolSpec(
    name="float32",
    module="pibench.mpc.float32.protocol",
    arrange=lambda _: Arrangement(trust=SHOWN),
    cost="pibench.mpc.float32.cost:cost",
    place=-1,
    private=False,
)
