"""What a link really does: round-trip time and rate each way, measured by the parties over their own connection.

The client leads: it sends commands of nine bytes, the server obeys, and both end with the same result. Nothing here is
payload, and nothing depends on a secret. Run as a module, it is the pair of processes that calibrates an emulator.
"""

from __future__ import annotations

import json
import socket
import statistics
import struct
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from pibench.errors import TransportError
from pibench.links.meter import Meter
from pibench.links.transport import Channel

COMMAND = struct.Struct("!cQ")
PING, UP, DOWN, RESULT = b"P", b"U", b"D", b"R"
MAX_BLOCK_BYTES = 1 << 28
PINGS, PING_BUDGET_S = 31, 0.6
COMPUTING_S = 0.0005  # between pings: a message of a protocol comes after computing, to a party that sleeps by then
BLOCK_S = 0.15  # a block occupies the link at least this long
FIRST_BLOCK_BYTES, LAST_BLOCK_BYTES = 1 << 18, 1 << 26
REPEATS = 2
CHUNK = memoryview(bytes(1 << 20))


@dataclass(frozen=True)
class Probe:
    """A link as measured; "up" is from the client to the server."""

    rtt_ms: float  # median
    floor_ms: float  # fastest
    up_mbit_s: float
    down_mbit_s: float

    def to_json(self) -> dict[str, float]:
        """Return plain data for the record."""
        return asdict(self)


NAMES = tuple(Probe.__dataclass_fields__)


def probe(channel: Channel, leads: bool, rates: bool = True) -> Probe:
    """Measure the link of a connection; both parties call it, the client with `leads`."""
    return _lead(channel, rates) if leads else _follow(channel)


def _lead(channel: Channel, rates: bool) -> Probe:
    pings_s = _pings_s(channel)
    rtt_s = statistics.median(pings_s)
    up, down = (_rate(channel, UP, rtt_s), _rate(channel, DOWN, rtt_s)) if rates else (0.0, 0.0)
    result = Probe(rtt_s * 1e3, min(pings_s) * 1e3, up, down)
    body = json.dumps(result.to_json()).encode()
    channel.move(COMMAND.pack(RESULT, len(body)) + body)
    return result


def _follow(channel: Channel) -> Probe:
    command = bytearray(COMMAND.size)
    while True:
        channel.move(None, command)
        kind, size = COMMAND.unpack(command)
        if size > MAX_BLOCK_BYTES:
            raise TransportError(f"the peer's probe asks for {size} bytes")
        if kind == PING:
            channel.move(b"\1")
        elif kind == UP:
            _take(channel, size)
            channel.move(b"\1")
        elif kind == DOWN:
            _give(channel, size)
        elif kind == RESULT:
            return _result(channel, size)
        else:
            raise TransportError(f"the peer's probe has an unknown command {kind!r}")


def _give(channel: Channel, size: int) -> None:
    for start in range(0, size, len(CHUNK)):
        channel.move(CHUNK[: min(len(CHUNK), size - start)])


def _take(channel: Channel, size: int) -> None:
    scratch = memoryview(bytearray(len(CHUNK)))
    for start in range(0, size, len(CHUNK)):
        channel.move(None, scratch[: min(len(CHUNK), size - start)])


def _result(channel: Channel, size: int) -> Probe:
    if size > 4096:
        raise TransportError(f"the peer's probe has a result of {size} bytes")
    body = bytearray(size)
    channel.move(None, body)
    try:
        values = json.loads(body)
        return Probe(*(float(values[name]) for name in NAMES))
    except (ValueError, TypeError, KeyError) as error:
        raise TransportError(f"the peer's probe has a malformed result: {error!r}") from error


def _pings_s(channel: Channel) -> list[float]:
    """Round trips; the first two wake everybody up and do not count."""
    samples: list[float] = []
    begun = computed = time.perf_counter()
    answer = bytearray(1)
    while len(samples) < PINGS and (len(samples) < 7 or time.perf_counter() - begun < PING_BUDGET_S):
        while time.perf_counter() < computed:
            pass
        start = time.perf_counter()
        channel.move(COMMAND.pack(PING, 0))
        channel.move(None, answer)
        samples.append(time.perf_counter() - start)
        computed = time.perf_counter() + COMPUTING_S
    return samples[2:]


def _rate(channel: Channel, direction: bytes, rtt_s: float) -> float:
    """Megabits a second of a block long enough to fill the link: what it can do, so the best of some."""
    size = FIRST_BLOCK_BYTES
    while (block_s := _block_s(channel, direction, size, rtt_s)) < max(BLOCK_S, 3 * rtt_s) and size < LAST_BLOCK_BYTES:
        size *= 2 if block_s > BLOCK_S / 4 else 4
    fastest_s = min(block_s, *(_block_s(channel, direction, size, rtt_s) for _ in range(REPEATS)))
    return size * 8e-6 / fastest_s


def _block_s(channel: Channel, direction: bytes, size: int, rtt_s: float) -> float:
    start = time.perf_counter()
    channel.move(COMMAND.pack(direction, size))
    if direction == UP:
        _give(channel, size)
        channel.move(None, bytearray(1))
    else:
        _take(channel, size)
    return max(1e-6, time.perf_counter() - start - rtt_s)


def main(argv: list[str]) -> int:
    """Calibrate: `serve HOST` prints its port and follows; `lead HOST PORT` measures the round trip and prints it."""
    sock: Any
    if argv[1] == "serve":
        with socket.create_server((argv[2], 0)) as listener:
            listener.settimeout(20)
            print(listener.getsockname()[1], flush=True)
            sock = listener.accept()[0]
        probe(Channel(sock, Meter(), 20.0), leads=False)
    else:
        sock = socket.create_connection((argv[2], int(argv[3])), timeout=20)
        print(json.dumps(probe(Channel(sock, Meter(), 20.0), leads=True, rates="rates" in argv).to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
