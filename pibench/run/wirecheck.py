"""The wire checked: what the kernel counted on the client's interface, beside the payload that the parties counted.

The client's end sees everything that crosses the link, in both directions: its own messages, the server's and the
dealer's. Headers are known from the packets; what is left may be framing (TLS records, gloo's messages), not more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pibench.errors import PartyError
from pibench.records.record import Wire, WireWay

HEADER_BYTES = 60  # IPv4 and TCP with their options; a bare acknowledgement is one, too
FRAMING_SHARE = 0.01  # TLS puts 22 bytes around 16 KiB
FRAMING_ROUND_BYTES = 1000  # gloo puts some 700 around the smallest collective
START_AND_END_BYTES = 1 << 16
WAYS = ("sent", "received")


def wire_of(event: Mapping[str, Any], loss_percent: float = 0.0) -> Wire:
    """Return the record of a client's report; raises PartyError where payload and wire do not fit each other."""
    ways = {way: _way(event, way) for way in WAYS}
    for way, found in ways.items():
        if (why := _misfit(found, int(event["rounds"]), loss_percent / 100)) is not None:
            raise PartyError(
                f"the client's interface {way} {found.interface_bytes} bytes in {found.packets} packets, the payload "
                f"is {found.payload_bytes}: {why}",
                remedy="bytes are not what they seem: something else uses the link, or a kernel does not count all",
            )
    return Wire(**ways)


def _way(event: Mapping[str, Any], way: str) -> WireWay:
    interface, payload = event["interface"], int(event[f"{way}_bytes"])
    return WireWay(
        interface_bytes=interface[f"{way}_bytes"], packets=interface[f"{way}_packets"], payload_bytes=payload,
        ratio=interface[f"{way}_bytes"] / payload if payload else None,
    )  # fmt: skip


def _misfit(way: WireWay, rounds: int, loss: float) -> str | None:
    if way.interface_bytes < way.payload_bytes:
        return f"{way.payload_bytes - way.interface_bytes} bytes of payload never crossed the link"
    allowed = (FRAMING_SHARE + 3 * loss) * way.payload_bytes + FRAMING_ROUND_BYTES * rounds + START_AND_END_BYTES
    unexplained = way.interface_bytes - HEADER_BYTES * way.packets - way.payload_bytes
    return f"{unexplained} bytes are neither payload nor headers" if unexplained > allowed else None
