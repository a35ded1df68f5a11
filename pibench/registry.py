"""Names that suites may use, without importing what they name (which would bring torch)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

DATASETS = ("digits", "cifar10", "cifar100", "tinyimagenet")
UNFETCHED = ("imagenet",)  # of cards, and never fetched: such networks see random images

_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)ms,(\d+(?:\.\d+)?)(?:mbit|mbit/s|mbps)")
LINKS = ("loopback", "lan", "wan", "namespaces")  # profiles of pibench.links.link
OWN_SOCKETS_ONLY = ("paced", "network")  # ways of making a link that carry pibench's own connections and no others

MEASURES = (  # of pibench.records.measures
    "online_s",
    "server_bytes",
    "client_bytes",
    "rounds",
    "offline_bytes",
    "offline_session_bytes",
    "relu_count",
    "macs",
    "agreement",
    "plain_accuracy",
    "accuracy",
    "offline_s",
    "setup_s",
    "peak_rss_bytes",
)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean '...'?` where a known name is near, else nothing."""
    names, parts = sorted(known), set(name.split("-"))
    near = [other for other in names if parts <= set(other.split("-"))]  # a part was left out: drd-12k
    near = near or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def written_link(text: str) -> tuple[float, float] | None:
    """Return round trip (ms) and rate (Mbit/s) of a link written as `80ms,50mbit`; None for any other text."""
    found = _WRITTEN.fullmatch(text.strip().lower())
    return (float(found[1]), float(found[2])) if found else None
