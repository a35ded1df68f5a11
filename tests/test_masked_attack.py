"""The rounding attack finds nothing in what a client sees, and finds everything where low bits are sent."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from masked_pair import run_masked
from rounding_attack import correlate, recover
from sklearn.datasets import load_digits
from torch import nn

from pibench.lowering.lower import lower
from pibench.lowering.program import Weights
from pibench.mpc.backends import kernels
from pibench.mpc.masked.client import Client
from pibench.mpc.masked.gadgets.extend import Extend, Extension
from pibench.mpc.masked.gadgets.relu_truth_tables import ClientHalf, Tables
from pibench.mpc.masked.gadgets.remask import FreshMask
from pibench.mpc.masked.gadgets.square import ClientHalf as SquareHalf
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.sources import dealer
from pibench.mpc.protocol import CLIENT, SERVER
from pibench.mpc.ring.fixedpoint import encode
from pibench.mpc.ring.packing import unpack
from pibench.networks.activations import Quadratic

pytestmark = pytest.mark.timeout(120)
RUNS = 3000


@pytest.fixture(autouse=True)
def same_masks_every_time(monkeypatch):
    """Seeds that a test draws in every run alike: what holds but for one time in many then holds always."""
    seeds = random.Random(1)
    monkeypatch.setattr(dealer, "fresh_seed", lambda: seeds.randbytes(16))


def shallow(activation: nn.Module, *pool: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    features = 16 if pool else 64
    return nn.Sequential(nn.Conv2d(1, 4, 3), *pool, activation, nn.Flatten(), nn.Linear(features, 10)).eval()


def trained() -> nn.Sequential:
    """Two convolutions that have learnt digits."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10)
    )
    images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 8 - 1
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for start in range(0, 1536, 64):
        loss = nn.functional.cross_entropy(net(images[start : start + 64]), labels[start : start + 64])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@dataclass
class Ears:
    """What the client comes to know in one batch of runs, kept as it passes."""

    logits: list[np.ndarray]  # with all fraction bits that it could work out
    low: list[np.ndarray]  # of openings: what is not sent


@pytest.fixture
def ears(monkeypatch):
    ears = Ears([], [])
    add, opening, part_of = Client._add, kernels.open_masked, Tables.client_part

    def adding(self, heard, part):
        total = (unpack(heard, self.plan.answer_bytes) << self.plan.output_shift) + part.reshape(-1)
        keep = 64 - self.plan.output.bits
        ears.logits.append(((total << keep) >> keep).reshape(len(part), -1))
        return add(self, heard, part)

    def open_masked(z, pre, low, c):
        if z.size >= RUNS:  # not when kernels are compiled
            ears.low.append((z + pre) & ((1 << low) - 1))
        opening(z, pre, low, c)

    def client_part(self, inputs, half):
        if inputs[0] is not None:
            half.shown = np.ascontiguousarray(inputs[0]).reshape(-1)
        return part_of(self, inputs, half)

    monkeypatch.setattr(Client, "_add", adding)
    monkeypatch.setattr(kernels, "open_masked", open_masked)
    monkeypatch.setattr(Tables, "client_part", client_part)
    return ears


@dataclass
class Runs:
    """One image many times: what the client sees of every ReLU, what it gets, and, to score it, what is active."""

    seen: np.ndarray  # (numbers, runs, ReLUs)
    logits: np.ndarray  # (runs, classes), units of the product's scale
    low: np.ndarray  # (runs, ReLUs): never seen
    active: np.ndarray  # (ReLUs,)
    weights: Weights


