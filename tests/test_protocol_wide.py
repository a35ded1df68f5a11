"""A wide image: the layers before the first ReLU without ring extensions, as exact as with them."""

from __future__ import annotations

from typing import Any

import networks_for_tests as networks
import numpy as np
import pytest
import torch
from masked_pair import assert_uniform, run_masked, units
from scipy import stats
from test_protocol_masked import chain, close, limits, neighbours

from pibench.errors import UsageError
from pibench.lowering.program import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Input,
    Linear,
    PadChannels,
    Program,
    Relu,
    Shape,
    Shift,
    Slice,
    Subtract,
    Weights,
)
from pibench.lowering.reference import evaluate
from pibench.mpc.delphi.options import DelphiOptions
from pibench.mpc.masked.gadgets.extend import Extend
from pibench.mpc.masked.gadgets.wide import LARGEST_SUM_BITS, WHOLE_SUM_BITS, Narrow
from pibench.mpc.masked.options import WIDEST_BITS, Options
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.total_cost import operation_cost
from pibench.mpc.protocol import CLIENT, SERVER, Cost, options_on

pytestmark = pytest.mark.timeout(120)
WIDE = {"wide_image": True}
EVERY = (4, 8, 8)


def conv(
    name: str, source: str, weight: str, size: int = 1, shape: Shape = EVERY, *, groups: int = 1, bias: str | None = "b"
) -> Conv:
    return Conv(
        name=name, inputs=(source,), shape=shape, weight=weight, bias=bias, kernel=(size, size),
        padding=(size // 2, size // 2), groups=groups,
    )  # fmt: skip


def everything_before_a_relu() -> tuple[Program, Weights]:
    """Every operation that is linear, in a row, on wide values; one of them read by a ReLU too."""
    g = torch.Generator().manual_seed(4)
    ops: tuple[Any, ...] = (
        Input(name="input", inputs=(), shape=EVERY),
        conv("c0", "input", "w3", 3),
        conv("c1", "c0", "w1", 1),
        Add(name="sum", inputs=("c1", "c0"), shape=EVERY),
        conv("c2", "sum", "grouped", 3, groups=2, bias=None),
        Subtract(name="less", inputs=("c2", "input"), shape=EVERY),
        Shift(name="more", inputs=("less",), shape=EVERY, amount=-0.75),
        Concat(name="both", inputs=("more", "input"), shape=(8, 8, 8)),
        Slice(name="part", inputs=("both",), shape=(4, 4, 4), channels=(2, 6), stride=(2, 2)),
        PadChannels(name="padded", inputs=("part",), shape=(6, 4, 4), before=1, after=1),
        AvgPool(name="odd", inputs=("padded",), shape=(6, 4, 4), kernel=(3, 3), stride=(1, 1), padding=(1, 1)),
        AvgPool(name="exact", inputs=("odd",), shape=(6, 2, 2), kernel=(2, 2), stride=(2, 2)),
        Flatten(name="flat", inputs=("exact",), shape=(24,)),
        Linear(name="full", inputs=("flat",), shape=(12,), weight="f", bias="fb"),
        Relu(name="early", inputs=("sum",), shape=EVERY),
        Flatten(name="beside", inputs=("early",), shape=(256,)),
        Linear(name="full2", inputs=("beside",), shape=(12,), weight="f2", bias=None),
        Relu(name="relu", inputs=("full",), shape=(12,)),
        Add(name="logits", inputs=("relu", "full2"), shape=(12,)),
    )
    shapes = {
        "w3": (4, 4, 3, 3), "w1": (4, 4, 1, 1), "grouped": (4, 2, 3, 3), "b": (4,), "f": (12, 24), "fb": (12,),
        "f2": (12, 256),
    }  # fmt: skip
    weights = {name: torch.randn(shape, generator=g) * 0.4 for name, shape in shapes.items()}
    return Program(ops), weights


def is_wide(plan: Plan) -> bool:
    return any(value.words > 1 for value in plan.values.values())


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("provider", ["dealer", "first-party"])
@pytest.mark.parametrize("relu_messages", [4, 2])
def test_every_linear_operation_agrees_with_plaintext_and_costs_what_is_declared(relu_messages, provider, batch):
    program, weights = everything_before_a_relu()
    options: dict[str, Any] = {**WIDE, "relu_messages": relu_messages, "provider": provider}
    plan = plan_program(program, Options(**options))
    kinds = {type(step).__name__ for step in plan.steps if plan.is_wide(step)}
    assert {"Receive", "Product", "Remask", "Sum", "PoolSum", "Gather", "Narrow"} <= kinds
    images = [torch.randn(batch, *EVERY) for _ in range(2)]
    outcome = run_masked(program, weights, images, **options)
    close(outcome, program, weights, images)
    declared = sum((operation_cost(program, op, batch, options) for op in program), Cost())
    server, client = outcome.online[SERVER][0].total, outcome.online[CLIENT][0].total
    assert (declared.rounds, declared.rounds) == (server.rounds, client.rounds)
    assert (declared.server_bytes, declared.client_bytes) == (server.sent_bytes, client.sent_bytes)
    assert outcome.offline[CLIENT].total.sent_bytes == declared.offline_client_bytes * len(images)
    assert outcome.setup[SERVER].total.sent_bytes - (16 if provider == "dealer" else 0) == declared.setup_server_bytes


@pytest.mark.parametrize("batch", [1, 3])
def test_a_culled_network_gives_the_same_answers_in_fewer_messages(batch):
    program, weights = networks.program_of("culled")
    images = [torch.randn(batch, *networks.SHAPE) for _ in range(2)]
    close(run_masked(program, weights, images, **WIDE), program, weights, images)
    wide, narrow = (plan_program(program, Options(wide_image=choice)) for choice in (True, False))
    assert wide.rounds < narrow.rounds


@pytest.mark.parametrize("provider", ["dealer", "first-party"])
def test_layers_of_the_same_weights_have_masks_of_their_own_rings(provider):
    """The narrowest first: a mask of its size would have no bits for the wider ones."""
    names = ("short", *(f"long{k}" for k in range(6)))
    sources = ("input", "input", *names[1:-1])
    layers = [conv(name, source, "w", 1, bias=None) for name, source in zip(names, sources, strict=True)]
    total = Add(name="logits", inputs=("short", "long5"), shape=EVERY)
    program = Program((Input(name="input", inputs=(), shape=EVERY), *layers, total))
    plan = plan_program(program, Options(**WIDE))
    assert {plan.values[name].words for name in names} == {1, 2, 3}
    weights = {"w": torch.randn(4, 4, 1, 1, generator=torch.Generator().manual_seed(2)) * 0.7}
    images = [torch.randn(2, *EVERY)]
    close(run_masked(program, weights, images, provider=provider, **WIDE), program, weights, images)


@pytest.mark.parametrize("weight", [1.0, -0.99991])
@pytest.mark.parametrize("depth", [3, 5, 8])
def test_truncations_of_wide_values_round_down_or_up_and_never_wrap(depth, weight):
    n = 30_000
    program, weights = chain(n, depth, weight)
    plan = plan_program(program, Options(**WIDE))
    assert plan.rounds == 1
    x = torch.randint(-(2**28), 2**28, (n,))
    x[:8] = (limits(12) * 2**16).long()
    made = units(run_masked(program, weights, [x.double().view(1, 1, 1, n) / 2**16], keep=True, **WIDE), plan)
    low, high = neighbours(x.numpy(), depth, weight)
    assert ((low <= made) & (made <= high)).all()


def test_a_longer_chain_than_the_widest_ring_is_extended():
    plan = plan_program(chain(4, 20)[0], Options(**WIDE))
    assert any(isinstance(step, Extend) for step in plan.steps)
    assert not is_wide(plan)
    assert max(value.bits for value in plan_program(chain(4, 8)[0], Options(**WIDE)).values.values()) <= WIDEST_BITS


def test_what_is_not_wide_is_as_it_was():
    program, _ = networks.program_of("residual")
    assert plan_program(program, Options(**WIDE)).sha256 == plan_program(program, Options()).sha256


def test_a_relu_in_the_middle_reads_the_low_word():
    plan = plan_program(everything_before_a_relu()[0], Options(**WIDE))
    [narrow] = [step for step in plan.steps if isinstance(step, Narrow)]
    assert plan.values[narrow.inputs[0]].words > 1
    assert plan.values[narrow.out].words == 1


def deep() -> tuple[Program, Weights]:
    """Four layers and a ReLU."""
    before, _ = chain(1024, 4)
    relu = Relu(name="relu", inputs=("c3",), shape=(1, 1, 1024))
    return Program((*before.ops, relu)), {"w": torch.full((1, 1, 1, 1), 0.75)}


def test_every_message_is_uniform():
    """The same image 48 times, fresh masks: every byte of every message, offline and online, is like any other."""
    program, weights = deep()
    outcome = run_masked(program, weights, [torch.full((1, 1, 1, 1024), 1.25)] * 48, relu_messages=2, **WIDE)
    assert_uniform(outcome, SERVER, 4)
    assert_uniform(outcome, CLIENT, 2)
    told = np.frombuffer(b"".join(outcome.heard_offline[SERVER]), np.uint8)
    assert told.size >= 48 * 3 * 8 * 1024
    assert stats.chisquare(np.bincount(told, minlength=256)).pvalue > 1e-6


def test_what_no_source_makes_is_refused():
    with pytest.raises(UsageError, match="only a dealer makes"):
        Options(**WIDE, provider="two-party")
    with pytest.raises(UsageError, match="only a dealer makes"):
        DelphiOptions(**WIDE)


@pytest.mark.parametrize("name", ["wide_image", "overlap", "check_ranges"])
def test_a_choice_of_two_is_true_or_false(name):
    with pytest.raises(UsageError, match=f"{name} is 'no'"):
        Options(**{name: "no"})


def test_too_large_weights_are_refused_by_the_public_limit():
    program, weights = deep()
    weights["w"][:] = 2.0 ** (LARGEST_SUM_BITS - 16)
    with pytest.raises(UsageError, match=r"2\^29 is the limit of an output's absolute weights"):
        run_masked(program, weights, [torch.ones(1, 1, 1, 1024)], **WIDE)


@pytest.mark.parametrize("large", [2.0 ** (WHOLE_SUM_BITS - 16) - 1, 2.0 ** (WHOLE_SUM_BITS - 16), 2.0**23 - 1])
def test_the_largest_weights_are_exact(large):
    """Up to the limit of a low word's product, and beyond it, where halves are multiplied; nothing wraps."""
    n = 512
    ops: list[Any] = [Input(name="input", inputs=(), shape=(1, 1, n))]
    for k, weight in enumerate(("small", "large", "small", "large", "small")):
        ops.append(Conv(name=f"c{k}", inputs=(ops[-1].name,), shape=(1, 1, n), weight=weight, bias="b", kernel=(1, 1)))
    weights = {
        "large": torch.full((1, 1, 1, 1), -large), "small": torch.full((1, 1, 1, 1), 2.0**-13),
        "b": torch.full((1,), 2.0**-6),
    }  # fmt: skip
    x = torch.randint(-(2**14), 2**14, (2, n)).double().view(2, 1, 1, n) / 2**10
    program = Program(tuple(ops))
    made = run_masked(program, weights, [x], **WIDE, range_bits=16).logits[0].double()
    want = evaluate(program, weights, x, dtype=torch.float64)
    assert want.abs().max() < 2**16
    assert (made - want).abs().max() < 2**-15 * (large * 2**-13) ** 2 * 4 + want.abs().max() * 2**-23


def test_pools_of_many_elements_are_exact():
    """A factor of 17 bits and more, on sums of low words of as many."""
    shape = (1, 224, 224)
    program = Program(
        (
            Input(name="input", inputs=(), shape=shape),
            conv("c0", "input", "one", shape=shape, bias=None),
            AvgPool(name="pool", inputs=("c0",), shape=(1, 1, 1), kernel=(224, 224), stride=(1, 1)),
            conv("c1", "pool", "one", shape=(1, 1, 1), bias=None),
            conv("c2", "c1", "one", shape=(1, 1, 1), bias=None),
            Relu(name="relu", inputs=("c2",), shape=(1, 1, 1)),
        )
    )
    weights = {"one": torch.ones(1, 1, 1, 1)}
    images = [torch.rand(2, *shape) * 100]
    outcome = run_masked(program, weights, images, **WIDE)
    assert is_wide(plan_program(program, Options(**WIDE)))
    close(outcome, program, weights, images)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_sum_with_a_value_of_fewer_bits(batch):
    """The image itself, moved up by sixteen bits, has a word less than the product beside it."""
    shape = (2, 3, 3)
    program = Program(
        (
            Input(name="input", inputs=(), shape=shape),
            Slice(name="same", inputs=("input",), shape=shape),
            conv("c0", "input", "w", shape=shape, bias=None),
            Add(name="sum", inputs=("c0", "same"), shape=shape),
            conv("c1", "sum", "w", shape=shape, bias=None),
            conv("c2", "c1", "w", shape=shape, bias=None),
            Relu(name="relu", inputs=("c2",), shape=shape),
        )
    )
    plan = plan_program(program, Options(**WIDE))
    assert plan.values["same"].words < plan.values["sum"].words
    weights, images = {"w": torch.randn(2, 2, 1, 1)}, [torch.randn(batch, *shape)]
    close(run_masked(program, weights, images, **WIDE), program, weights, images)


@pytest.mark.parametrize("ends", ["a ReLU", "the logits"])
def test_what_a_step_of_one_word_cannot_read_is_refused(ends):
    ops: list[Any] = [
        Input(name="input", inputs=(), shape=(1, 16, 128)),
        AvgPool(name="p", inputs=("input",), shape=(1, 8, 16), kernel=(2, 8), stride=(2, 8)),
        Conv(name="c", inputs=("p",), shape=(1, 8, 16), weight="w", bias=None, kernel=(1, 1)),
        AvgPool(name="q", inputs=("c",), shape=(1, 1, 1), kernel=(8, 16), stride=(8, 16)),
    ]
    if ends == "a ReLU":
        ops.append(Relu(name="relu", inputs=("q",), shape=(1, 1, 1)))
    with pytest.raises(UsageError, match="need more than 64 ring bits"):
        plan_program(Program(tuple(ops)), Options(fraction_bits=22, range_bits=8, **WIDE))


def test_kept_material_serves_a_wide_image(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    program, weights = networks.program_of("culled")
    images = [torch.randn(1, *networks.SHAPE)]
    kept = {**WIDE, "keep_dir": str(tmp_path / "kept")}
    made = run_masked(program, weights, images, deal_ahead=2, **kept)
    taken = run_masked(program, weights, images, **kept)
    assert taken.offline[CLIENT].total.sent_bytes < made.offline[CLIENT].total.sent_bytes
    close(taken, program, weights, images)


def test_a_link_decides_where_the_suite_says_nothing():
    program, _ = networks.program_of("culled")
    assert options_on(program, "masked", 1, {}, None, None) == {}
    assert options_on(program, "masked", 1, {}, 40.0, 100.0) == {"relu_messages": 2, **WIDE}
    assert options_on(program, "masked", 1, {"wide_image": False}, 40.0, 100.0) == {
        "relu_messages": 2, "wide_image": False,
    }  # fmt: skip
    assert options_on(program, "masked", 1, {"provider": "two-party"}, 40.0, 100.0) == {"provider": "two-party"}
    residual, _ = networks.program_of("residual")  # nothing is extended there: nothing to widen
    assert options_on(residual, "masked", 1, {}, 40.0, 100.0) == {"relu_messages": 2}
