"""The fast protocol as the harness knows it."""

from __future__ import annotations

from dataclasses import replace

from pibench.mpc.masked.options import Options
from pibench.mpc.spec import Arrangement, ProtocolSpec, Trust

DEALER = Trust(
    "dealer",
    "a dealer who colludes with neither: with the client it knows the weights, with the server the image; "
    "free truncations (linear layers in a row) tell the client part of their rounding",
)
# by who makes the correlated randomness: one line a source (pibench.mpc.masked.sources)
BY_PROVIDER = {
    "dealer": Arrangement(trust=DEALER, dealer="pibench.mpc.masked.sources.dealer"),
    "first-party": Arrangement(
        trust=Trust("first party", "the server deals, and could read the image with what it dealt")
    ),
    "two-party": Arrangement(
        trust=Trust("none", "nobody: both make the randomness together, by ring-LWE and oblivious transfer"),
        preload=("pibench.mpc.masked.sources.rehearsal:compile_exchanges",),
    ),
}

SPEC = ProtocolSpec(
    name="masked",
    module="pibench.mpc.masked.protocol",
    devices=("cpu", "cuda"),
    arrange=lambda options: replace(BY_PROVIDER[options.provider], beside=options.overlap),
    options=Options,
    local=("keep_dir", "deal_ahead", "check_ranges"),
    cost="pibench.mpc.masked.total_cost:operation_cost",
    settles="pibench.mpc.masked.total_cost:settled_options",
    by_link="pibench.mpc.masked.total_cost:options_by_link",
    security="pibench.mpc.masked.security_bits:security",
    preload=(
        "pibench.mpc.masked.sources.dealer",
        "pibench.mpc.masked.sources.first_party",
        "pibench.mpc.backends.choice:prepare_host",
    ),
    place=10,
    between_hosts={"provider": "two-party"},  # no third host is asked for
)
