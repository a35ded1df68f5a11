"""Suites: a YAML file says what to run (networks x protocols x links x devices x batches), how often, within what.

No torch here: a suite is read, checked and expanded into cases before anything heavy is imported.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator

from pibench.documents import Strict, collect, parse, read_yaml
from pibench.errors import UsageError
from pibench.library import find_documents, resolve
from pibench.mpc.spec import spec_of
from pibench.registry import DATASETS, LINKS, MEASURES, nearest, written_link

Count = Annotated[int, Field(ge=1, le=100_000)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


def _named(key: str) -> BeforeValidator:
    """Let a plain name stand for a mapping that holds nothing else."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _link(value: Any) -> Any:
    """Let a name stand for a link, or its round trip and rate as they are written everywhere: `80ms,50mbit`."""
    if not isinstance(value, str):
        return value
    written = written_link(value)
    if written is None:
        return {"name": value}
    return {"name": value.strip().lower().replace(",", "-"), "rtt_ms": written[0], "mbit_s": written[1]}


def _known(names: Mapping[str, Any] | tuple[str, ...], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in names:
            hint = nearest(value, names) or f"; known: {', '.join(names)}"
            raise ValueError(f"no {what} is named '{value}'{hint}")
        return value

    return AfterValidator(check)


def _declared(name: str) -> str:
    try:
        return spec_of(name).name
    except UsageError as error:
        raise ValueError(error.what) from error


def _share(value: Any) -> Any:
    """Read `3%` as 0.03."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            return value
    return value


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, lt=1e6, allow_inf_nan=False)]


class NetworkEntry(Strict):
    """A card by name or path, a pattern of card names, or one's own torch module."""

    card: str | None = None
    model: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    input: Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(min_length=3, max_length=3)] | None = None
    weights: str | None = None  # a safetensors file, or a checkpoint for the card
    output: str | None = None  # which one, of a model that returns several
    label: Word | None = None  # what tables and figures call a model, instead of its factory
    method: Word | None = None  # how a model's ReLUs were reduced, such as snl: its group in figures
    dataset: str | None = None  # a model's: a name, or a folder of pictures in folders of classes
    normalise: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=2)] | None = None

    @field_validator("model")
    @classmethod
    def _alone(cls, model: str | None, info: ValidationInfo) -> str | None:
        if model is not None and info.data.get("card") is not None:
            raise ValueError("a network is a card or a model, not both")
        return model

    @property
    def is_pattern(self) -> bool:
        """Whether the card's name may fit several."""
        return self.card is not None and any(sign in self.card for sign in "*?[")


class ProtocolEntry(Strict):
    """A protocol by name; `label` tells two option sets of one protocol apart, `networks` keeps it to some."""

    name: Annotated[str, AfterValidator(_declared)]
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,32}$")] = ""
    options: dict[str, Any] = {}
    networks: Annotated[list[str], Field(min_length=1)] = ["*"]  # patterns of names: this protocol runs on these alone

    def runs(self, network: str) -> bool:
        """Return whether the suite wants this protocol on that network."""
        return any(fnmatchcase(network, pattern) for pattern in self.networks)


