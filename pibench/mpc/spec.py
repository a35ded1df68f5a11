"""What everything outside a protocol knows of it: one declaration each, light enough to be read by `pibench validate`.

The declaration lies in the protocol's folder (`spec.py`, no torch). A package of somebody else's adds its own through
the entry point group `pibench.protocols`: the entry's name is the protocol's, its value `module:ATTRIBUTE` of a
`ProtocolSpec`. docs/engine.md shows one whole.
"""

from __future__ import annotations

import importlib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import Any

from pibench.errors import UsageError
from pibench.registry import OWN_SOCKETS_ONLY, nearest

GROUP = "pibench.protocols"
BUILT_IN = {
    "float32": "pibench.mpc.float32.spec:SPEC",
    "plaintext": "pibench.mpc.plaintext.spec:SPEC",
    "crypten": "pibench.mpc.crypten.spec:INLINE",
    "crypten-cached": "pibench.mpc.crypten.spec:CACHED",
    "masked": "pibench.mpc.masked.spec:SPEC",
    "delphi": "pibench.mpc.delphi.spec:SPEC",
}
SOMEWHERE = 50  # the place of a protocol that says nothing about it, or is not known here


@dataclass(frozen=True)
class Trust:
    """Whom a party must trust beside itself: a word or two for a column, and one line."""

    short: str
    line: str


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A program of its own that is a party: another interpreter, another language (docs/engine.md says what it speaks).

    It gets this process's environment without what configures Python, and `environment` on top.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """What may depend on a protocol's options: who takes part, over which wire, and whom that trusts."""

    trust: Trust
    dealer: str | None = None  # module whose `serve(job, server, client)` is a third process; None: there is none
    own_wire: bool = False  # it opens sockets of its own (gloo's), which only some links carry
    beside: bool = False  # offline work goes on beside the online phase, over a connection of its own
    alternates: bool = True  # messages go to and fro; otherwise both directions carry at once
    hops: float = 1.0  # one-way latencies that a round takes
    preload: tuple[str, ...] = ()  # beside the protocol's own

    @property
    def roles(self) -> tuple[str, ...]:
        """Return which processes a session has, in the order in which they start."""
        return ("server", "client", "dealer") if self.dealer else ("server", "client")


@dataclass(frozen=True)
class NoOptions:
    """Of a protocol that has none."""


@dataclass(frozen=True, kw_only=True)
class ProtocolSpec:
    """One protocol, as declared.

    `options` is a frozen dataclass: its fields are the options, with types and defaults; it may refuse a value in
    `__post_init__` (UsageError or ValueError). `arrange` maps an instance of it to an `Arrangement`.
    """

    name: str
    module: str = ""  # where its `PROTOCOL: type[Protocol]` lives; imported by who runs it, and by nobody else
    engine: Engine | None = None  # instead of a module: a program that is started for each role
    arrange: Callable[[Any], Arrangement]
    options: type[Any] = NoOptions
    local: tuple[str, ...] = ()  # options that name files of a host or show its secrets: no other host may set them
    devices: tuple[str, ...] = ("cpu",)
    holds: str = "pibench.mpc.protocol:held_bytes"  # module:function (whole Cost, largest, batches, options) -> bytes
    cost: str | None = None  # module:function (program, op, batch, options) -> Cost; None: it declares none
    settles: str | None = None  # module:function (program, weights, batch, options) -> options that weights settle
    by_link: str | None = None  # module:function (program, batch, options, seconds of a choice) -> options for a link
    security: str | None = None  # module:function (program, batch, options) -> lines on how much, where computed
    preload: tuple[str, ...] = ()  # modules (or module:function to call) that a party would load late
    place: int = SOMEWHERE  # in tables and plots: from the left, and which one a report is about
    private: bool = True  # whether it keeps anything secret
    between_hosts: Mapping[str, Any] = field(default_factory=dict)  # options there, where a suite says nothing

    def parse(self, options: Mapping[str, Any]) -> Any:
        """Return the options of a suite as an instance; UsageError for an unknown name or an impossible value."""
        types = typing.get_type_hints(self.options, include_extras=True)
        for name in options:
            if name not in types:
                known = f"; it has {', '.join(types)}" if types else ", nor any other"
                raise UsageError(f"{self.name} has no option '{name}'{nearest(name, types) or known}")
        problems = [why for name, value in options.items() if (why := _mistyped(value, types[name], name))]
        if problems:
            raise UsageError("; ".join(problems))
        try:
            return self.options(**options)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def arrangement(self, options: Mapping[str, Any]) -> Arrangement:
        """Return who takes part and how, with these options; UsageError for options that it has not."""
        return self.arrange(self.parse(options))

    def check(self, options: Mapping[str, Any], device: str, how: str) -> None:
        """Raise UsageError for options, a device or a way of making a link that this protocol cannot use."""
        arrangement = self.arrangement(options)
        for kind in dict.fromkeys(one.partition(":")[0] for one in device.split(",")):
            if kind not in self.devices:
                raise UsageError(f"{self.name} does not run on {kind}, only on {' and '.join(self.devices)}")
        if arrangement.own_wire and how in OWN_SOCKETS_ONLY:
            raise UsageError(f"{self.name} opens sockets of its own, which a link by '{how}' does not carry")


def _mistyped(value: Any, wanted: Any, name: str) -> str | None:
    """Say what is wrong with the type of a value, or return None; nothing is converted (`"16"` is no number)."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(wanted).validate_python(value, strict=True)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"]
        return f"option {name}: {why[:1].lower()}{why[1:]} (given: {value!r:.60})"
    return None


