"""The papers' own system as the harness knows it."""

from __future__ import annotations

from dataclasses import replace

from pibench.mpc.delphi.options import DelphiOptions
from pibench.mpc.spec import Arrangement, ProtocolSpec, Trust

TWO_PARTIES = Arrangement(
    trust=Trust("none", "nobody: garbled circuits, ring-LWE and oblivious transfer between the two"),
    preload=("pibench.mpc.masked.sources.rehearsal:compile_exchanges",),
)

SIGN_ALONE = Trust(
    "none", "nobody; but signs alone tell the client each ReLU's rounding, and with dropped bits where small ones fail"
)


def _arrange(options: DelphiOptions) -> Arrangement:
    trust = SIGN_ALONE if options.sign_only else TWO_PARTIES.trust
    return replace(TWO_PARTIES, beside=options.overlap, trust=trust)


SPEC = ProtocolSpec(
    name="delphi",
    module="pibench.mpc.delphi.protocol",
    arrange=_arrange,
    options=DelphiOptions,
    local=("keep_dir", "deal_ahead", "check_ranges", "circuits_dir"),
    holds="pibench.mpc.delphi.cost:held_bytes",
    cost="pibench.mpc.delphi.cost:operation_cost",
    settles="pibench.mpc.delphi.cost:settled_options",
    security="pibench.mpc.delphi.security_bits:security",
    preload=("pibench.mpc.masked.sources.garbling", "pibench.mpc.delphi.warmup:compile_kernels"),
    place=15,
)