class LinkEntry(Strict):
    """A known link by name, or one's own: round-trip time, rate, loss, and how to emulate it."""

    name: Word
    rtt_ms: Annotated[float, Field(ge=0, le=60_000, allow_inf_nan=False)] | None = None
    mbit_s: Annotated[float, Field(ge=0.001, le=100_000, allow_inf_nan=False)] | None = None
    loss_percent: Annotated[float, Field(ge=0, le=50, allow_inf_nan=False)] = 0.0
    how: Literal["auto", "none", "veth", "netem", "wire", "paced", "network"] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The keys that the suite sets, for the layer that makes links."""
        return self.model_dump(exclude_unset=True, exclude_none=True)


class ThresholdEntry(Strict):
    """How much of a change a comparison lets pass, for one measure of the cases that fit a pattern or group."""

    measure: Annotated[str, _known(MEASURES, "measure")]
    tolerance: Share
    cases: str = "*"
    group: str = ""
    sees: Share | None = None


class Suite(Strict):
    """What to run."""

    name: Word
    title: str = ""
    networks: Annotated[list[Annotated[NetworkEntry, _named("card")]], Field(min_length=1)]
    protocols: Annotated[list[Annotated[ProtocolEntry, _named("name")]], Field(min_length=1)]
    links: Annotated[list[Annotated[LinkEntry, BeforeValidator(_link)]], Field(min_length=1)] = [
        LinkEntry(name="loopback")
    ]
    devices: Annotated[
        list[Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?(,cuda(:\d+)?)?)$")]], Field(min_length=1)
    ] = ["cpu"]
    batches: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1)] = [1]
    sessions: Count = 3
    inferences: Count = 5
    warmups: Annotated[int, Field(ge=0, le=1000)] = 1
    accuracy_images: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    timeout_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 60.0  # longest silence of a party
    deadline_s: Annotated[float, Field(gt=0, le=864_000, allow_inf_nan=False)] = 3600.0  # of one session
    tolerance: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 0.01  # share of the logits' spread
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    firm_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 0.0  # for more sessions of cheap cases
    merge: bool = True  # linear neighbours of a network become one layer where that takes fewer multiplications
    interleave: bool = True  # sessions of all cases in turn, in a random order drawn from the seed
    pin: bool = False  # each party to cores of its own
    offline_chunk: Count | None = None  # material for this many batches at a time
    train_missing: bool = False  # train cards without a checkpoint first
    thresholds: list[ThresholdEntry] = []
    _path: Path = PrivateAttr(default=Path())
    _text: str = PrivateAttr(default="")

    @property
    def path(self) -> Path:
        """The file that the suite was read from."""
        return self._path

    def lying_at(self, path: Path) -> Self:
        """Return it as if it had been read from there: relative files that it names lie beside that."""
        self._path = path
        return self

    @property
    def text(self) -> str:
        """The file's text."""
        return self._text

    @property
    def sha256(self) -> str:
        """Hash of the suite's file."""
        return hashlib.sha256(self._text.encode()).hexdigest()

    @property
    def cards(self) -> list[str]:
        """Names or paths of the cards, patterns expanded, in order."""
        return list(dict.fromkeys(card for card, _ in self._named_networks() if card is not None))

    def cases(self) -> tuple[CaseEntry, ...]:
        """Return every combination, in the order of the file."""
        networks = self._named_networks()
        return tuple(
            CaseEntry(
                network=_network_name(card, entry), card=card, entry=entry, protocol=protocol.name,
                label=protocol.label, options=protocol.options, link=link, device=device, batch=batch,
                threads=self.threads, tolerance=self.tolerance,
            )
            for (card, entry), protocol, link, device, batch in itertools.product(
                networks, self.protocols, self.links, self.devices, self.batches
            )
            if protocol.runs(_network_name(card, entry))
        )  # fmt: skip

    def _named_networks(self) -> list[tuple[str | None, NetworkEntry]]:
        """Return each card (patterns expanded) or module; a pattern adds only what is not named otherwise."""
        named = {entry.card for entry in self.networks if not entry.is_pattern}
        found: list[tuple[str | None, NetworkEntry]] = []
        for entry in self.networks:
            if not entry.is_pattern:
                found.append((entry.card, entry))
                continue
            cards = [card for card in expand(entry) if card not in named]
            named.update(cards)
            found += [(card, entry) for card in cards]
        return found


@dataclass(frozen=True, kw_only=True)
class CaseEntry:
    """One cell of a suite."""

    network: str  # a card's name, or package.module:factory
    card: str | None  # as the suite names it: a name or a path; None for a module of one's own
    entry: NetworkEntry = field(repr=False)
    protocol: str
    label: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    link: LinkEntry
    device: str = "cpu"
    batch: int = 1
    threads: int = 1
    tolerance: float = 0.01

    @property
    def id(self) -> str:
        """<network>/<protocol>/<link>/<device>/b<batch>, the protocol with its label after a plus."""
        protocol = f"{self.protocol}+{self.label}" if self.label else self.protocol
        return f"{self.network}/{protocol}/{self.link.name}/{self.device}/b{self.batch}"


def expand(entry: NetworkEntry) -> list[str]:
    """Return the cards that an entry names: itself, or what its pattern (with * or ?) fits."""
    if entry.card is None:
        return []
    if not entry.is_pattern:
        return [entry.card]
    return [path.stem for path in find_documents("networks") if fnmatchcase(path.stem, entry.card)]


