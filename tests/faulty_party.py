"""`masked` with a party that breaks the rules offline: `options["misbehave"]` = {"role": ..., "how": ...}.

The fault is planted in that party's process alone, so that the other one meets it as it would meet a stranger's.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from pibench.lowering.program import Program
from pibench.mpc.crypto import baseot
from pibench.mpc.crypto.rlwe import linear
from pibench.mpc.crypto.rlwe.linear import LinearClient, LinearServer
from pibench.mpc.crypto.rlwe.wire import CHECK_BYTES, check_of
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.protocol import MaskedProtocol
from pibench.mpc.masked.spec import SPEC as MASKED
from pibench.mpc.protocol import Party

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class FaultyOptions(Options):
    """What tests may plant."""

    misbehave: dict[str, str] = field(default_factory=dict)


class Faulty(MaskedProtocol):
    """Plants its fault before anything is said."""

    name: ClassVar[str] = "masked"
    options_class: ClassVar[type[Options]] = FaultyOptions

    def __init__(self, program: Program, party: Party) -> None:
        fault = party.options.get("misbehave", {})
        if fault.get("role") == ("server" if party.is_server else "client"):
            self._plant(fault["how"], party)
        super().__init__(program, party)

    def _plant(self, how: str, party: Party) -> None:
        match how:
            case "old version":
                linear.VERSION = 0
            case "unknown class":
                linear.weight_class = lambda *_: 23
            case "low order":
                _patch(baseot.BaseReceiver, "__init__", _offer_zeros)
            case _:
                owner, name = (LinearServer, "answer") if party.is_server else (LinearClient, "request")
                _patch(owner, name, _changed(how, party))


def _patch(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    setattr(owner, name, wrap(getattr(owner, name)))


def _offer_zeros(plain: Any) -> Any:
    def init(self: Any, *args: Any) -> None:
        plain(self, *args)
        self.offer = bytes(len(self.offer))

    return init


def _changed(how: str, party: Party) -> Callable[[Any], Any]:
    """Return what wraps the function that makes a message with ciphertexts."""

    def wrap(plain: Any) -> Any:
        def made(self: Any, *args: Any) -> Any:
            result = plain(self, *args)
            if party.is_server:
                return _tampered(how, result[0], party), result[1]
            return _tampered(how, result, party)

        return made

    return wrap


def _tampered(how: str, message: Bytes, party: Party) -> Bytes:
    match how:
        case "flip":
            message = message.copy()
            message[len(message) // 2] ^= 4
        case "forge":  # the check is right: it is no authentication
            data = message[:-CHECK_BYTES].copy()
            data[32:] = 255
            message = np.concatenate([data, check_of(data)])
        case "short":
            message = message[:-100]
        case "long":
            message = np.concatenate([message, message[:64]])
        case "close":
            party.peer.close()
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
    return message


PROTOCOL = Faulty
SPEC = replace(
    MASKED, name="faulty", module="faulty_party", options=FaultyOptions, cost=None, settles=None, security=None
)
