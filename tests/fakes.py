"""Canned runs: records that look like real ones, from a cost model with noise, without running anything.

record = fake_record(seed=1)                          # two runs of one machine: other noise, same bytes
slower = fake_record(seed=2, slowdown={"full/masked": 1.05})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pibench.records.record import (
    SCHEMA,
    Accuracy,
    Case,
    Correctness,
    Declared,
    Git,
    Inference,
    Link,
    Machine,
    Network,
    Offline,
    PartKey,
    Parts,
    PartyOnline,
    PeakRss,
    Record,
    Session,
    Setup,
    SuiteInfo,
    Tally,
)


@dataclass(frozen=True)
class FakeNetwork:
    """A network as the cost model sees it."""

    card: str
    relu_count: int
    macs: int
    relu_rounds: int
    correct: int  # of 360 images


@dataclass(frozen=True)
class FakeProtocol:
    """Prices of a protocol."""

    s_per_relu: float
    s_per_gmac: float
    bytes_per_relu: int
    bytes_per_network: int
    rounds_per_relu_layer: int
    offline_bytes_per_relu: int
    logit_error: float


NETWORKS = (
    FakeNetwork("full", 18_432, 14_200_000, 9, 356),
    FakeNetwork("culled", 9_216, 14_200_000, 5, 354),
    FakeNetwork("thinned", 4_608, 13_100_000, 4, 351),
    FakeNetwork("reshaped", 2_048, 9_400_000, 4, 349),
    FakeNetwork("tiny", 512, 3_300_000, 2, 338),
)
PROTOCOLS = {
    "plaintext": FakeProtocol(2e-9, 0.9, 0, 800, 0, 0, 2e-3),
    "crypten": FakeProtocol(1.4e-5, 5.0, 392, 300_000, 18, 0, 4e-3),
    "crypten-cached": FakeProtocol(7.0e-6, 4.2, 184, 300_000, 9, 520, 4e-3),
    "masked": FakeProtocol(4.0e-7, 1.3, 14, 1_600, 3, 220, 3e-3),
}
STAGES = ("stem", "S1", "S2", "S3", "head")


def fake_record(
    networks: Sequence[str | FakeNetwork] = ("full", "culled", "thinned", "reshaped", "tiny"),
    protocols: Sequence[str] = ("plaintext", "crypten", "crypten-cached", "masked"),
    *,
    sessions: int = 6,
    inferences: int = 5,
    warmups: int = 1,
    seed: int = 0,
    session_noise: float = 0.02,
    noise: float = 0.01,
    warmup_factor: float = 1.6,
    slowdown: Mapping[str, float] | None = None,
    more_bytes: Mapping[str, int] | None = None,
    more_rounds: Mapping[str, int] | None = None,
    machine: str = "0123456789ab",
    commit: str = "1111111111111111111111111111111111111111",
    created_utc: str = "2026-11-20T12:00:00Z",
    link: str = "loopback",
) -> Record:
    """Return a record of a ladder x protocols.

    `slowdown`, `more_bytes` (sent by each party) and `more_rounds` plant changes by "<network>/<protocol>";
    `session_noise` is shared by the inferences of a session, `noise` is each inference's own (relative, log-normal).
    """
    rng = np.random.default_rng(seed)
    others = [n for n in networks if isinstance(n, FakeNetwork)]
    cells = [(n, p) for n in (*NETWORKS, *others) if n in others or n.card in networks for p in protocols]
    order = iter(rng.permutation(len(cells) * sessions).tolist())
    cases = []
    for net, protocol in cells:
        key = f"{net.card}/{protocol}"
        slower, fatter, chattier = slowdown or {}, more_bytes or {}, more_rounds or {}
        planted = _Planted(slower.get(key, 1.0), fatter.get(key, 0), chattier.get(key, 0))
        shape = _Shape(net, PROTOCOLS[protocol], planted, noise, session_noise, warmup_factor)
        runs = [_session(shape, rng, index, next(order), inferences, warmups) for index in range(sessions)]
        cases.append(_case(net, protocol, link, tuple(runs)))
    stamp = created_utc.replace("-", "").replace(":", "")
    return Record(
        schema=SCHEMA, id=f"{stamp}-quick", created_utc=created_utc, finished=True, pibench_version="0.1.0",
        command=("pibench", "run", "suites/quick.yaml"), seed=seed,
        suite=SuiteInfo(name="quick", path="suites/quick.yaml", sha256="0" * 64, text="name: quick\n"),
        machine=Machine(key=machine, cpu="Fake CPU @ 2.0 GHz", cores=2, memory_bytes=8 << 30, os="Linux"),
        versions={"python": "3.11.2", "torch": "2.13.0", "crypten": "0.4.1", "numpy": "2.3.0", "numba": "0.62.0"},
        git=Git(commit=commit, dirty=False), cases=tuple(cases),
    )  # fmt: skip


@dataclass(frozen=True)
class _Planted:
    slowdown: float
    more_bytes: int
    more_rounds: int


@dataclass(frozen=True)
class _Shape:
    net: FakeNetwork
    protocol: FakeProtocol
    planted: _Planted
    noise: float
    session_noise: float
    warmup_factor: float

    @property
    def relu_s(self) -> float:
        return self.net.relu_count * self.protocol.s_per_relu * self.planted.slowdown

    @property
    def linear_s(self) -> float:
        return self.net.macs / 1e9 * self.protocol.s_per_gmac * self.planted.slowdown

    @property
    def relu_bytes(self) -> int:
        return self.net.relu_count * self.protocol.bytes_per_relu + self.planted.more_bytes

    @property
    def relu_rounds(self) -> int:
        return self.net.relu_rounds * self.protocol.rounds_per_relu_layer + self.planted.more_rounds

    @property
    def part_keys(self) -> tuple[PartKey, ...]:
        linear = [("linear", stage, f"{stage}.conv") for stage in STAGES]
        relu = [("relu", stage, f"{stage}.relu") for stage in STAGES[:-1]]
        return (("other", "", ""), *linear, *relu)


def _split(total: int, n: int) -> list[int]:
    return [total // n + (1 if i < total % n else 0) for i in range(n)]


def _online(shape: _Shape, factor: float, rng: np.random.Generator, sends_most: bool) -> PartyOnline:
    """One party's tally whose parts add up exactly."""
    n_linear, n_relu = len(STAGES), len(STAGES) - 1
    other = [2e-4 * factor]
    times = other + [shape.linear_s * factor / n_linear] * n_linear + [shape.relu_s * factor / n_relu] * n_relu
    waits = [t * float(rng.uniform(0.05, 0.15)) for t in times]
    linear_bytes = _split(shape.protocol.bytes_per_network if sends_most else 400, n_linear)
    sent = [0, *linear_bytes, *_split(shape.relu_bytes, n_relu)]
    rounds = [2] + [0] * n_linear + _split(shape.relu_rounds, n_relu)
    parts = Parts(time_s=tuple(times), wait_s=tuple(waits), sent_bytes=tuple(sent), rounds=tuple(rounds))
    return PartyOnline(
        time_s=sum(times), wait_s=sum(waits), sent_bytes=sum(sent), rounds=sum(rounds),
        received_bytes=sum(_split(shape.protocol.bytes_per_network, 1)) * (not sends_most) + shape.relu_bytes,
        parts=parts,
    )  # fmt: skip


