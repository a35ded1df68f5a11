"""What the parties of the masked protocol see says no more than their input and output: compared with simulators."""

from __future__ import annotations

import itertools
import random
from dataclasses import fields, replace
from typing import Any

import masked_simulators
import numpy as np
import pytest
import torch
from masked_pair import Outcome, run_masked
from masked_simulators import View, simulate_client, simulate_server
from scipy import special, stats

from pibench.lowering.program import Conv, Input, MaxPool, Poly, Program, Relu, Weights
from pibench.mpc.backends import kernels
from pibench.mpc.masked.gadgets.extend import Extend
from pibench.mpc.masked.gadgets.relu_truth_tables import Tables
from pibench.mpc.masked.gadgets.square import Square
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.sources import dealer
from pibench.mpc.masked.sources.source import Material
from pibench.mpc.protocol import CLIENT, SERVER
from pibench.mpc.ring.packing import unpack
from pibench.mpc.ring.wide import pieces_for

pytestmark = pytest.mark.timeout(120)
N = 20_000  # independent instances in one run: elements of one image
CHANCE = 1e-7  # of a pair of features to differ as much by chance; there are hundreds
Features = dict[str, np.ndarray[Any, Any]]
Made = tuple[Program, Weights]
NUMBERS = {Square: (1, 0.5), Extend: (2, 1)}  # in a message to server and client, for each of a step's output
FIRST, SECOND = 0.30001, 0.59999  # weights whose products leave all low bits busy


