"""Names that suites may use, without importing what they name (which would bring torch)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# name -> module holding `PROTOCOL: type[Protocol]`; imported on use, so that naming one costs nothing
PROTOCOLS: dict[str, str] = {
    "plaintext": "pibench.mpc.plaintext.protocol",
    "crypten": "pibench.mpc.crypten.protocol",
    "crypten-cached": "pibench.mpc.crypten.cached",
    "masked": "pibench.mpc.masked.protocol",
}

DATASETS = ("digits", "cifar10", "cifar100", "tinyimagenet")

LINKS = ("loopback", "lan", "wan", "namespaces")  # profiles of pibench.links.link

MEASURES = (  # of pibench.records.measures
    "online_s",
    "server_bytes",
    "client_bytes",
    "rounds",
    "offline_bytes",
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
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
