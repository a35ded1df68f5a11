"""What another host may ask for: every number bounded, before anything is prepared or started for it."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pibench.errors import UsageError

MOST_IMAGES = 100_000
LONGEST_CARD = 1 << 16
LONGEST_NAME = 256
MOST_SCALARS = 1 << 26  # of a mask
Model = TypeVar("Model", bound=BaseModel)


class Wanted(BaseModel):
    """The network: a card's text or a module's name, how much of its data, the hash of the program that it must become.

    Neither is taken at its word: a host compares it with what it lends, and reads, imports and calls nothing of it.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    card: Annotated[str, Field(max_length=LONGEST_CARD)] = ""
    model: Annotated[str, Field(max_length=LONGEST_NAME)] = ""
    images: Annotated[int, Field(ge=1, le=MOST_IMAGES)]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    merge: bool
    program: Annotated[str, Field(max_length=128)]

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.card) == bool(self.model):
            raise ValueError("a card or a module, one of them")
        return self


class PackedMask(BaseModel):
    """A public mask of a program: its shape, and its bits, eight a byte, in base64."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    shape: Annotated[list[Annotated[int, Field(ge=1, le=MOST_SCALARS)]], Field(max_length=8)]
    bits: Annotated[str, Field(max_length=MOST_SCALARS // 6)]


class Structure(BaseModel):
    """What a dealer is told of a network: operations, shapes, masks; no weight and no image."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    program: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)]
    masks: Annotated[dict[str, PackedMask], Field(max_length=10_000)]


class _Numbers(BaseModel):
    """The numbers of a job; the rest of it is checked elsewhere."""

    model_config = ConfigDict(strict=True, extra="ignore")
    batch: Annotated[int, Field(ge=1, le=4096)] = 1
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    warmups: Annotated[int, Field(ge=0, le=1000)] = 1
    inferences: Annotated[int, Field(ge=1, le=100_000)] = 1
    offline_chunk: Annotated[int, Field(ge=1, le=100_000)] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 60.0
    device: Annotated[str, Field(max_length=40)] = "cpu"
    token: Annotated[str, Field(min_length=32, max_length=256)]
    dealer: bool = False
    beside: bool = False
    dealer_listens: bool = False
    probe: bool = False


def check_numbers(values: dict[str, Any]) -> None:
    """Raise UsageError for a job with a number that no suite could have."""
    made = _read(_Numbers, values, "the job")
    if (images := (made.warmups + made.inferences) * made.batch) > MOST_IMAGES:
        raise UsageError(f"the job has {images} images, this host goes up to {MOST_IMAGES}")


def wanted(asked: Any) -> Wanted:
    """Return the network that a job asks for; UsageError for anything else."""
    return _read(Wanted, asked, "the job's network")


def structure(asked: Any) -> Structure:
    """Return the public structure that a dealer's job brings; UsageError for anything else."""
    return _read(Structure, asked, "the job's network")


def _read(model: type[Model], values: Any, what: str) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{what} is malformed: {place}: {first['msg']}") from error
