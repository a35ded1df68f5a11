"""The masked protocol: right answers, declared costs, and messages that say nothing."""

from __future__ import annotations

import math
import threading
import weakref
from dataclasses import replace
from typing import Any

import masked_pair
import networks_for_tests as networks
import numpy as np
import pytest
import torch
from masked_pair import Outcome, assert_uniform, run_masked, units, words

from pibench.errors import MaterialError, PartyError, UsageError
from pibench.lowering.program import Add, AvgPool, Conv, Flatten, Input, Linear, MaxPool, Poly, Program, Relu
from pibench.lowering.reference import evaluate
from pibench.mpc.masked import protocol as masked
from pibench.mpc.masked.gadgets.extend import Extend
from pibench.mpc.masked.gadgets.product import Product
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.sources import dealer, first_party
from pibench.mpc.masked.sources.first_party import FirstPartyClient
from pibench.mpc.masked.total_cost import operation_cost
from pibench.mpc.protocol import CLIENT, SERVER, Cost

pytestmark = pytest.mark.timeout(120)
ULP = 2.0**-16


def identity_relu(count: int, mask: bool = False) -> tuple[Program, dict[str, torch.Tensor]]:
    """A product by one, then a ReLU: what enters the ReLU is the image at twice the scale."""
    ops = (
        Input(name="input", inputs=(), shape=(1, 1, count)),
        Conv(name="conv", inputs=("input",), shape=(1, 1, count), weight="w", bias=None, kernel=(1, 1), stage="S1"),
        Relu(name="relu", inputs=("conv",), shape=(1, 1, count), stage="S1", mask="m" if mask else None),
    )
    masks = {"m": torch.rand(1, 1, count) < 0.1} if mask else {}
    return Program(ops, masks), {"w": torch.ones(1, 1, 1, 1)}


def close(outcome: Outcome, program: Program, weights: dict[str, torch.Tensor], images: list[torch.Tensor]) -> None:
    for logits, batch in zip(outcome.logits, images, strict=True):
        want = evaluate(program, weights, batch, dtype=torch.float64)
        assert logits.shape == want.shape
        assert (logits - want).abs().max() < 2**-8


@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.parametrize("name", networks.everything())
def test_every_operation_agrees_with_plaintext(name, batch):
    program, weights = networks.program_of(name)
    images = [torch.randn(batch, *networks.SHAPE) for _ in range(2)]
    close(run_masked(program, weights, images), program, weights, images)


@pytest.mark.parametrize("options", [{"range_bits": 8}, {"range_bits": 10}, {"range_bits": 16}])
@pytest.mark.parametrize("name", ["residual", "masked", "max pool"])
def test_every_choice_gives_the_same_answers(name, options):
    program, weights = networks.program_of(name)
    images = [torch.randn(2, *networks.SHAPE)]
    close(run_masked(program, weights, images, **options), program, weights, images)


@pytest.mark.parametrize("range_bits", [8, 12, 16])
def test_relu_is_within_one_unit_over_its_whole_range(range_bits):
    n = 40_000
    program, weights = identity_relu(n)
    spread = torch.rand(n, dtype=torch.float64) * range_bits
    x = torch.sign(torch.randn(n)) * torch.minimum(2.0**spread, torch.tensor(2.0**range_bits - 1))
    x[:6] = torch.tensor([0.0, ULP, -ULP, 2.0**range_bits - 1, -(2.0**range_bits) + 1, -0.5])
    image = (x.double() * 2**16).round().div(2**16).view(1, 1, 1, n)
    outcome = run_masked(program, weights, [image], range_bits=range_bits)
    error = (outcome.logits[0].double() - image.clamp(min=0)).abs().max().item()
    assert error <= ULP * 1.0001 + 2.0 ** (range_bits - 24)  # logits come as float32


def chain(count: int, depth: int, weight: float = 1.0) -> tuple[Program, dict[str, torch.Tensor]]:
    """Products by one number without a ReLU between: truncations alone."""
    ops = [Input(name="input", inputs=(), shape=(1, 1, count))]
    for k in range(depth):
        ops.append(
            Conv(name=f"c{k}", inputs=(ops[-1].name,), shape=(1, 1, count), weight="w", bias=None, kernel=(1, 1))
        )
    return Program(tuple(ops)), {"w": torch.full((1, 1, 1, 1), weight)}


