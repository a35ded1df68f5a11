"""What a suite may choose of `delphi`: what `masked` has, but who deals, and who garbles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pibench.errors import UsageError
from pibench.mpc.masked.options import Options

GARBLERS = ("server", "client")


@dataclass(frozen=True)
class DelphiOptions(Options):
    """ReLUs in garbled circuits; the ring of a ReLU has 2 fraction_bits + range_bits + 1 bits."""

    provider: Literal["garbling"] = "garbling"  # type: ignore[assignment]
    relu_messages: Literal[2] = 2
    garbler: Literal["server", "client"] = "server"  # the server as in DELPHI; else circuits wait at the server
    sign_only: bool = False  # Circa: a garbled sign and a product, within one unit
    circuits_dir: str = ""  # folder where circuits wait, in files without a name; empty: they wait in memory
    dropped_bits: int = 0  # with sign_only: low bits that are not compared; small positives may become zero

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.garbler not in GARBLERS:
            raise UsageError(f"garbler is {self.garbler!r}", remedy=f"choose one of {', '.join(GARBLERS)}")
        if self.sign_only and self.garbler != "server":
            raise UsageError("with sign_only the server garbles", remedy="leave garbler out")
        most = self.fraction_bits + self.range_bits if self.sign_only else 0
        if not 0 <= self.dropped_bits <= most:
            raise UsageError(
                f"dropped_bits is {self.dropped_bits}", remedy=f"it is from 0 to {most}, and wants sign_only"
            )
        if self.keep_dir:
            raise UsageError("garbled circuits are not kept from run to run", remedy="leave keep_dir out")
        if self.check_ranges:
            raise UsageError("a garbled circuit shows no range", remedy="check ranges under masked")

    @property
    def relu(self) -> str:
        """Whole ReLUs in circuits, or signs."""
        return "sign" if self.sign_only else "halfgates"

    @property
    def relu_choices(self) -> dict[str, Any]:
        """Who garbles, or what is not compared."""
        return {"dropped": self.dropped_bits} if self.sign_only else {"garbler": self.garbler}

    def key(self) -> str:
        """Return what material depends on."""
        return f"{super().key()}/{self.relu}/{self.garbler}/{self.dropped_bits}"
