"""How much security one inference has without a third party, computed from the parameters that it runs under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pibench.lowering.program import Program
from pibench.mpc.crypto import transfers
from pibench.mpc.crypto.rlwe.params import FAILURE_BITS, SECURITY_BITS, STANDARD_LOG_Q
from pibench.mpc.masked.gadgets import layers_of
from pibench.mpc.masked.gadgets.gadget import Gadgets
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.sources import source_class
from pibench.mpc.masked.sources.two_party import TwoParty, assumed_sizes
from pibench.mpc.masked.total_cost import planned


@dataclass(frozen=True)
class Security:
    """What holds for one inference (a batch): all bits, the larger the better, but `log_q`, which has a limit."""

    log_q: float  # of the largest modulus in use
    hiding: float  # statistical, of the weights from the client, over all coefficients that it decrypts
    weight_bits: int  # log2 of the public limit on an output's absolute weights that this is for
    decryption: float  # -log2 of the chance that any coefficient decrypts wrongly, at least
    transfers: float  # computational, with what the multi-instance bound of the hash loses

    @property
    def encryption(self) -> float:
        """Computational bits by the standard's table; 0 where the modulus is too large for it."""
        return SECURITY_BITS if self.log_q <= STANDARD_LOG_Q else 0.0

    def lines(self) -> dict[str, str]:
        """Return what a reader is told, as named lines."""
        return {
            "encryption": f"{self.encryption:.0f} bits: log2 q {self.log_q:.0f}, of {STANDARD_LOG_Q} at most",
            "weights hidden": f"{self.hiding:.1f} bits in one inference, log2 M less in M; "
            f"outputs read weights of 2^{self.weight_bits} units at most",
            "transfers": f"{self.transfers:.0f} bits",
        }


def security_of(gadgets: Gadgets) -> Security:
    """Return the security of one inference of a plan whose linear layers are encrypted."""
    sizes = assumed_sizes(gadgets, next(iter(gadgets.values())).plan.batch)
    log_q = max(parameters.log_q for parameters in sizes.parameters.values())
    return Security(log_q, sizes.hiding_bits(), sizes.limit, FAILURE_BITS, transfers.SECURITY_BITS)


def security(program: Program, batch: int, options: Mapping[str, Any], kind: type[Options] = Options) -> dict[str, str]:
    """Return what to tell of a program's security: nothing where there is a third party, or nothing to encrypt."""
    plan, gadgets = planned(program, batch, options, kind)
    if not issubclass(source_class(plan.options.provider, server=True), TwoParty) or not layers_of(gadgets):
        return {}
    return security_of(gadgets).lines()