def _network_name(card: str | None, entry: NetworkEntry) -> str:
    return Path(card).name.removesuffix(".yaml").removesuffix(".yml") if card else entry.label or str(entry.model)


def load_suite(name_or_path: str | Path) -> Suite:
    """Read and check a suite, by name or path; every problem comes at once, as UsageError with file and line."""
    path = resolve(name_or_path, "suites", "suite")
    suite = parse(Suite, path)
    suite._path, suite._text = path, path.read_text("utf-8")
    if problems := _misfits(suite):
        raise collect(path, problems)
    return suite


def _misfits(suite: Suite) -> list[tuple[int, str]]:
    """Return what only shows against the rest of the file or the cards that there are."""
    lines = read_yaml(suite.path)[1]
    found: list[tuple[int, str]] = []
    for index, entry in enumerate(suite.networks):
        found += [(lines[("networks", index)], text) for text in _network_misfits(entry, suite.path.parent)]
    for index, link in enumerate(suite.links):
        if link.name not in LINKS and not set(link.given) - {"name"}:
            hint = nearest(link.name, LINKS) or f"; known: {', '.join(LINKS)}"
            found.append((lines[("links", index)], f"no link is named '{link.name}'{hint}"))
    for index, protocol in enumerate(suite.protocols):
        found += [(lines[("protocols", index)], text) for text in _protocol_misfits(protocol, suite)]
    if not found:
        names = {_network_name(card, entry) for card, entry in suite._named_networks()}
        for index, protocol in enumerate(suite.protocols):
            for pattern in protocol.networks:
                if not any(fnmatchcase(name, pattern) for name in names):
                    hint = nearest(pattern, names) or f"; there are {', '.join(sorted(names))}"
                    found.append((lines[("protocols", index)], f"no network of the suite fits '{pattern}'{hint}"))
        ids = [case.id for case in suite.cases()]
        twice = sorted({case for case in ids if ids.count(case) > 1})
        found += [(lines.get(("networks",), 1), f"the suite names the case {case} twice") for case in twice]
    return found


def no_normalisation(numbers: Sequence[float]) -> str:
    """Return why numbers are no means and as many deviations; nothing where they are."""
    if len(numbers) < 2 or len(numbers) % 2:
        return "as many deviations as means: one of each, or one of each a channel, all means first"
    return "" if all(number > 0 for number in numbers[len(numbers) // 2 :]) else "a deviation is to be above 0"


def is_dataset(name: str, folder: Path = Path()) -> bool:
    """Whether this names a data set, or a folder as seen from here or from another folder."""
    return name in DATASETS or Path(name).is_dir() or (folder / name).is_dir()


def _protocol_misfits(entry: ProtocolEntry, suite: Suite) -> list[str]:
    """Return what a protocol cannot do that the suite wants of it: its options, a device, a link."""
    spec, problems = spec_of(entry.name), []
    for device, link in itertools.product(suite.devices, suite.links):
        try:
            spec.check(entry.options, device, link.how or "auto")
        except UsageError as error:
            problems.append(error.what)
    return list(dict.fromkeys(problems))


def _network_misfits(entry: NetworkEntry, folder: Path) -> list[str]:
    if entry.card is None and entry.model is None:
        return ["a network needs a card or a model"]
    if entry.model is not None and entry.input is None:
        return ["a model needs its input: [channels, height, width]"]
    of_model = ("output", "label", "method", "normalise", "dataset")
    if entry.card is not None and (given := [name for name in of_model if getattr(entry, name) is not None]):
        return [f"{' and '.join(given)}: a model's; a card has its own"]
    if entry.normalise is not None and (why := no_normalisation(entry.normalise)):
        return [f"normalise: {why}"]
    if entry.dataset is not None and not is_dataset(entry.dataset, folder):
        hint = nearest(entry.dataset, DATASETS) or f"; known: {', '.join(DATASETS)}"
        return [f"no data set and no folder is named '{entry.dataset}'{hint}"]
    if entry.card is not None and entry.input is not None:
        return ["a card knows its input; remove the key"]
    cards = expand(entry)
    if entry.card is not None and not cards:
        return [f"no card fits the pattern '{entry.card}'"]
    problems = []
    for card in cards:
        try:
            resolve(card, "networks", "card")
        except UsageError as error:
            problems.append(error.what)
    return problems
