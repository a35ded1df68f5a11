"""What a party may report: one JSON object a line on its results pipe, checked like a file before anything reads it.

A party may be a program of somebody else's (docs/engine.md) or sit on another host, so every line is held to this.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pibench.errors import PartyError

MAX_LINE_BYTES = 1 << 28  # the logits of the largest batch stay below

Event = dict[str, Any]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0, lt=1 << 62)]
Word = Annotated[str, Field(max_length=400)]
Text = Annotated[str, Field(max_length=20_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Counts(_Strict):
    time_s: Seconds
    wait_s: Seconds  # part of time_s, blocked on a peer
    sent_bytes: Number
    received_bytes: Number
    rounds: Number


class _Part(_Counts):
    kind: Word
    stage: Word
    site: Word


class _Tally(_Counts):
    parts: Annotated[list[_Part], Field(max_length=100_000)]


class Listening(_Strict):
    """Where this process waits for the others: host and port."""

    event: Literal["listening"]
    address: tuple[Word, Annotated[int, Field(gt=0, lt=65536)]]


class Phase(_Strict):
    """What it does now, for the screen and for messages of failures."""

    event: Literal["phase"]
    phase: Word
    index: Number | None = None


class Setup(_Strict):
    """What setup cost."""

    event: Literal["setup"]
    tally: _Tally


class Offline(_Strict):
    """What material for so many batches cost."""

    event: Literal["offline"]
    tally: _Tally
    batches: Number = 0
    held_bytes: Number | None = None  # of the material of one batch, where it is known


class Dealt(_Strict):
    """What the dealer's work cost."""

    event: Literal["dealt"]
    tally: _Tally | None


class Inference(_Strict):
    """What one batch cost, and the client's logits (batch, classes); what is not finite makes the case invalid."""

    event: Literal["inference"]
    index: Number
    tally: _Tally
    logits: list[list[float]] | None = None
    at_s: Seconds | None = None  # since offline work began, where it goes on beside


class Probe(_Strict):
    """What the parties measured on their own connection."""

    event: Literal["probe"]
    probe: dict[Word, float]


class Wire(_Strict):
    """What the kernel counted on the link's interface, beside the payload that the client counted."""

    event: Literal["wire"]
    interface: dict[Word, Number]
    sent_bytes: Number
    received_bytes: Number
    rounds: Number


class Failed(_Strict):
    """Why it cannot go on."""

    event: Literal["error"]
    kind: Word
    what: Text
    where: Text = ""
    remedy: Text = ""


class Done(_Strict):
    """All is served; `device`: where the tensors were, null if this party computes nothing."""

    event: Literal["done"]
    peak_rss_bytes: Number
    device: Word | None = None
    backend: Word | None = None
    peak_device_bytes: Number | None = None


_ANY: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        Listening | Phase | Setup | Offline | Dealt | Inference | Probe | Wire | Failed | Done,
        Field(discriminator="event"),
    ]
)


def read_event(line: bytes, role: str) -> Event:
    """Return a line's event; PartyError for a line that is none, naming what is wrong with it."""
    try:
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("address"), list):
            event["address"] = tuple(event["address"])
        _ANY.validate_python(event)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise PartyError(f"the {role} reported what is no event: {place or 'it'}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise PartyError(f"the {role} reported a line that is not JSON: {line[:60]!r}") from error
    return event  # type: ignore[no-any-return]
