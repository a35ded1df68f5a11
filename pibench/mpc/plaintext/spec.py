"""The null protocol as the harness knows it."""

from __future__ import annotations

from pibench.mpc.spec import Arrangement, ProtocolSpec, Trust

SHOWN = Trust("all shown", "nothing is secret: the server sees images and logits")

SPEC = ProtocolSpec(
    name="plaintext",
    module="pibench.mpc.plaintext.protocol",
    devices=("cpu", "cuda"),
    arrange=lambda _: Arrangement(trust=SHOWN),
    cost="pibench.mpc.plaintext.cost:cost",
    place=0,
    private=False,
)
