"""What two parties agree on before anything depends on a secret: versions, the program, and how it is run.

Both send the same kind of message and compare; whoever finds a difference names it, and both stop. Who the peer is was
proven before (connect.py on one host, tls.py between two); fresh nonces there mean that no old conversation fits here.
"""

from __future__ import annotations

import platform
from typing import Any

from pibench import __version__
from pibench.errors import TransportError
from pibench.links import frames
from pibench.links.transport import Channel

WIRE_VERSION = 2  # of everything that the parties say to each other
MUST_AGREE = {
    "wire": "the wire format",
    "pibench": "the version of pibench",
    "protocol": "the protocol",
    "program": "the program (network, reductions, masks)",
    "options": "the protocol's options",
    "batch": "the batch",
    "batches": "the number of inferences",
    "offline_chunk": "the offline chunk",
}


def offer(**terms: Any) -> dict[str, Any]:
    """Return what this party would run: its versions and the terms of the session."""
    return {"wire": WIRE_VERSION, "pibench": __version__, "python": platform.python_version(), **terms}


def agree(channel: Channel, mine: dict[str, Any]) -> dict[str, Any]:
    """Exchange offers and return the peer's; raises TransportError if they differ where they must not."""
    frames.send(channel, mine)
    theirs = frames.receive(channel)
    if differing := [label for key, label in MUST_AGREE.items() if mine.get(key) != theirs.get(key)]:
        details = "; ".join(
            f"{key}: {_short(mine.get(key))} here, {_short(theirs.get(key))} there" for key in _keys(mine, theirs)
        )
        raise TransportError(
            f"the parties disagree on {', '.join(differing)} ({details})",
            remedy="run the same version of pibench with the same card and suite on both hosts",
        )
    return theirs


def _keys(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    return [key for key in MUST_AGREE if mine.get(key) != theirs.get(key)]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