def runs_of(net: nn.Module, shape: tuple[int, ...], ears: Ears) -> Runs:
    program, weights = lower(net, shape)
    outcome = run_masked(program, weights, [torch.randn(1, *shape).repeat(RUNS, 1, 1, 1)], keep=True)
    (mine,), (theirs,) = outcome.material[CLIENT], outcome.material[SERVER]
    messages = iter(np.frombuffer(m, np.uint8) for m in outcome.heard[CLIENT][0])
    seen, active = [], []
    plan = plan_program(program, Options(), RUNS)
    for step in plan.steps:
        half = mine.halves.get(step.out)
        if isinstance(step, Extend):
            next(messages)
        if isinstance(half, ClientHalf):
            opened, bits, beta = (next(messages) for _ in range(3))
            beta, c = np.unpackbits(beta, count=half.r.size), unpack(opened, opened.size // half.r.size)
            numbers = [c & 0xFFFF, half.r & 0xFFFF, half.r >> 16 & 0xFFFF, half.shown & 0xFFFF, bits, half.mu, beta]
            seen.append(np.stack([n.reshape(RUNS, -1).astype(np.float64) for n in numbers]))
            value = (theirs.parts[step.inputs[0]].reshape(-1) + half.shown) << (64 - plan.windows[step.inputs[0]].bits)
            active.append(np.median(value.reshape(RUNS, -1), 0) > 0)
    low = np.concatenate([low.reshape(RUNS, -1) for low in ears.low], 1).astype(np.float64)
    return Runs(np.concatenate(seen, 2), ears.logits[0].astype(np.float64), low, np.concatenate(active), weights)


NETWORKS = {
    "relus": lambda: shallow(nn.ReLU()),
    "max pool": lambda: shallow(nn.ReLU(), nn.MaxPool2d(2)),
    "deeper and trained": trained,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_that_the_client_sees_tells_which_relus_are_active(name, ears):
    shape = (1, 8, 8) if name == "deeper and trained" else (1, 6, 6)
    runs = runs_of(NETWORKS[name](), shape, ears)
    finding = correlate(runs.seen, runs.logits, runs.active)
    assert abs(finding.auc - 0.5) < 4 * finding.error
    assert not len(finding.found)


def test_rounding_the_logits_does_not_bring_anything_out(ears):
    runs = runs_of(NETWORKS["relus"](), (1, 6, 6), ears)
    finding = correlate(runs.seen, np.floor(runs.logits / 2**16 + 0.5), runs.active)
    assert abs(finding.auc - 0.5) < 4 * finding.error
    assert not len(finding.found)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_attack_finds_relus_by_low_bits_of_openings(name, rounded, ears, monkeypatch):
    """As the protocol once was: they are sent, with all fraction bits of the logits; rounding these hides little."""
    monkeypatch.setattr(Plan, "output_shift", 0)
    shape = (1, 8, 8) if name == "deeper and trained" else (1, 6, 6)
    runs = runs_of(NETWORKS[name](), shape, ears)
    logits = np.floor(runs.logits / 2**16 + 0.5) if rounded else runs.logits
    finding = correlate(runs.low[None], logits, runs.active)
    assert finding.auc > 0.5 + 4 * finding.error
    assert len(finding.found) > 0.15 * runs.active.sum()


def test_the_attack_recovers_weights_by_low_bits_of_openings(ears, monkeypatch):
    monkeypatch.setattr(Plan, "output_shift", 0)
    runs = runs_of(NETWORKS["relus"](), (1, 6, 6), ears)
    finding = correlate(runs.low[None], runs.logits, runs.active)
    heights, relus = recover(runs.low, runs.logits, finding.found)
    (last,) = (w for w in runs.weights.values() if w.shape == (10, 64))
    right = np.rint(heights) == encode(last).numpy()[:, relus]
    assert right.sum() > 0.9 * 10 * runs.active.sum()


def test_nothing_that_the_client_sees_of_a_square_tells_its_rounding(ears):
    net = shallow(Quadratic(4))
    program, weights = lower(net, (1, 6, 6))
    outcome = run_masked(program, weights, [torch.randn(1, 1, 6, 6).repeat(RUNS, 1, 1, 1)], keep=True)
    half = next(h for h in outcome.material[CLIENT][0].halves.values() if isinstance(h, SquareHalf))
    opened = unpack(np.frombuffer(outcome.heard[CLIENT][0][0], np.uint8), 4)
    numbers = [opened & 0xFFFF, half.r & 0xFFFF, half.r >> 16 & 0xFFFF]
    seen = np.stack([n.reshape(RUNS, -1).astype(np.float64) for n in numbers])
    any_half = np.arange(seen.shape[2]) % 2 == 0
    assert not len(correlate(seen, ears.logits[0].astype(np.float64), any_half).found)
    low = ears.low[0].reshape(1, RUNS, -1).astype(np.float64)
    assert len(correlate(low, ears.logits[0].astype(np.float64), any_half).found)  # if it were sent


def explained(low: np.ndarray, logits: np.ndarray) -> float:
    """Return how much of the logits' variance a straight line in the client's own low bits explains, less chance."""
    u = np.column_stack([np.ones(len(low)), low])
    rest = logits - u @ np.linalg.lstsq(u, logits, rcond=None)[0]
    raw = 1 - rest.var(0).mean() / logits.var(0).mean()
    return float(1 - (1 - raw) * (len(low) - 1) / (len(low) - u.shape[1]))


CULLED = {FreshMask: 1, Extension: 3}  # linear layers between the last ReLU and the head, and what then truncates


@pytest.mark.parametrize("kind", CULLED)
def test_free_truncations_and_extensions_leak_what_the_protocols_page_says(kind, ears, monkeypatch):
    """Their rounding is [k mod 2^m < x mod 2^m], k the client's own part: that much of the logits' noise it knows."""
    known = []
    plain = kind.client_part

    def client_part(self, inputs, half):
        if inputs[0] is not None and self.step.shift:
            known.append(inputs[0].reshape(RUNS, -1) & ((1 << self.step.shift) - 1))
        return plain(self, inputs, half)

    monkeypatch.setattr(kind, "client_part", client_part)
    torch.manual_seed(1)
    linear = [nn.Conv2d(4, 4, 1) for _ in range(CULLED[kind])]
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *linear, nn.Flatten(), nn.Linear(64, 10)).eval()
    program, weights = lower(net, (1, 6, 6))
    run_masked(program, weights, [torch.randn(1, 1, 6, 6).repeat(RUNS, 1, 1, 1)])
    share = explained(np.concatenate(known, 1).astype(np.float64), ears.logits[0].astype(np.float64))
    print(f"R^2 of the logits on the client's own low bits: {kind.__name__} {share:.3f}")
    assert 0.05 < share < 0.4


def test_crypten_leaks_as_much_and_more_by_its_local_truncation():
    """Each party divides its own share, so it knows part of the rounding; the same measure on the same arithmetic."""
    torch.manual_seed(1)
    net, image = shallow(nn.ReLU()), torch.randn(1, 1, 6, 6, dtype=torch.float64)
    weight, bias = (encode(t, bits).double() for t, bits in ((net[0].weight.detach(), 16), (net[0].bias.detach(), 32)))
    x = (nn.functional.conv2d((image * 2**16).round(), weight) + bias.view(-1, 1, 1)).reshape(-1).long().numpy()
    known = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, (RUNS, x.size), np.int64)
    halves = [torch.from_numpy(half).div(2**16, rounding_mode="trunc") for half in (x - known, known)]
    logits = (halves[0] + halves[1]).clamp(min=0).numpy() @ encode(net[3].weight.detach()).numpy().T
    share = explained((known & 0xFFFF).astype(np.float64), logits.astype(np.float64))
    print(f"R^2 of the logits on the client's own low bits: CrypTen {share:.3f}")
    assert 0.4 < share < 0.8