def summed(kind: str, first: float, second: float) -> Made:
    """Two products of every element, an activation of each, and their sum; or their maximum, or a square."""
    ops: list[Any] = [
        Input(name="input", inputs=(), shape=(1, 1, N)),
        Conv(name="conv", inputs=("input",), shape=(2, 1, N), weight="w", bias=None, kernel=(1, 1)),
    ]
    weights = {"w": torch.tensor([first, second]).view(2, 1, 1, 1), "ones": torch.ones(1, 2, 1, 1)}
    if kind == "chain":  # products before it, whose truncations lose nothing
        first_of, *_ = ops
        ones = [
            Conv(name=f"c{k}", inputs=(before,), shape=(1, 1, N), weight="one", bias=None, kernel=(1, 1))
            for k, before in enumerate(("input", "c0", "c1"))
        ]
        ops = [first_of, *ones, replace(ops[1], inputs=("c2",))]
        weights["one"] = torch.ones(1, 1, 1, 1)
    if kind == "pool":  # neighbours of one channel, which are nearly tied
        pool = MaxPool(name="pool", inputs=("conv",), shape=(2, 1, N // 2), kernel=(1, 2), stride=(1, 2))
        return Program((*ops, pool)), weights
    if kind == "square":
        weights["c"] = torch.tensor([[0.25, 0.25], [0.5, 0.5], [0.0, 0.0]])
        ops.append(Poly(name="act", inputs=("conv",), shape=(2, 1, N), coefficients="c"))
    else:
        ops.append(Relu(name="act", inputs=("conv",), shape=(2, 1, N)))
    ops.append(Conv(name="sum", inputs=("act",), shape=(1, 1, N), weight="ones", bias=None, kernel=(1, 1)))
    return Program(tuple(ops)), weights


def image(kind: str) -> torch.Tensor:
    """The same number everywhere; for pools, pairs that differ by less than a unit after the product."""
    x = torch.full((N,), 1.2345, dtype=torch.float64)
    if kind == "pool":
        x[1::2] += 2.0**-16
    return x.view(1, 1, 1, N)


def nibbles(values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """The lowest four bits of every number, those in the middle of a unit, and the highest of 30."""
    if values.dtype == np.uint8:
        return [values & 15, values >> 4]
    return [((values.astype(np.int64) >> at) & 15).astype(np.uint8) for at in (0, 12, 26)]


def message_words(message: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """A message's numbers, from whole bytes or from packed bits."""
    width = message.size // count
    return unpack(message, width) if width > 1 else message if width else np.unpackbits(message, count=count)


def features(view: View, material: Material, plan: Plan, output: np.ndarray[Any, Any] | None) -> Features:
    """What one party sees and draws, and its output, four bits at a time, for every instance."""
    found: Features = {}
    instances = plan.output.count
    each = {step.out: NUMBERS.get(type(step), (1, 1))[output is not None] for step in plan.steps}

    def put(name: str, values: np.ndarray[Any, Any]) -> None:
        if values.size % instances == 0:
            for row, nibble in itertools.product(range(values.size // instances), (0, 1, 2)):
                cut = nibbles(values.reshape(-1, instances)[row])
                if nibble < len(cut):
                    found[f"{name}[{row}].{nibble}"] = cut[nibble]

    for name, messages in view.items():
        for k, message in enumerate(messages):
            size = instances if name == "logits" else round(plan.count(name) * each.get(name, 1))
            if name != "logits" and plan.values[name].words > 1:  # in pieces of four bytes
                size *= pieces_for(plan.values[name].bits)
            put(f"{name} message {k}", message_words(message, size))
    for name, half in material.halves.items():
        for f in fields(half) if half is not None else ():
            value = getattr(half, f.name)
            if f.name == "pads":  # the first byte of the first entry's, and the last byte of the last one's
                value = value.reshape(plan.count(name), -1)[:, [0, -1]].T
            if isinstance(value, np.ndarray) and f.name not in ("image", "key"):
                put(f"{name} {f.name}", value.reshape(-1))
    if output is not None:
        found["output"] = np.clip(output - int(np.median(output)) + 8, 0, 15).astype(np.uint8)
    return found


def chance_of(counts: np.ndarray[Any, Any]) -> float:
    """Return how likely two rows of counts differ as much by chance: Pearson's test, without its overhead."""
    expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    return float(special.chdtrc(counts.shape[1] - 1, ((counts - expected) ** 2 / expected).sum()))


def test_the_chance_is_pearsons():
    counts = np.random.default_rng(1).integers(20, 90, (2, 12))
    assert chance_of(counts) == pytest.approx(stats.chi2_contingency(counts).pvalue)


def differing(one: Features, two: Features) -> list[str]:
    """Pairs of features whose joint distributions differ between two views."""
    assert one.keys() == two.keys()
    assert len(one) > 5
    found = []
    high = [{name: cut.astype(np.int64) * 16 for name, cut in f.items()} for f in (one, two)]
    for a, b in itertools.combinations_with_replacement(one, 2):
        counts = np.array([np.bincount(h[a] + f[b], minlength=256) for h, f in zip(high, (one, two), strict=True)])
        counts = counts[:, counts.sum(0) >= 10]
        if counts.shape[1] > 1 and chance_of(counts) < CHANCE:
            found.append(f"{a} with {b}")
    return found


def real_view(outcome: Outcome, plan: Plan, rank: int) -> View:
    """Return what a party heard, by the steps that heard it (none of these networks has two in one group)."""
    messages = [np.frombuffer(m, np.uint8) for m in outcome.heard[rank][0]]
    each = {"Receive": (1, 0), "ReluStep": (2, 3), "OfferedRelu": (3, 2), "Square": (1, 1), "Extend": (1, 1)}
    view: View = {}
    for step in (step for group in plan.groups for step in group if step.talks):
        count = each[type(step).__name__][rank]
        view[step.out], messages = messages[:count], messages[count:]
    if rank == CLIENT:
        view["logits"], messages = messages, []
    assert not messages
    return view


def units(outcome: Outcome) -> np.ndarray[Any, Any]:
    """The logits of the first image, in units of the fraction bits."""
    return np.rint(outcome.logits[0].double().numpy().reshape(-1) * 2**16).astype(np.int64)


@pytest.fixture(autouse=True)
def same_masks_every_time(monkeypatch):
    """Seeds that a test draws in every run alike: what holds but for one time in many then holds always."""
    seeds = random.Random(1)
    for module in (dealer, masked_simulators):
        monkeypatch.setattr(module, "fresh_seed", lambda: seeds.randbytes(16))


@pytest.fixture
def parts_are_kept(monkeypatch):
    """Let the client's part of what enters a ReLU count as seen: it is."""
    plain = Tables.client_part

    def keeping(self, inputs, half):
        if inputs[0] is not None:
            half.shown = np.ascontiguousarray(inputs[0]).reshape(-1)
        return plain(self, inputs, half)

    monkeypatch.setattr(Tables, "client_part", keeping)


def client_features(made: Made, kind: str, **options: Any) -> tuple[Features, Features]:
    """Return the client's view of a real run, and a simulated one of the same output."""
    plan, x = plan_program(made[0], Options(**options)), image(kind)
    outcome = run_masked(*made, [x], keep=True, **options)
    logits = units(outcome)
    real = features(real_view(outcome, plan, CLIENT), outcome.material[CLIENT][0], plan, logits)
    view, material = simulate_client(made[0], x, logits, **options)
    return real, features(view, material, plan, logits)


@pytest.mark.parametrize(("kind", "relu_messages"), [("relu", 4), ("relu", 2), ("pool", 4), ("pool", 2), ("square", 4)])
def test_the_clients_view_with_its_output_is_what_a_simulator_makes_of_the_output(kind, relu_messages, parts_are_kept):
    real, simulated = client_features(summed(kind, FIRST, SECOND), kind, relu_messages=relu_messages)
    assert differing(real, simulated) == []


@pytest.mark.parametrize("wide_image", [False, True])
def test_a_chain_of_layers_before_a_relu_shows_the_client_no_more(wide_image, parts_are_kept):
    made, options = summed("chain", FIRST, SECOND), {"relu_messages": 2, "wide_image": wide_image}
    plan = plan_program(made[0], Options(**options))
    assert wide_image is not any(isinstance(step, Extend) for step in plan.steps)
    assert (plan.values["input"].bits > 64) is wide_image
    real, simulated = client_features(made, "chain", **options)
    assert differing(real, simulated) == []


@pytest.mark.parametrize("relu_messages", [4, 2])
def test_two_networks_that_differ_in_what_stays_hidden_give_the_client_the_same_view(relu_messages, parts_are_kept):
    """Which of two ReLUs has which value is in no output; both runs must look alike, outputs included."""
    one, _ = client_features(summed("relu", FIRST, SECOND), "relu", relu_messages=relu_messages)
    two, _ = client_features(summed("relu", SECOND, FIRST), "relu", relu_messages=relu_messages)
    assert differing(one, two) == []


class Leak:
    """The protocol as it once was: the low bits of an opening are sent as well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.low: list[np.ndarray[Any, Any]] = []
        plain = kernels.open_masked

        def opening(z, pre, low, c):
            if z.size >= N:  # not when kernels are compiled
                self.low.append((z + pre) & ((1 << low) - 1))
            plain(z, pre, low, c)

        monkeypatch.setattr(kernels, "open_masked", opening)

    def seen(self) -> Features:
        """Those bits as features."""
        return {f"low[{row}]": (cut >> 12).astype(np.uint8) for row, cut in enumerate(self.low.pop().reshape(-1, N))}


def test_the_comparison_finds_the_low_bits_of_openings_if_they_are_sent(monkeypatch):
    leak, views = Leak(monkeypatch), []
    for weights in ((FIRST, SECOND), (SECOND, FIRST)):
        real, simulated = client_features(summed("relu", *weights), "relu")
        views.append(real | leak.seen())
        uniform = {f"low[{row}]": np.random.default_rng(row).integers(0, 16, N, np.uint8) for row in (0, 1)}
        assert any("low" in pair and "output" in pair for pair in differing(views[-1], simulated | uniform))
    assert any("low" in pair and "output" in pair for pair in differing(*views))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("relu", {"relu_messages": 4}), ("relu", {"relu_messages": 2}), ("square", {}), ("chain", {}),
        ("chain", {"wide_image": True}),
    ],
)  # fmt: skip
def test_the_servers_view_of_two_images_is_what_a_simulator_makes_of_nothing(kind, options):
    made = summed(kind, FIRST, SECOND)
    plan, views = plan_program(made[0], Options(**options)), []
    for x in (image(kind), -3 * image(kind)):
        outcome = run_masked(*made, [x], keep=True, **options)
        views.append(features(real_view(outcome, plan, SERVER), outcome.material[SERVER][0], plan, None))
    view, material = simulate_server(*made, 1, **options)
    simulated = features(view, material, plan, None)
    assert differing(views[0], views[1]) == []
    assert differing(views[0], simulated) == []
