"""What the parties see where nobody deals, offline and online together, says no more than their input and output.

Views of real runs beside those that simulators make, as for the dealer (test_masked_views.py): messages of both phases,
own randomness, shares and the output, four bits of each with four bits of every other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from masked_pair import Outcome, run_masked
from masked_simulators import View, simulate_client, simulate_server
from test_masked_views import FIRST, SECOND, Features, Made, differing, image, nibbles, real_view, summed, units
from test_masked_views import features as dealt_features
from two_party_simulators import client_offline, numbers_of, server_offline, watch_decryption

from pibench.mpc.crypto.rlwe import bfv, linear
from pibench.mpc.masked.gadgets import gadgets_of
from pibench.mpc.masked.gadgets.product import layer_weights
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.sources.source import Material
from pibench.mpc.protocol import CLIENT, SERVER

pytestmark = pytest.mark.timeout(240)
ALONE: dict[str, Any] = {"provider": "two-party"}
SHARES = ("s", "rp", "srp", "rt", "srt", "sq", "rprt")


def features(
    view: View, material: Material, heard: list[bytes], decrypted: Features, plan: Plan, rank: int,
    output: np.ndarray[Any, Any] | None,
) -> Features:  # fmt: skip
    """What one party sees and holds of both phases, and its output, four bits at a time, for every instance."""
    found = dealt_features(view, material, plan, output)

    def put(name: str, values: np.ndarray[Any, Any]) -> None:
        for row, part in enumerate(values.reshape(-1, plan.output.count)):
            found.update({f"{name}[{row}].{k}": cut for k, cut in enumerate(nibbles(part)[:2])})

    for name, values in (*numbers_of(heard, rank, gadgets_of(plan)), *decrypted.items()):
        put(name, values)
    for name, half in material.halves.items():
        share = getattr(half, "share", None)
        for f in fields(share) if share is not None else ():
            if f.name in SHARES:
                put(f"{name} share {f.name}", getattr(share, f.name))
    return found


def real(made: Made, kind: str, rank: int, factor: float = 1.0) -> tuple[Features, Outcome]:
    """Return a party's view of a real run."""
    plan = plan_program(made[0], Options(**ALONE))
    with pytest.MonkeyPatch.context() as patched:
        decrypted = watch_decryption(patched)
        outcome = run_masked(*made, [image(kind) * factor], keep=True, **ALONE)
    view, material = real_view(outcome, plan, rank), outcome.material[rank][0]
    output = units(outcome) if rank == CLIENT else None
    if rank == SERVER:
        decrypted.clear()
    return features(view, material, outcome.heard_offline[rank], decrypted, plan, rank, output), outcome


def simulated_client(made: Made, kind: str, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> Features:
    """Return a client's view made of its image and its logits."""
    heard: list[bytes] = []

    def make(plan: Plan, gadgets: Any) -> Material:
        material, heard[:] = client_offline(plan, gadgets, monkeypatch)
        return material

    logits = units(outcome)
    with monkeypatch.context() as patched:
        decrypted = watch_decryption(patched)
        view, material = simulate_client(made[0], image(kind), logits, make, **ALONE)
    return features(view, material, heard, decrypted, plan_program(made[0], Options(**ALONE)), CLIENT, logits)


@pytest.mark.parametrize("kind", ["relu", "square"])
def test_the_clients_view_with_its_output_is_what_a_simulator_makes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = summed(kind, FIRST, SECOND)
    seen, outcome = real(made, kind, CLIENT)
    simulated = simulated_client(made, kind, outcome, monkeypatch)
    assert len([name for name in seen if "offline" in name]) > 10
    assert differing(seen, simulated) == []


def test_networks_that_differ_in_what_stays_hidden_give_the_client_the_same_view() -> None:
    one, _ = real(summed("relu", FIRST, SECOND), "relu", CLIENT)
    two, _ = real(summed("relu", SECOND, FIRST), "relu", CLIENT)
    assert differing(one, two) == []


@pytest.mark.parametrize("kind", ["relu", "square"])
def test_the_servers_view_is_what_a_simulator_makes_of_its_weights(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, heard = summed(kind, FIRST, SECOND), list[bytes]()
    plan = plan_program(made[0], Options(**ALONE))

    def make(plan: Plan, gadgets: Any) -> Material:
        material, heard[:] = server_offline(plan, gadgets, layer_weights(plan, made[1]), monkeypatch)
        return material

    view, material = simulate_server(*made, 1, make, **ALONE)
    simulated = features(view, material, heard, {}, plan, SERVER, None)
    views = [real(made, kind, SERVER, factor)[0] for factor in (1.0, -3.0)]
    assert len([name for name in simulated if "offline" in name]) > 10
    assert differing(*views) == []
    assert differing(views[0], simulated) == []


def no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client decrypt without a flood: its noise is W times its own errors."""
    monkeypatch.setattr(bfv, "add_flood", lambda *args: None)


def no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server draw no K0: the client decrypts W k itself."""
    plain = linear._cut
    monkeypatch.setattr(linear, "_cut", lambda words, bits: plain(words, bits) * (words.ndim > 1))


@pytest.mark.parametrize(("leak", "where"), [(no_flood, "conv noise"), (no_share, "conv K1")])
def test_the_comparison_finds_what_the_argument_needs_if_it_is_left_out(
    leak: Callable[[pytest.MonkeyPatch], None], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = summed("relu", FIRST, SECOND)
    with monkeypatch.context() as patched:
        leak(patched)
        seen, outcome = real(made, "relu", CLIENT)
    assert any(where in pair for pair in differing(seen, simulated_client(made, "relu", outcome, monkeypatch)))
