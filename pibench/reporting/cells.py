"""What reports speak of: a `Cell` (one case, summarised), a `Setting`, and a `Ladder` (the networks of one setting)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from pibench.mpc.spec import is_private
from pibench.records.prices import Fit, Joint
from pibench.records.stats import Estimate

KINDS = ("linear", "relu", "truncation", "other", "waiting")
NOISY = 0.25  # half an interval as a share of its median: beyond it, a reader is told
Origin = Literal["private", "plaintext", "training"]
ORIGINS: dict[Origin, str] = {"private": "in private", "plaintext": "in plaintext", "training": "as trained"}


@dataclass(frozen=True)
class Score:
    """Accuracy on `n` held-out images, and where it was measured."""

    percent: float
    n: int
    origin: Origin

    @property
    def margin(self) -> float:
        """Half the 95 % interval of a share of n images, in points (normal approximation, at least one image)."""
        p = min(max(self.percent / 100.0, 0.5 / self.n), 1.0 - 0.5 / self.n)
        return 196.0 * math.sqrt(p * (1.0 - p) / self.n)


@dataclass(frozen=True)
class Site:
    """One operation's place in the network: its share of the online phase of the slower party."""

    kind: str
    stage: str
    site: str
    compute_s: float
    wait_s: float
    sent_bytes: int  # of the party that sends more
    rounds: int


@dataclass(frozen=True)
class PhaseView:
    """Setup or offline: time of the slower party, bytes of every sender, for one inference (setup: for one model)."""

    seconds: float
    sent_bytes: float


@dataclass(frozen=True)
class Cell:
    """One case of one record, summarised."""

    case_id: str
    run_id: str
    machine_key: str
    network: str
    title: str
    method: str
    dataset: str | None
    protocol: str
    link: str
    link_how: str
    rtt_ms: float
    mbit_s: float | None
    device: str
    batch: int
    threads: int
    status: str
    error: str | None
    relu_count: int
    macs: int
    macs_merged: int | None
    macs_run: int
    parameters: int
    relu_rounds: int
    score: Score | None
    private: Score | None
    agreeing: tuple[int, int] | None  # images with the plaintext's class, of n
    logit_error: float | None
    online: Estimate | None
    warmup_note: str
    server_bytes: int | None
    client_bytes: int | None
    rounds: int | None
    sites: tuple[Site, ...]
    offline: PhaseView | None
    setup: PhaseView | None
    peak_rss_bytes: int | None
    trust: str = ""  # whom a party trusts beside itself, in a word or two; empty: the record does not say
    sustained_s: float | None = None  # of one batch at a steady rate, where phases overlapped
    held_bytes: tuple[int, int] | None = None  # server, client: a batch's material between its phases
    published: tuple[dict[str, Any], ...] = field(default=(), repr=False, compare=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # the protocol's own

    @property
    def usable(self) -> bool:
        """Whether its speed may be shown as a result: measured, finished and correct."""
        return self.status == "done" and self.online is not None

    @property
    def private_protocol(self) -> bool:
        """Whether the protocol keeps anything secret (`plaintext` does not)."""
        return is_private(self.protocol)

    @property
    def base_protocol(self) -> str:
        """The protocol's own name, without the label of an option set."""
        return self.protocol.partition("+")[0]

    @property
    def noisy(self) -> bool:
        """Whether its interval is too wide to compare it with others."""
        return self.online is not None and self.online.relative_half_width > NOISY

    @property
    def online_s(self) -> float:
        """Median online latency of one inference (nan where there is none)."""
        return self.online.point if self.online else math.nan

    @property
    def sent_bytes(self) -> int | None:
        """Online payload of the party that sends more."""
        both = [b for b in (self.server_bytes, self.client_bytes) if b is not None]
        return max(both) if both else None

    @property
    def kinds(self) -> dict[str, float]:
        """Online seconds by kind; waiting (for wire and peer) apart from computing. They add up to the median."""
        totals = dict.fromkeys(KINDS, 0.0)
        for site in self.sites:
            totals[site.kind if site.kind in totals else "other"] += site.compute_s
            totals["waiting"] += site.wait_s
        return totals

    @property
    def relu_share(self) -> float | None:
        """Share of the online time spent in ReLUs, their waiting included."""
        spent = sum(site.compute_s + site.wait_s for site in self.sites if site.kind == "relu")
        return spent / self.online_s if self.sites and self.online_s else None

    @property
    def linear_layers(self) -> int:
        """Linear operations seen in the record, without shortcuts (they run beside another one)."""
        names = {site.site for site in self.sites if site.kind == "linear"}
        return sum("shortcut" not in name and "downsample" not in name for name in names)

    @property
    def setting(self) -> Setting:
        """Everything but the network."""
        return Setting(self.dataset, self.protocol, self.link, self.device, self.batch, self.threads, self.machine_key)


@dataclass(frozen=True, order=True)
class Setting:
    """What must be equal for two networks' latencies to be set side by side."""

    dataset: str | None
    protocol: str
    link: str
    device: str
    batch: int
    threads: int
    machine_key: str


@dataclass(frozen=True)
class Ladder:
    """The networks of one setting, most ReLUs first, with the fitted price of a ReLU."""

    setting: Setting
    cells: tuple[Cell, ...]
    fit: Fit
    joint: Joint | None

    @property
    def full(self) -> Cell:
        """The reference: the network of method `full` with most ReLUs, else the one with most."""
        return next((c for c in self.cells if c.method == "full"), self.cells[0])

    @property
    def best(self) -> Cell | None:
        """The most accurate trained network (of equal ones the fastest): what a budget's loss is measured from."""
        scored = [c for c in self.cells if c.score]
        return max(scored, key=lambda c: (c.score.percent if c.score else 0.0, -c.online_s), default=None)

    @property
    def unrelated(self) -> bool:
        """Whether ReLUs firmly explain less than half of the differences: Fisher's 95 % bound of the correlation."""
        if self.fit.n < 4 or not math.isfinite(self.fit.r2):
            return False
        r = math.copysign(math.sqrt(min(max(self.fit.r2, 0.0), 1.0 - 1e-9)), self.fit.slope_s)
        return math.tanh(math.atanh(r) + 1.96 / math.sqrt(self.fit.n - 3)) < math.sqrt(0.5)

    @property
    def reference(self) -> str:
        """What to call the reference: only a network of method `full` is the full one."""
        return "the full network" if self.full.method == "full" else self.full.network

    def line_s(self, relu_count: float) -> float:
        """Return the seconds that the fitted line gives a batch of a network with so many ReLUs."""
        return self.fit.intercept_s + self.fit.slope_s * relu_count * self.setting.batch / 1e3

    @property
    def close(self) -> bool:
        """Whether the networks lie roughly on a rising line: its price may be named with a word of doubt."""
        return self.fit.n >= 3 and self.fit.r2 >= 0.5 and self.fit.slope_s > 0

    @property
    def noisy(self) -> bool:
        """Whether half of the networks have such wide intervals that nothing can be read off their differences."""
        return sum(cell.noisy for cell in self.cells) * 2 >= len(self.cells)

    @property
    def explains(self) -> bool:
        """Whether the line is worth quoting: near it, and a price that is clearly above nothing."""
        return self.close and self.fit.r2 >= 0.8 and self.fit.slope_interval[0] > 0 and not self.noisy
