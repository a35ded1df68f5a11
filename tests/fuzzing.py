"""Every format that pibench reads, each with what reads it, and inputs made by damaging good ones.

Used by test_fuzz.py (hypothesis, a few inputs a format) and by ci/fuzz.py (as many as one likes). A reader may take an
input, or raise one of the project's own errors; anything else is a find, and goes into tests/corpus/<format>/.
"""

from __future__ import annotations

import functools
import importlib
import json
import random
import re
import socket
import tempfile
import time
import typing
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from pibench.errors import PibenchError, TransportError, UsageError

if typing.TYPE_CHECKING:
    from pibench.hosts.conversation import Talk

CORPUS = Path(__file__).parent / "corpus"
REPOSITORY = Path(__file__).parent.parent
SLOW_S = 5.0  # of computing, for one input: a hang, for inputs of this size
BIG_BYTES = 1 << 14  # documents above this are cut, so that many can be tried

Reader = Callable[[bytes, Path], object]


def read_card(data: bytes, folder: Path) -> object:
    from pibench.networks.card import load_card

    named = re.search(rb"^name: *([\w.-]{1,60})", data, re.MULTILINE)  # a card is called like its file
    return load_card(_write(folder / f"{named[1].decode() if named else 'card'}.yaml", data))


def read_suite(data: bytes, folder: Path) -> object:
    from pibench.suite import load_suite

    return load_suite(_write(folder / "suite.yaml", data))


def read_record(data: bytes, folder: Path) -> object:
    from pibench.records.files import parse_record

    return parse_record(data)


def read_checkpoint(data: bytes, folder: Path) -> object:
    from pibench.training.checkpoint import load_checkpoint

    return load_checkpoint(_write(folder / "checkpoint.safetensors", data))


def read_masks(data: bytes, folder: Path) -> object:
    """A checkpoint put into a network that has masks: the way that masks take."""
    from pibench.training.runs import load_into

    module = _masked_module()
    return load_into(module, _write(folder / "masks.safetensors", data))


def read_frames(data: bytes, folder: Path) -> object:
    """A conversation of another host, and the same as handshake and probe of a party."""
    from pibench.hosts.conversation import Talk
    from pibench.links import frames
    from pibench.links.probe import probe
    from pibench.session.handshake import agree, offer

    frames.decode(data) if data[:1] in b"{[" else None
    for use in (lambda c: agree(c, offer(program="x")), lambda c: probe(c, leads=False)):
        with OneSidedChannel(data) as channel:
            _tolerate(use, channel)
    left, right = socket.socketpair()
    with left, closing(Talk(right)) as talk:
        left.sendall(data[: 1 << 15])
        left.shutdown(socket.SHUT_WR)
        return list(_until_closed(talk))


def read_program(data: bytes, folder: Path) -> object:
    from pibench.lowering.program import Program

    return Program.from_json(_json(data)).sha256


def read_job(data: bytes, folder: Path) -> object:
    """A job on standard input, and the same as another host's wish."""
    from pibench.hosts.hosts import accepted
    from pibench.session.job import Job

    _tolerate(Job.from_json, data)
    values = _json(data)
    if not isinstance(values, dict):
        raise UsageError("no object")
    return accepted(values, {"kind": "tls"}, {"weights": None})


READERS: dict[str, Reader] = {
    "card": read_card, "suite": read_suite, "record": read_record, "checkpoint": read_checkpoint,
    "masks": read_masks, "frames": read_frames, "program": read_program, "job": read_job,
}  # fmt: skip


def _tolerate(use: Callable[..., object], *arguments: object) -> None:
    with suppress(PibenchError):
        use(*arguments)


def _until_closed(talk: Talk) -> Iterator[dict[str, object]]:
    """Yield what a peer says before it hangs up, which is no fault."""
    while True:
        try:
            yield from talk.messages()
        except TransportError as error:
            if "closed the connection" in error.what:
                return
            raise


class OneSidedChannel:
    """A channel whose peer says `data` and no more."""

    def __init__(self, data: bytes) -> None:
        from pibench.links.meter import Meter
        from pibench.links.transport import Channel

        self._peer, mine = socket.socketpair()
        self._peer.sendall(data[: 1 << 15])
        self._peer.shutdown(socket.SHUT_WR)
        self.channel = Channel(mine, Meter(), timeout_s=2.0)

    def __enter__(self) -> object:
        return self.channel

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self._peer.close()


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"no JSON: {error}") from error


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@functools.cache
def _masked_module() -> object:
    import torch

    activations = importlib.import_module("pibench.networks.activations")
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), activations.MaskedReLU((2, 4, 4)))


