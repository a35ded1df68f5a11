"""DELPHI (Mishra et al., USENIX Security 2020) over `masked`'s linear layers and planner: see docs/delphi.md.

The client's part of every value is fixed before the image is known; linear layers say nothing online; ReLUs are
garbled circuits made offline. Semi-honest, unaudited, for measurement.
"""

from __future__ import annotations

from typing import ClassVar

from pibench.mpc.delphi.options import DelphiOptions
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.protocol import MaskedProtocol


class DelphiProtocol(MaskedProtocol):
    """Masked linear layers without online traffic, ReLUs by half-gates."""

    name: ClassVar[str] = "delphi"
    options_class: ClassVar[type[Options]] = DelphiOptions

    def held_bytes(self) -> int | None:
        """Return nothing: circuits wait in memory or in files, and are counted nowhere yet."""
        return None


PROTOCOL = DelphiProtocol