@lru_cache(maxsize=1)
def found() -> dict[str, str | ProtocolSpec]:
    """Return all protocols by name, each as declared or as where its declaration lies; a name of pibench's own stays.

    (Tests put further ones in.)
    """
    others = {entry.name: entry.value for entry in metadata.entry_points(group=GROUP)}
    return {**others, **BUILT_IN}


def spec_of(name: str) -> ProtocolSpec:
    """Return a protocol's declaration; UsageError for a name that nobody declares, or a package that is broken."""
    if name not in found():
        raise UsageError(f"no protocol is named '{name}'{nearest(name, found()) or '; known: ' + ', '.join(found())}")
    there = found()[name]
    if isinstance(there, str):
        there = found()[name] = _loaded(name, there)
    return there


def _loaded(name: str, where: str) -> ProtocolSpec:
    module, _, attribute = where.partition(":")
    try:
        spec = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # somebody else's code
        raise UsageError(
            f"the protocol '{name}' cannot be loaded: {type(error).__name__}: {error}", where=where,
            remedy="mend or remove the package that declares it",
        ) from error  # fmt: skip
    if not isinstance(spec, ProtocolSpec) or spec.name != name:
        raise UsageError(f"this declares no protocol '{name}'", where=where, remedy="see docs/engine.md")
    return spec


def wire_times(
    arrangement: Arrangement, rounds: int, ways: Iterable[tuple[int, float | None]], rtt_ms: float | None
) -> tuple[float, float]:
    """Return seconds of latency (rounds times hops times one way) and of transfer; `ways`: bytes and Mbit/s or None."""
    together = sum if arrangement.alternates else max
    transfer_s = together([n_bytes / (rate * 125_000) if rate else 0.0 for n_bytes, rate in ways])
    return rounds * arrangement.hops * (rtt_ms or 0.0) / 2e3, transfer_s


def order(column: str) -> tuple[bool, int, str]:
    """Return the place of a protocol among others in tables and plots, labelled ones (`name+label`) after all."""
    name, _, label = column.partition("+")
    return bool(label), spec_of(name).place if name in found() else SOMEWHERE, column


def is_private(column: str) -> bool:
    """Whether a protocol (`name` or `name+label`) keeps anything secret; one that is not known here says so."""
    name = column.partition("+")[0]
    return name not in found() or spec_of(name).private


def load(where: str) -> Any:
    """Return what `module:name` names."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
