"""Where correlated randomness comes from: a source is one file, its two halves `SERVER` and `CLIENT`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pibench.errors import UsageError

if TYPE_CHECKING:
    from pibench.mpc.masked.sources.source import Source

# what a suite calls `provider` -> module, imported on use
SOURCES = {
    "dealer": "pibench.mpc.masked.sources.dealer",
    "first-party": "pibench.mpc.masked.sources.first_party",
    "garbling": "pibench.mpc.masked.sources.garbling",
    "two-party": "pibench.mpc.masked.sources.two_party",
}


def source_class(provider: str, server: bool) -> type[Source]:
    """Return one party's half of a source; raises UsageError with the list of names."""
    if provider not in SOURCES:
        raise UsageError(f"provider is {provider!r}", remedy=f"choose one of {', '.join(SOURCES)}")
    module = importlib.import_module(SOURCES[provider])
    return module.SERVER if server else module.CLIENT  # type: ignore[no-any-return]
