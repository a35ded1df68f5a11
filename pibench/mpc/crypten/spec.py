"""Stock CrypTen as the harness knows it, with its tuples made inline or before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pibench.mpc.spec import Arrangement, ProtocolSpec, Trust

GLOO_HOPS = 4.0  # one ways a collective of gloo takes: two steps, each a word that the receiver is ready, and the data
FIRST_PARTY = Trust(
    "first party",
    "the server makes both parties' randomness (TFP) and could read the image with it; "
    "local truncation tells the client part of every rounding",
)


@dataclass(frozen=True)
class Options:
    """What a suite may choose."""

    wire: Literal["gloo", "channel"] = "gloo"  # CrypTen's own, or pibench's: one hop an exchange


def _arrange(options: Options) -> Arrangement:
    gloo = options.wire == "gloo"
    return Arrangement(trust=FIRST_PARTY, own_wire=gloo, alternates=False, hops=GLOO_HOPS if gloo else 1.0)


INLINE = ProtocolSpec(
    name="crypten",
    module="pibench.mpc.crypten.protocol",
    devices=("cpu", "cuda"),
    arrange=_arrange,
    options=Options,
    cost="pibench.mpc.crypten.cost:cost",
    holds="pibench.mpc.crypten.cost:held_bytes",
    preload=("pibench.mpc.crypten.kernels", "pibench.mpc.crypten.communicator"),
    place=70,
)
CACHED = ProtocolSpec(
    name="crypten-cached",
    module="pibench.mpc.crypten.cached",
    devices=("cpu", "cuda"),
    arrange=_arrange,
    options=Options,
    cost=INLINE.cost,
    holds="pibench.mpc.crypten.cost:held_bytes_cached",
    preload=INLINE.preload,
    place=60,
)
