"""Framed messages for what must not be trusted: a length, then JSON, both bounded before anything is allocated.

The data path has no frames (transport.py); handshakes and the control of a remote party have.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from pibench.errors import TransportError
from pibench.links.transport import Channel

LENGTH = struct.Struct("!I")
SMALL_BYTES = 1 << 16  # a handshake
LARGE_BYTES = 1 << 24  # a job with its card and program


def encode(message: dict[str, Any], limit_bytes: int = SMALL_BYTES) -> bytes:
    """Return one message with its frame."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    if len(body) > limit_bytes:
        raise TransportError(f"a message of {len(body)} bytes does not fit a frame of {limit_bytes}")
    return LENGTH.pack(len(body)) + body


def decode(body: bytes | bytearray) -> dict[str, Any]:
    """Return the message of a frame; raises TransportError for anything but a JSON object in UTF-8."""
    try:
        message = json.loads(bytes(body).decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TransportError(f"the peer sent a frame that is no message: {error}") from error
    if not isinstance(message, dict):
        raise TransportError("the peer sent a frame that is no message: not an object")
    return message


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def send(channel: Channel, message: dict[str, Any], limit_bytes: int = SMALL_BYTES) -> None:
    """Send one message."""
    channel.move(encode(message, limit_bytes))


def receive(channel: Channel, limit_bytes: int = SMALL_BYTES) -> dict[str, Any]:
    """Receive one message; a length beyond the limit ends the connection before anything is allocated."""
    head = bytearray(LENGTH.size)
    channel.move(None, head)
    (size,) = LENGTH.unpack(head)
    if size > limit_bytes:
        raise TransportError(f"the peer announces a frame of {size} bytes, more than {limit_bytes}: this is no peer")
    body = bytearray(size)
    channel.move(None, body)
    return decode(body)