@functools.cache
def seeds(name: str) -> tuple[bytes, ...]:
    """Good and once bad inputs of a format."""
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*")) if path.is_file()]
    return (*kept, *_made(name))


def _made(name: str) -> list[bytes]:
    if name == "card":
        return [path.read_bytes() for path in sorted((REPOSITORY / "networks").glob("*.yaml"))[:12]]
    if name == "suite":
        return [path.read_bytes() for path in sorted((REPOSITORY / "suites").glob("*.yaml"))]
    if name == "checkpoint":
        from safetensors.torch import save
        from torch import ones

        return [save({"w": ones(2, 3), "mask.relu": ones(2, 2).bool()}, metadata={"pibench": '{"accuracy": 0.5}'})]
    if name == "masks":
        from safetensors.torch import save

        return [save({k: v.contiguous() for k, v in _masked_module().state_dict().items()})]  # type: ignore[attr-defined]
    return []


TOKENS = (
    b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"9" * 40, b"0x10", b"1" * 5000, b"\x00", b"\xff\xfe",
    b"[" * 200, b"{" * 200, b"- " * 100, b"&a [*a]", b"*a", b"!!python/object:os.system x", b"? ", b": ", b"\t", b"\r",
    b"\xe2\x80\xa8", b'"' , b"'", b"|\n", b">\n", b"---\n", b"...\n", b"%YAML 9\n", b"<<: ", b"2026-11-20", b"12:30:45",
    b"\xff" * 8, b"\0\0\0\x04{}{}", b"\x7f" + b"\xff" * 7, b"[]", b"{}", b'{"a":' * 50, b"../../etc/passwd",
    b"\xed\xa0\x80",
)  # fmt: skip


def damage(data: bytes, chance: random.Random) -> bytes:
    """Return the input with a few changes of the kinds that break readers."""
    out = bytearray(data[:BIG_BYTES])
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at, length = chance.randint(0, len(out)), chance.choice((1, 1, 2, 4, 8, 30, 200))
        match chance.randrange(8):
            case 0:
                del out[at : at + length]
            case 1:
                out[at:at] = chance.choice(TOKENS)
            case 2:
                out[at : at + length] = chance.choice(TOKENS)
            case 3:
                out[at:at] = out[at : at + length] * chance.choice((1, 2, 20))
            case 4 if out:
                out[at % len(out)] ^= 1 << chance.randrange(8)
            case 5:
                out[at : at + length] = chance.randbytes(length)
            case 6:
                del out[at:]
            case _:
                _swap_lines(out, chance)
    return bytes(out[: 4 * BIG_BYTES])


def _swap_lines(out: bytearray, chance: random.Random) -> None:
    lines = bytes(out).split(b"\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one][: chance.randint(0, len(lines[one]) + 1)]
    out[:] = b"\n".join(lines)


def one_input(name: str, chance: random.Random) -> bytes:
    """Return one input of a format: mostly damaged good ones, sometimes noise."""
    known = seeds(name)
    if not known or chance.random() < 0.05:
        return chance.randbytes(chance.choice((0, 1, 4, 30, 300)))
    return damage(chance.choice(known), chance)


@functools.cache
def _import_all(name: str) -> None:
    """Have a reader import what it imports, which is no input's fault."""
    with tempfile.TemporaryDirectory() as folder:
        for data in (b"", *_made(name)[:1]):
            with suppress(Exception):
                READERS[name](data, Path(folder))


class Find(Exception):
    """An input that a reader did not answer as it must."""


def try_one(name: str, data: bytes, folder: Path) -> str:
    """Read one input; returns `taken` or `refused`, raises Find for anything else."""
    _import_all(name)
    start = time.process_time()
    try:
        READERS[name](data, folder)
        how = "taken"
    except PibenchError as error:
        how = "refused"
        if not str(error).strip() or len(str(error)) > 50_000:
            raise Find(f"{name}: a message of {len(str(error))} characters") from error
    except Exception as error:
        raise Find(f"{name}: {type(error).__name__}: {str(error)[:300]}") from error
    if (took_s := time.process_time() - start) > SLOW_S:
        raise Find(f"{name}: took {took_s:.1f} s")
    return how