def _inference(shape: _Shape, rng: np.random.Generator, base: float, warmup: bool) -> Inference:
    factor = base * float(np.exp(rng.normal(0.0, shape.noise))) * (shape.warmup_factor if warmup else 1.0)
    server = _online(shape, factor * 0.995, rng, sends_most=False)
    client = _online(shape, factor, rng, sends_most=True)
    return Inference(warmup=warmup, online_s=max(server.time_s, client.time_s), server=server, client=client)


def _session(shape: _Shape, rng: np.random.Generator, index: int, order: int, inferences: int, warmups: int) -> Session:
    base = float(np.exp(rng.normal(0.0, shape.session_noise)))
    served = warmups + inferences
    offline_bytes = shape.net.relu_count * shape.protocol.offline_bytes_per_relu * served
    offline = Tally(time_s=offline_bytes * 4e-9 * base, received_bytes=offline_bytes)
    setup = Tally(time_s=0.3 * base, sent_bytes=shape.net.macs // 100)
    return Session(
        index=index, order=order, started_utc="2026-11-20T12:00:00Z", wall_s=5.0,
        setup=Setup(server=setup, client=setup), parts=shape.part_keys,
        offline=Offline(server=offline, client=offline, dealer=None, inferences=served),
        inferences=tuple(_inference(shape, rng, base, number < warmups) for number in range(served)),
        correctness=Correctness(
            max_abs_logit_error=shape.protocol.logit_error * float(rng.uniform(0.5, 1.0)), agreeing=served, n=served
        ),
        accuracy=Accuracy(correct=served, n=served), peak_rss_bytes=PeakRss(server=300 << 20, client=290 << 20),
    )  # fmt: skip


def _case(net: FakeNetwork, protocol: str, link: str, sessions: tuple[Session, ...]) -> Case:
    first = sessions[0].inferences[0] if sessions else None
    declared = None
    if first is not None:
        sent = {"server_bytes": first.server.sent_bytes, "client_bytes": first.client.sent_bytes}
        declared = Declared(rounds=first.client.rounds, **sent)
    return Case(
        id=f"{net.card}/{protocol}/{link}/cpu/b1", fingerprint=f"{net.card}-{protocol}", protocol=protocol,
        network=Network(
            card=net.card, title=f"Fake {net.card}", method="deepreduce", dataset="digits", sha256="1" * 64,
            relu_count=net.relu_count, macs=net.macs, macs_merged=net.macs, parameters=net.macs // 50,
            relu_rounds=net.relu_rounds, checkpoint_accuracy={"accuracy": 100.0 * net.correct / 360, "n": 360},
            plain_accuracy=Accuracy(correct=net.correct, n=360),
        ),
        link=Link(name=link), tolerance=0.05, status="done", declared=declared, sessions=sessions,
    )  # fmt: skip


class FakeParties:
    """Stands in for `run_session`: answers from the plaintext network, with planted faults, and keeps the plans.

    `faults` maps "<protocol>" or "<protocol>#<n-th call>" to an exception to raise or to a number to add to each logit.
    """

    def __init__(self, faults: Mapping[str, BaseException | float] | None = None) -> None:
        self.plans: list[Any] = []
        self.faults = dict(faults or {})

    def __call__(self, plan: Any, progress: Any = None, launch: Any = None) -> Any:
        from safetensors.torch import load_file

        from pibench.lowering.program import Program
        from pibench.lowering.reference import evaluate
        from pibench.session.session import SessionResult

        self.plans.append(plan)
        fault = self.faults.get(f"{plan.protocol}#{len(self.plans)}", self.faults.get(plan.protocol, 0.0))
        if isinstance(fault, BaseException):
            raise fault
        images = load_file(plan.images)["images"]
        masks = {name: mask.bool() for name, mask in load_file(plan.masks).items()} if plan.masks else {}
        logits = evaluate(Program.from_json(plan.program, masks), load_file(plan.weights), images) + fault
        batches = plan.warmups + plan.inferences
        part = {"time_s": 0.01, "wait_s": 0.001, "sent_bytes": 8, "received_bytes": 8, "rounds": 1}
        tally = {**part, "parts": [{"kind": "linear", "stage": "stem", "site": "conv", **part}]}
        both = {"server": tally, "client": tally}
        if progress is not None:
            progress("online 0", batches)
        return SessionResult(
            started_utc="2026-11-20T12:00:00Z", wall_s=0.1, setup=dict(both),
            offline={role: [tally] for role in both}, online={role: [tally] * batches for role in both},
            logits=logits.reshape(batches, plan.batch, -1).tolist(), peak_rss_bytes={"server": 1, "client": 1},
        )  # fmt: skip
