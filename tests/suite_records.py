"""Records in the shape of the shipped suites, from their cards and a cost model, without running anything.

Names, ReLU counts, methods, published figures and trained accuracies are those of the cards and of `zoo/`; latencies
are a model's, with noise. What is drawn from them is as crowded as what is drawn from a real run.
"""

from __future__ import annotations

import json
from pathlib import Path

from fakes import PROTOCOLS, FakeNetwork, fake_record

from pibench.links.link import PROFILES
from pibench.networks.card import load_card
from pibench.records.record import Accuracy, Record
from pibench.suite import load_suite

ROOT = Path(__file__).parent.parent
SHIPPED = ("quick", "protocols", "c100", "links", "own")
DIGITS = {"digits-full": 359, "digits-culled": 357, "digits-thinned": 352, "digits-reshaped": 351, "digits-tiny": 337}
OWN = {  # networks of somebody else, as their factories are called
    "ours-resnet18-autorep-50k": (50_000, 348), "ours-resnet18-autorep-80k": (80_000, 351),
    "mypackage.nets:wide_resnet_22_8": (1_359_872, 356), "mypackage.nets:snl_70": (69_632, 349),
    "mypackage.nets:snl_71": (71_680, 350), "baseline": (557_056, 355), "mobile-v2-first-try": (420_864, 321),
}  # fmt: skip


def record_of_suite(name: str, *, sessions: int = 2, inferences: int = 2) -> Record:
    """Return a record of every case of a shipped suite; `own`: networks of one's own under three protocols."""
    if name == "own":
        links, protocols = {"loopback": (0.0, 0.0)}, ["masked", "crypten-cached", "plaintext"]
        nets = [FakeNetwork(card, relus, 40_000_000 + 300 * relus, 9, right) for card, (relus, right) in OWN.items()]
    else:
        suite = load_suite(name)
        cases = suite.cases()
        named = [PROFILES[name] for name in dict.fromkeys(case.link.name for case in cases)]
        links = {link.name: (link.rtt_ms or 0.0, link.mbit_s or 0.0) for link in named}
        protocols = list(dict.fromkeys(case.protocol for case in cases))
        nets = [_network(card) for card in dict.fromkeys(case.card for case in cases) if card]
    parts = [_with_cards(fake_record(
        nets, [p for p in protocols if p in PROTOCOLS], sessions=sessions, inferences=inferences, link=link,
        session_noise=0.06, noise=0.04,
    )) for link in links]  # fmt: skip
    cases_of_all = [
        case.model_copy(update={"link": case.link.model_copy(update=_speed(*links[case.link.name]))})
        for part in parts for case in part.cases
    ]  # fmt: skip
    suite_info = parts[0].suite.model_copy(update={"name": name})
    return parts[0].model_copy(update={"cases": tuple(cases_of_all), "suite": suite_info})


def _speed(rtt_ms: float, mbit_s: float) -> dict[str, float | None]:
    return {"rtt_ms": rtt_ms, "mbit_s": mbit_s or None}


def _network(card: str) -> FakeNetwork:
    right = DIGITS.get(card, round(3.6 * _trained().get(card, 0.0)))
    relus = load_card(card).relu_count or 0
    return FakeNetwork(card, relus, 20_000_000 + 700 * relus, 9, right)


def _trained() -> dict[str, float]:
    costs = json.loads((ROOT / "zoo" / "costs.json").read_text("utf-8"))
    return {row["network"]: row["percent"] for row in costs["networks"]}


def _with_cards(record: Record) -> Record:
    """Give networks of cards what their cards say of them; those that are not trained lose their accuracy."""
    for case in record.cases:
        net = case.network
        if net.card in OWN:
            update: dict[str, object] = {
                "method": "snl" if "snl" in net.card else "full" if net.card == "baseline" else "autorep"
            }
        else:
            card = load_card(net.card)
            percent = _trained().get(net.card)
            update = {
                "method": card.method, "dataset": card.dataset, "title": card.title,
                "published": tuple(p.model_dump(exclude_none=True) for p in card.published),
            }  # fmt: skip
            if net.card not in DIGITS:
                update |= {
                    "checkpoint_accuracy": {"accuracy": percent, "n": 10_000} if percent else None,
                    "plain_accuracy": Accuracy(correct=round(10 * percent), n=1000) if percent else None,
                }
        sessions = case.sessions
        if not (net.card in OWN or net.card in DIGITS or _trained().get(net.card)):
            sessions = tuple(session.model_copy(update={"accuracy": None}) for session in sessions)
        changed = case.model_copy(update={"network": net.model_copy(update=update), "sessions": sessions})
        record = record.with_case(changed)
    return record