def neighbours(x: np.ndarray, depth: int, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most that `depth` products by one number make of x, each rounded down or up to a unit."""
    low, high = x, x
    for _ in range(depth):
        ends = low * round(weight * 2**16), high * round(weight * 2**16)
        low, high = np.minimum(*ends) >> 16, -(-np.maximum(*ends) >> 16)
    return low, high


@pytest.mark.parametrize("weight", [1.0, -0.99991])  # of the second, all low bits of a product are busy
@pytest.mark.parametrize("depth", [2, 3, 5, 8])
def test_truncations_round_down_or_up_and_never_wrap(depth, weight):
    """Free, before a fresh mask, in an extension, of the logits: x / 2^m is rounded to one of its two neighbours."""
    n = 30_000
    program, weights = chain(n, depth, weight)
    x = torch.randint(-(2**28), 2**28, (n,))
    x[:8] = (limits(12) * 2**16).long()
    outcome = run_masked(program, weights, [x.double().view(1, 1, 1, n) / 2**16], keep=True)
    made, (low, high) = units(outcome, plan_program(program, Options())), neighbours(x.numpy(), depth, weight)
    assert ((low <= made) & (made <= high)).all()
    if weight != 1:  # the bound can be passed, and rounding is right on average
        assert (made == low).any()
        assert (made == high).any()
        exact = x.double() * (round(weight * 2**16) / 2**16) ** depth
        error = made - exact.numpy()
        assert abs(error.mean()) < 5 * error.std() / n**0.5


def test_long_linear_chains_extend_the_ring():
    plan = plan_program(chain(4, 5)[0], Options())
    assert any(isinstance(step, Extend) for step in plan.steps)
    assert all(value.bits <= 64 for value in plan.values.values())


def test_a_value_with_more_bits_than_a_relu_makes_is_refused():
    ops = (
        Input(name="input", inputs=(), shape=(1, 448, 448)),
        Relu(name="relu", inputs=("input",), shape=(1, 448, 448)),
        AvgPool(name="first", inputs=("relu",), shape=(1, 28, 28), kernel=(16, 16), stride=(16, 16)),
        AvgPool(name="second", inputs=("first",), shape=(1, 1, 1), kernel=(28, 28), stride=(28, 28)),
    )
    with pytest.raises(UsageError, match="need more than 62 ring bits"):
        plan_program(Program(ops), Options())


def test_a_shortcut_is_extended_beside_the_relu_instead_of_the_larger_value_before_both():
    plan = plan_program(networks.program_of("culled")[0], Options())
    inside, shortcut = (step for step in plan.steps if isinstance(step, Extend))
    assert (inside.shift, shortcut.shift) == (16, 0)
    assert any(shortcut in group and len(group) == 2 for group in plan.groups)
    assert plan.rounds == 1 + 2 + 4 + 4
    reads = {step.inputs for step in plan.steps if isinstance(step, Product)}
    assert all(plan.values[name].drawn for (name,) in reads)


@pytest.mark.parametrize("name", networks.everything())
@pytest.mark.parametrize("batch", [1, 3])
def test_declared_cost_is_what_the_transport_counts(name, batch):
    program, weights = networks.program_of(name)
    outcome = run_masked(program, weights, [torch.randn(batch, *networks.SHAPE)])
    declared = sum((operation_cost(program, op, batch, {}) for op in program), Cost())
    server, client = outcome.online[SERVER][0].total, outcome.online[CLIENT][0].total
    assert (declared.rounds, declared.rounds) == (server.rounds, client.rounds)
    assert (declared.server_bytes, declared.client_bytes) == (server.sent_bytes, client.sent_bytes)
    assert outcome.offline[CLIENT].total.sent_bytes == declared.offline_client_bytes
    assert outcome.offline[CLIENT].total.rounds == declared.offline_rounds
    assert outcome.setup[SERVER].total.sent_bytes == declared.setup_server_bytes
    for op in program:
        here = [other for other in program if (other.site or other.name) == (op.site or op.name)]  # ReLU6 has two
        want = sum((operation_cost(program, other, batch, {}) for other in here), Cost())
        parts = [t for (_, _, site), t in outcome.online[SERVER][0].parts.items() if site == (op.site or op.name)]
        if program.output not in here:  # the logits' way counts with the last operation, and is sent after it
            assert sum(part.sent_bytes for part in parts) == want.server_bytes


def test_parts_add_up_to_the_whole():
    program, weights = networks.program_of("residual")
    tally = run_masked(program, weights, [torch.randn(1, *networks.SHAPE)]).online[SERVER][0]
    assert math.isclose(sum(part.time_s for part in tally.parts.values()), tally.total.time_s)
    assert sum(part.sent_bytes for part in tally.parts.values()) == tally.total.sent_bytes


def test_a_relu_costs_its_formula():
    program, _ = identity_relu(1000)
    cost = operation_cost(program, program.ops[2], 1, {})
    assert cost == Cost(
        rounds=5, server_bytes=1000 * 5 + 125 + 1000 * 4, client_bytes=1000 * (1 + 4), offline_client_bytes=6000,
        dealer_bytes=1000 * 104,
    )  # fmt: skip


def test_two_activations_of_one_value_are_two():
    shape = (2, 2, 2)
    ops: tuple[Any, ...] = (
        Input(name="input", inputs=(), shape=shape),
        Poly(name="a", inputs=("input",), shape=shape, coefficients="c"),
        Poly(name="b", inputs=("input",), shape=shape, coefficients="d"),
        Relu(name="r", inputs=("input",), shape=shape, mask="all"),
        Relu(name="s", inputs=("input",), shape=shape, mask="all"),
        Add(name="ab", inputs=("a", "b"), shape=shape),
        Add(name="rs", inputs=("r", "s"), shape=shape),
        Add(name="sum", inputs=("ab", "rs"), shape=shape),
    )
    program = Program(ops, {"all": torch.ones(shape, dtype=torch.bool)})
    weights, images = {"c": torch.rand(3, 2), "d": torch.rand(3, 2)}, [torch.randn(1, *shape)]
    outcome = run_masked(program, weights, images)
    close(outcome, program, weights, images)
    declared = sum((operation_cost(program, op, 1, {}) for op in program), Cost())
    assert outcome.offline[CLIENT].total.sent_bytes == declared.offline_client_bytes
    assert outcome.online[CLIENT][0].total.sent_bytes == declared.client_bytes


def test_logits_that_are_an_earlier_value_are_that_value():
    """A ReLU that keeps nothing does nothing: what it reads are the logits, whatever else was planned after them."""
    shape = (2, 2, 2)
    layer = [
        Conv(name=name, inputs=(source,), shape=shape, weight=name, bias=None, kernel=(1, 1))
        for name, source in (("u", "input"), ("v", "u"))
    ]
    none = Relu(name="r", inputs=("u",), shape=shape, mask="none")
    program = Program(
        (Input(name="input", inputs=(), shape=shape), *layer, none), {"none": torch.zeros(shape, dtype=torch.bool)}
    )
    weights, images = {"u": torch.randn(2, 2, 1, 1), "v": torch.randn(2, 2, 1, 1)}, [torch.randn(1, *shape)]
    close(run_masked(program, weights, images), program, weights, images)


def test_cost_follows_the_kept_count():
    torch.manual_seed(3)
    full, sparse = identity_relu(10_000)[0], identity_relu(10_000, mask=True)[0]
    a, b = (operation_cost(p, p.ops[2], 1, {}) for p in (full, sparse))
    assert b.dealer_bytes < 0.15 * a.dealer_bytes
    assert b.server_bytes - 4 * 10_000 < 0.15 * (a.server_bytes - 4 * 10_000) + 10_000


def fixed_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the dealer draw the same masks in every run of this test; what a real dealer never does."""
    drawn = iter(bytes([k]) * 16 for k in range(1, 200))
    monkeypatch.setattr(dealer, "fresh_seed", lambda: next(drawn))


def both_runs(monkeypatch: pytest.MonkeyPatch, first: torch.Tensor, second: torch.Tensor) -> tuple[Outcome, Outcome]:
    program, weights = identity_relu(first.numel())
    runs = []
    for image in (first, second):
        fixed_seeds(monkeypatch)
        runs.append(run_masked(program, weights, [image.view(1, 1, 1, -1)]))
    return runs[0], runs[1]


def test_openings_differ_by_the_inputs_difference_and_nothing_else_is_sent(monkeypatch):
    n = 512
    first, second = (((torch.rand(n, dtype=torch.float64) - 0.5) * 64 * 2**16).round() / 2**16 for _ in range(2))
    a, b = both_runs(monkeypatch, first, second)
    gap = ((second - first) * 2**16).long().numpy()
    to_server = [[words(m, w) for m, w in ((r.heard[SERVER][0][0], 6),)] for r in (a, b)]
    assert ((to_server[1][0] - to_server[0][0] - gap) % 2**48 == 0).all()  # the masked image
    opened = [words(r.heard[CLIENT][0][0], 4) for r in (a, b)]
    assert ((opened[1] - opened[0] - gap) % 2**30 == 0).all()  # the ReLU's opening, from the fraction bits up
    for rank in (SERVER, CLIENT):
        assert [len(m) for m in a.heard[rank][0]] == [len(m) for m in b.heard[rank][0]]


def test_the_same_image_under_fresh_masks_is_sent_as_something_else():
    program, weights = identity_relu(256)
    image = torch.ones(1, 1, 1, 256)
    outcome = run_masked(program, weights, [image, image])
    for rank in (SERVER, CLIENT):
        for one, two in zip(outcome.heard[rank][0][:-1], outcome.heard[rank][1][:-1], strict=True):
            assert one != two


def test_what_each_party_receives_is_uniform():
    """The same image 64 times: every byte of every message (the logits apart) passes a chi-squared test."""
    program, weights = identity_relu(1024)
    outcome = run_masked(program, weights, [torch.full((1, 1, 1, 1024), 1.25)] * 64)
    assert_uniform(outcome, SERVER, 3, (64, 128, 256))
    assert_uniform(outcome, CLIENT, 3, (64, 128, 256))


def test_weights_reach_the_client_only_under_a_mask(monkeypatch):
    sent: list[np.ndarray] = []

    class Listening(FirstPartyClient):
        def setup(self, weights, kept):
            masked_weights = super().setup(weights, kept)
            sent.extend(array.view(np.int64).copy() for array in masked_weights.values())
            return masked_weights

    monkeypatch.setattr(first_party, "CLIENT", Listening)
    program, weights = networks.program_of("residual")
    for _ in range(2):
        run_masked(program, weights, [torch.randn(1, *networks.SHAPE)])
    half = len(sent) // 2
    for one, two in zip(sent[:half], sent[half:], strict=True):
        assert (one != two).all()  # a fresh mask each time, and never the small numbers that weights are
        assert np.abs(one.astype(np.float64)).mean() > 2**61


def test_material_is_used_once(monkeypatch):
    class Forgetful(masked.MaskedProtocol):
        def offline(self, inferences: int) -> None:
            super().offline(1)

    monkeypatch.setattr(masked_pair, "MaskedProtocol", Forgetful)
    program, weights = identity_relu(4)
    with pytest.raises(MaterialError, match="no material is left"):
        run_masked(program, weights, [torch.ones(1, 1, 1, 4)] * 2)


def test_used_material_is_given_back_when_the_answer_is_out(monkeypatch):
    held = []

    class Watched(masked.MaskedProtocol):
        def online(self, images):
            material = weakref.ref(self._material[0])
            logits = super().online(images)
            held.append(material() is not None)  # freeing it takes time, which is not the answer's
            self.settle()
            held.append(material() is None)
            return logits

    monkeypatch.setattr(masked_pair, "MaskedProtocol", Watched)
    program, weights = identity_relu(4)
    run_masked(program, weights, [torch.ones(1, 1, 1, 4)])
    assert held == [True] * 4


@pytest.mark.parametrize(("count", "pieces"), [(64, 3), (40_000, 4)])
def test_small_messages_of_a_turn_go_out_together(count, pieces, monkeypatch):
    """The server's sends: opening and bits (one piece, or two where the peer can begin early), sign, logits."""
    sends = []

    class Counting(masked_pair.Tapped):
        def send(self, data):
            sends.append(threading.current_thread().name)
            super().send(data)

    monkeypatch.setattr(masked_pair, "Tapped", Counting)
    program, weights = identity_relu(count)

    class Quiet(masked.MaskedProtocol):
        def online(self, images):
            sends.clear()
            self.party.peer.barrier()
            logits = super().online(images)
            self.sent = sends.count(threading.current_thread().name)
            if self.party.is_server:
                made.append(self.sent)
            return logits

    made = []
    monkeypatch.setattr(masked_pair, "MaskedProtocol", Quiet)
    run_masked(program, weights, [torch.ones(1, 1, 1, count)])
    assert made == [pieces]


def test_debug_mode_finds_what_is_out_of_range():
    program, weights = identity_relu(8)
    image = torch.zeros(1, 1, 1, 8)
    image[..., 3] = 5000.0
    with pytest.raises(PartyError, match=r"relu reaches 5000\.0, .* outside the protocol's range of 4096"):
        run_masked(program, weights, [image], check_ranges=True)
    image[..., 3] = -12000.0  # seen modulo 16384: up to three times the range for certain
    with pytest.raises(PartyError, match=r"reaches 4384\.0, or that and a multiple of 16384,"):
        run_masked(program, weights, [image], check_ranges=True)
    image = image.double()
    image[..., 3] = 4096 - ULP
    assert run_masked(program, weights, [image], check_ranges=True).logits[0].max() == 4096  # as float32
    weights["w"] += 2 * ULP  # a product between the last number of the range and its end: a ReLU might make it zero
    image[..., 3] = 4095.875  # times 1 + 2^-15 almost 4096
    with pytest.raises(PartyError, match=r"reaches 4096\.0, .* outside the protocol's range of 4096 \(less 2\^-16"):
        run_masked(program, weights, [image], check_ranges=True)
    weights["w"] -= 2 * ULP
    image[..., 3] = 4000.0
    assert run_masked(program, weights, [image], check_ranges=True).logits[0].max() == 4000


@pytest.mark.parametrize(
    ("options", "message"),
    [({"digit_bits": 5}, "no option digit_bits"), ({"range_bits": 20}, "do not cover"), ({"fast": 1}, "no option fast"),
     ({"provider": "nobody"}, "provider"), ({"range_bits": -8}, "range_bits is -8"),
     ({"range_bits": "12"}, "range_bits is '12'"), ({"fraction_bits": 0}, "fraction_bits is 0"),
     ({"deal_ahead": -1}, "deal_ahead is -1")],
)  # fmt: skip
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Options.parse(options)


def test_pool_windows_may_hang_over_the_border():
    ops = (
        Input(name="input", inputs=(), shape=(2, 5, 5)),
        MaxPool(name="pool", inputs=("input",), shape=(2, 3, 3), kernel=(3, 3), stride=(2, 2), padding=(1, 1)),
        Add(name="add", inputs=("pool", "pool"), shape=(2, 3, 3)),
        Flatten(name="flat", inputs=("add",), shape=(18,)),
        Linear(name="fc", inputs=("flat",), shape=(4,), weight="w", bias="b"),
    )
    program, weights = Program(ops), {"w": torch.randn(4, 18), "b": torch.randn(4)}
    images = [-torch.rand(2, 2, 5, 5) * 100]
    close(run_masked(program, weights, images), program, weights, images)


@pytest.mark.parametrize("range_bits", [8, 12, 14])
@pytest.mark.parametrize("conv", [False, True])
def test_max_pools_are_within_one_unit_over_the_whole_range(range_bits, conv):
    """Of pairs as far apart as the range allows, and at the border, where what is outside must never win."""
    program, weights = identity_relu(8)
    top = 2.0**range_bits - 1
    ops = [Input(name="input", inputs=(), shape=(1, 1, 8)), replace(program.ops[1], shape=(1, 1, 8))]
    pool = MaxPool(name="pool", inputs=(ops[conv].name,), shape=(1, 1, 5), kernel=(1, 2), stride=(1, 2), padding=(0, 1))
    image = torch.tensor([-top, top, -top, -top, top, -top + ULP, -top, -top]).view(1, 1, 1, 8)
    outcome = run_masked(Program((*ops[: 1 + conv], pool)), weights, [image], range_bits=range_bits)
    want = torch.tensor([-top, top, top, -top + ULP, -top]).view(1, 1, 1, 5)
    assert (outcome.logits[0] - want).abs().max() <= ULP * 1.0001 + 2.0 ** (range_bits - 24)


def limits(range_bits: int) -> torch.Tensor:
    """The largest and the lowest number of the range, and their neighbours."""
    top, unit = 2.0**range_bits, 2.0**-16
    return torch.tensor([top - unit, top - 2 * unit, -top, -top + unit, unit, -unit, 0.0, top - 1], dtype=torch.float64)


@pytest.mark.parametrize("range_bits", [8, 10, 12, 14, 15, 16])
def test_relus_hold_at_both_ends_of_the_range(range_bits):
    program, weights = identity_relu(8)
    for _ in range(4):
        outcome = run_masked(program, weights, [limits(range_bits).view(1, 1, 1, 8)], range_bits=range_bits)
        assert torch.equal(outcome.logits[0].view(-1), limits(range_bits).clamp(min=0).float())


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("range_bits", [8, 10, 12, 14, 15, 16])
def test_max_pools_hold_at_both_ends_of_the_range_and_beside_the_border(range_bits, conv):
    """Of all pairs of those numbers, and of each alone beside what lies outside: exact, whatever the masks are."""
    pairs = torch.cartesian_prod(limits(range_bits), limits(range_bits)).reshape(-1)
    n = pairs.numel()
    ops = [
        Input(name="input", inputs=(), shape=(1, 1, n)), replace(identity_relu(n)[0].ops[1], shape=(1, 1, n)),
        MaxPool(
            name="pool", inputs=("conv" if conv else "input",), shape=(1, 1, n // 2), kernel=(1, 2), stride=(1, 2)
        ),
    ]  # fmt: skip
    alone = replace(ops[2], shape=(1, 1, n), kernel=(1, 2), stride=(1, 2), padding=(0, n // 2))
    for pool in (ops[2], alone):
        made = Program((*ops[: 1 + conv], pool))
        image = pairs.view(1, 1, 1, n)
        outcome = run_masked(made, {"w": torch.ones(1, 1, 1, 1)}, [image], range_bits=range_bits)
        padded = torch.nn.functional.pad(image, pool.padding[::-1] if pool is ops[2] else (n // 2, n // 2), value=-1e9)
        want = torch.nn.functional.max_pool2d(padded, (1, 2), (1, 2)).clamp(min=-(2.0**range_bits))
        assert torch.equal(outcome.logits[0], want.float())


@pytest.mark.parametrize("low", [0.25, 0.5, 0.75])
def test_near_ties_after_a_product_are_within_one_unit(low):
    """Two values that differ by less than a unit, with all low bits busy."""
    n = 4_000
    weights = {"w": torch.full((1, 1, 1, 1), 0.30001)}
    ops = (
        Input(name="input", inputs=(), shape=(1, 1, n)), replace(identity_relu(n)[0].ops[1], shape=(1, 1, n)),
        MaxPool(name="pool", inputs=("conv",), shape=(1, 1, n // 2), kernel=(1, 2), stride=(1, 2)),
    )  # fmt: skip
    image = torch.randint(-4, 4, (1, 1, 1, n)).double() * ULP + low
    outcome = run_masked(Program(ops), weights, [image])
    exact = (image * 2**16).round() * round(0.30001 * 2**16) / 2**32
    error = (outcome.logits[0].double() - torch.nn.functional.max_pool2d(exact, (1, 2), (1, 2))).abs().max()
    assert error < 2 * ULP  # less than one of the pool, and less than one of the logits' rounding


@pytest.mark.parametrize("size", [3, 5, 7, 28])
def test_averages_of_any_size_are_as_exact_as_the_fixed_point(size):
    ops = (
        Input(name="input", inputs=(), shape=(1, size, size)),
        AvgPool(name="pool", inputs=("input",), shape=(1, 1, 1), kernel=(size, size), stride=(size, size)),
        Flatten(name="flat", inputs=("pool",), shape=(1,)),
        Linear(name="fc", inputs=("flat",), shape=(1,), weight="w", bias=None),
    )
    outcome = run_masked(Program(ops), {"w": torch.ones(1, 1)}, [torch.full((1, 1, size, size), 100.0)])
    assert abs(outcome.logits[0].item() - 100) <= 100 * 2**-17 + 2 * ULP
