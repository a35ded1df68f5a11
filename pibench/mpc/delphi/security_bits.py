"""How much security one inference has, as `masked` computes it: circuits' hashes lose what transfers' do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pibench.lowering.program import Program
from pibench.mpc.delphi.options import DelphiOptions
from pibench.mpc.masked import security_bits as masked


def security(program: Program, batch: int, options: Mapping[str, Any]) -> dict[str, str]:
    """Return what to tell of a program's security."""
    return masked.security(program, batch, options, DelphiOptions)
