"""What a suite may choose of `delphi`: what `masked` has, but who deals, and who garbles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pibench.errors import UsageError
from pibench.mpc.masked.options import Options

GARBLERS = ("server", "client")


@dataclass(frozen=True)
class DelphiOptions(Options):
    """ReLUs in garbled circuits; the ring of a ReLU has 2 fraction_bits + range_bits + 1 bits."""

    relu = "halfgates"
    provider: Literal["garbling"] = "garbling"  # type: ignore[assignment]
    garbler: Literal["server", "client"] = "server"  # the server as in DELPHI; else circuits wait at the server

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.garbler not in GARBLERS:
            raise UsageError(f"garbler is {self.garbler!r}", remedy=f"choose one of {', '.join(GARBLERS)}")
        if self.keep_dir:
            raise UsageError("garbled circuits are not kept from run to run", remedy="leave keep_dir out")
        if self.check_ranges:
            raise UsageError("a garbled circuit shows no range", remedy="check ranges under masked")

    @property
    def relu_choices(self) -> dict[str, str]:
        """Who garbles."""
        return {"garbler": self.garbler}

    def key(self) -> str:
        """Return what material depends on."""
        return f"{super().key()}/{self.relu}/{self.garbler}"
