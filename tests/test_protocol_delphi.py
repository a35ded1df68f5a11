"""Garbled ReLUs over masked linear layers: right answers, declared costs, and messages that say nothing."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import networks_for_tests as networks
import numpy as np
import pytest
import torch
from masked_pair import run_masked, units
from scipy import stats
from test_protocol_masked import close, identity_relu

from pibench.errors import MaterialError, UsageError
from pibench.lowering.lower import lower
from pibench.lowering.merge import merge
from pibench.lowering.program import Conv, Input, MaxPool, Program
from pibench.lowering.reference import evaluate
from pibench.mpc.crypto.garbling.store import Store
from pibench.mpc.delphi.cost import held_bytes, operation_cost
from pibench.mpc.delphi.options import DelphiOptions
from pibench.mpc.delphi.protocol import DelphiProtocol
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.sources.source import Material
from pibench.mpc.protocol import CLIENT, SERVER, Cost
from pibench.networks.build import build, stage_of
from pibench.networks.card import load_card
from pibench.training.checkpoint import load_checkpoint
from pibench.training.data import load_dataset, normalise
from pibench.training.find_checkpoint import find_checkpoint

pytestmark = pytest.mark.timeout(120)
run_delphi = partial(run_masked, protocol=DelphiProtocol)
GARBLERS = ("server", "client")


def agrees_at_its_declared_cost(name: str, options: dict[str, Any]) -> None:
    program, weights = networks.program_of(name)
    images = [torch.randn(2, *networks.SHAPE)]
    outcome = run_delphi(program, weights, images, **options)
    close(outcome, program, weights, images)
    declared = sum((operation_cost(program, op, 2, options) for op in program), Cost())
    online, offline = outcome.online, outcome.offline
    assert online[SERVER][0].total.sent_bytes == declared.server_bytes
    assert online[CLIENT][0].total.sent_bytes == declared.client_bytes
    assert online[SERVER][0].total.rounds == online[CLIENT][0].total.rounds == declared.rounds
    assert offline[SERVER].total.rounds == offline[CLIENT].total.rounds == declared.offline_rounds
    assert offline[SERVER].total.sent_bytes == declared.offline_server_bytes
    assert offline[CLIENT].total.sent_bytes == declared.offline_client_bytes


@pytest.mark.parametrize("garbler", GARBLERS)
@pytest.mark.parametrize("name", networks.everything())
def test_every_operation_agrees_with_plaintext_and_costs_what_is_declared(name: str, garbler: str) -> None:
    agrees_at_its_declared_cost(name, {"garbler": garbler})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits-full-drd-c3-b-a2-r2", {}),
        ("digits-full-hrn-10", {"garbler": "client"}),
        ("digits-full-snl-10", {}),  # masked ReLUs
        ("digits-full-poly-10", {}),  # squares
        ("digits-full-senet-10", {"sign_only": True}),
    ],
)
def test_trained_networks_of_the_zoo_answer_as_in_plaintext(name: str, options: dict[str, Any]) -> None:
    card = load_card(name)
    module, data = build(card.network).eval(), load_dataset("digits")
    path = find_checkpoint(card)
    assert path is not None
    module.load_state_dict(load_checkpoint(path)[0])
    program, weights = merge(*lower(module, card.network.input_shape, stage_of))[:2]
    images = normalise(data.test_images[:4], data.mean, data.std)
    outcome = run_delphi(program, weights, [images], **options)
    close(outcome, program, weights, [images])
    assert torch.equal(outcome.logits[0].argmax(1), evaluate(program, weights, images).argmax(1))


@pytest.mark.parametrize("garbler", GARBLERS)
@pytest.mark.parametrize("options", [{"fraction_bits": 14}, {"range_bits": 16}, {"fraction_bits": 12, "range_bits": 8}])
def test_relu_is_exact_over_its_whole_range(garbler: str, options: dict[str, int]) -> None:
    """Not within one unit: a circuit truncates exactly."""
    f, top = options.get("fraction_bits", 16), options.get("range_bits", 12)
    n = 3_000
    program, weights = identity_relu(n)
    x = torch.sign(torch.randn(n)) * 2.0 ** (torch.rand(n, dtype=torch.float64) * top)
    x[:6] = torch.tensor([0.0, 2.0**-f, -(2.0**-f), 2.0**top - 1, -(2.0**top) + 1, -0.5])
    image = (x.clamp(1 - 2.0**top, 2.0**top - 1).double() * 2**f).round().div(2**f).view(1, 1, 1, n)
    outcome = run_delphi(program, weights, [image], garbler=garbler, **options)
    assert torch.equal(outcome.logits[0].double(), image.clamp(min=0).float().double())


def test_a_relu_costs_its_formula() -> None:
    """41 bits take 656 bytes of labels; ANDs are 40 for the sum, 26 for the choice, 27 for a mask of 28 bits."""
    n = 160
    program, _ = identity_relu(n)
    options = {"fraction_bits": 14}
    relu = operation_cost(program, program.ops[2], 1, options)
    output = operation_cost(program, program.output, 1, options)
    assert relu == output
    assert relu.server_bytes == n * (656 + 4)  # 2 * 14 + 12 + 1 = 41 labels; the logits travel with the last operation
    assert relu.client_bytes == n * 4  # of 28 bits, which is all that the logits need
    assert relu.offline_server_bytes == n * 32 * (40 + 26 + 27)
    assert relu.offline_client_bytes == 4 * 11_072  # of 69 bits a ReLU, filled up to a multiple of 64
    assert relu.rounds == 2 + 1


@pytest.mark.parametrize("garbler", GARBLERS)
def test_what_parties_hold_is_estimated_from_what_they_send(garbler: str) -> None:
    """Of a full ResNet18 they held 3.2 and 1.6 GB, processes included; with a folder, circuits are not in memory."""
    n = 557_056
    program, _ = identity_relu(n)
    declared = operation_cost(program, program.ops[2], 1, {"garbler": garbler})
    waits = n * (32 * declared_ands(n, declared) + 16 * 89)
    held = held_bytes(declared, declared, 1, {})
    assert 1 / 1.5 < held / (waits + 16 * 89 * n) < 1.5
    assert held_bytes(declared, declared, 3, {}) - held == pytest.approx(2 * waits, rel=0.5)
    assert held_bytes(declared, declared, 3, {"circuits_dir": "/tmp"}) < held / 3


def declared_ands(n: int, declared: Cost) -> float:
    return max(declared.offline_server_bytes, declared.offline_client_bytes) / n / 32


@pytest.mark.parametrize(("kernel", "gaps"), [((2, 2), 3), ((3, 3), 8)])
def test_a_max_pool_takes_two_messages_whatever_its_window(kernel: tuple[int, int], gaps: int) -> None:
    shape, out, (height, width) = (2, 4 * kernel[0], 4 * kernel[1]), (2, 4, 4), kernel
    program = Program((
        Input(name="input", inputs=(), shape=shape),
        Conv(name="conv", inputs=("input",), shape=shape, weight="w", bias=None, kernel=(1, 1)),
        MaxPool(name="pool", inputs=("conv",), shape=out, kernel=kernel, stride=kernel),
    ))  # fmt: skip
    weights = {"w": torch.eye(2).reshape(2, 2, 1, 1)}
    images = [torch.randn(3, *shape) * 900]
    images[0][0, 0, :height, :width] = -4096.0  # a window as low as the range goes, and one as far apart
    images[0][1, 0, :height, :width] = torch.linspace(-4096, 4095, gaps + 1).reshape(kernel)
    for garbler in GARBLERS:
        outcome = run_delphi(program, weights, images, garbler=garbler)
        exact = torch.nn.functional.max_pool2d((images[0].double() * 2**16).round() / 2**16, kernel)
        assert torch.equal(outcome.logits[0].double().reshape(exact.shape), exact.float().double())
        declared = sum((operation_cost(program, op, 3, {"garbler": garbler}) for op in program), Cost())
        assert declared.rounds == outcome.online[SERVER][0].total.rounds == 1 + 2 + 1  # with the image and the answer


def test_what_each_party_receives_is_uniform() -> None:
    program, weights = identity_relu(4_000)
    image = torch.full((1, 1, 1, 4_000), 0.25)
    for garbler in GARBLERS:
        outcome = run_delphi(program, weights, [image], garbler=garbler)
        for rank in (SERVER, CLIENT):
            # the last message to the client is its share of the answer, cut to its valid bits, whose top byte is not
            messages = outcome.heard[rank][0][:-1] if rank == CLIENT else outcome.heard[rank][0][:1]
            for message in messages:
                counts = np.bincount(np.frombuffer(message, np.uint8), minlength=256)
                assert stats.chisquare(counts).pvalue > 1e-6


def test_lengths_do_not_depend_on_the_image_and_messages_do_not_repeat() -> None:
    program, weights = networks.program_of("residual")
    images = [torch.zeros(1, *networks.SHAPE), 5 * torch.ones(1, *networks.SHAPE)]
    outcome = run_delphi(program, weights, images)
    for rank in (SERVER, CLIENT):
        first, second = outcome.heard[rank]
        assert [len(message) for message in first] == [len(message) for message in second]
        assert not set(filter(lambda message: len(message) > 15, first)) & set(second)


def test_a_circuit_is_used_once() -> None:
    class Careless(DelphiProtocol):
        def _next(self) -> Material:
            return self._material[0]

    program, weights = networks.program_of("residual")
    image = torch.randn(1, *networks.SHAPE)
    with pytest.raises(MaterialError, match="serves one evaluation"):
        run_masked(program, weights, [image, image], protocol=Careless)


@pytest.mark.parametrize("options", [{"garbler": "server"}, {"garbler": "client"}, {"sign_only": True}])
def test_circuits_may_wait_in_files_that_nobody_finds(options: dict[str, Any], tmp_path: Path) -> None:
    program, weights = networks.program_of("residual")
    images = [torch.randn(2, *networks.SHAPE) for _ in range(2)]
    outcome = run_delphi(program, weights, images, circuits_dir=str(tmp_path / "new"), **options)
    close(outcome, program, weights, images)
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("options", [{"garbler": "server"}, {"garbler": "client"}, {"sign_only": True}])
def test_circuits_that_will_not_fit_are_refused_with_their_size_before_any_is_made(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, weights = networks.program_of("residual")
    images = [torch.randn(1, *networks.SHAPE) for _ in range(3)]
    taken: list[int] = []
    take = Store.take
    monkeypatch.setattr(Store, "take", lambda self, words: taken.append(8 * words) or take(self, words))
    run_delphi(program, weights, images, circuits_dir=str(tmp_path), **options)
    asked: list[int] = []
    monkeypatch.setattr(Store, "refuse", lambda self, needed: asked.append(needed))
    run_delphi(program, weights, images, circuits_dir=str(tmp_path), **options)
    assert len(asked) == 1  # of the evaluator
    assert asked[0] <= sum(taken[: len(taken) // 2]) <= asked[0] + 1024 * len(taken)  # rows come in groups of 64
    monkeypatch.undo()

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=asked[0] - 1))
    monkeypatch.setattr(Store, "take", lambda self, words: pytest.fail("a circuit was made all the same"))
    with pytest.raises(MaterialError, match=r"circuits and labels take .* GB in .* GB are free"):
        run_delphi(program, weights, images, circuits_dir=str(tmp_path), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"garbler": "dealer"}, "choose one of server, client"),
        ({"keep_dir": "/tmp/x"}, "not kept"),
        ({"nix": 1}, "nix"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    program, _ = networks.program_of("residual")
    with pytest.raises(UsageError, match=message):
        operation_cost(program, program.ops[0], 1, options)


# ---- sign only (Circa)


@pytest.mark.parametrize("name", networks.everything())
def test_a_sign_and_a_product_give_the_same_answers_at_the_declared_cost(name: str) -> None:
    agrees_at_its_declared_cost(name, {"sign_only": True})


@pytest.mark.parametrize("dropped", [0, 12, 20])
def test_faults_fall_on_small_positives_at_the_predicted_rate(dropped: int) -> None:
    """What enters stands at twice the fraction bits: x in units of 2^-32, the image in units of 2^-16."""
    n = 6_000
    program, weights = identity_relu(n)
    units = torch.randint(0, 1 << 27, (n,)).double()
    small = 1 << max(0, dropped - 16)  # of the image's units below the dropped bits
    units[: n // 2] = torch.randint(0, small, (n // 2,)).double()
    units[-100:] = -units[-100:]
    image = (units / 2**16).view(1, 1, 1, n)
    outcome = run_delphi(program, weights, [image], sign_only=True, dropped_bits=dropped)
    got, want = outcome.logits[0].double() * 2**16, units.clamp(min=0).view(1, 1, 1, n)
    faults = ((got - want).abs() > 1 + want * 2.0**-22).reshape(-1)
    assert not faults[n // 2 :].any()  # float32 logits aside, exact to one unit where |x| is not small
    if small > 4:
        chance = (1 - (units[: n // 2] * 2**16 + 1) / 2**dropped).clamp(min=0)
        visible = units[: n // 2] > 1  # of a fault that moves the output by more than a unit
        expected, spread = chance[visible].sum(), (chance * (1 - chance))[visible].sum() ** 0.5
        assert abs(faults[: n // 2][visible].sum() - expected) < 5 * spread
        assert (got.reshape(-1)[: n // 2][faults[: n // 2]].abs() <= 1).all()  # and becomes zero
    else:
        assert not faults.any()


def test_a_sign_and_a_product_round_to_one_of_the_two_nearest_units() -> None:
    """Of values over the whole range, all of whose low bits are busy."""
    n, weight = 6_000, 0.99991
    program, weights = identity_relu(n)[0], {"w": torch.full((1, 1, 1, 1), weight)}
    x = torch.randint(-(2**28), 2**28, (n,))
    x[:2] = torch.tensor([2**28 - 1, -(2**28)])
    outcome = run_delphi(program, weights, [x.double().view(1, 1, 1, n) / 2**16], sign_only=True, keep=True)
    exact = x.clamp(min=0).numpy() * round(weight * 2**16)
    up = units(outcome, plan_program(program, DelphiOptions.parse({"sign_only": True}))) - (exact >> 16)
    assert set(up) == {0, 1}
    assert abs(up.mean() - (exact % 2**16 / 2**16).mean()) < 5 * 0.5 / n**0.5


def test_what_flows_under_sign_only_is_uniform() -> None:
    program, weights = identity_relu(4_000)
    outcome = run_delphi(program, weights, [torch.full((1, 1, 1, 4_000), 0.25)], sign_only=True)
    for messages in (outcome.heard[SERVER][0][:1], outcome.heard[CLIENT][0][:-1]):
        for message in messages:
            counts = np.bincount(np.frombuffer(message, np.uint8), minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize(
    "options", [{"sign_only": True, "garbler": "client"}, {"dropped_bits": 3}, {"sign_only": True, "dropped_bits": 40}]
)
def test_impossible_choices_of_the_sign_are_refused(options: dict[str, object]) -> None:
    program, _ = networks.program_of("residual")
    with pytest.raises(UsageError):
        operation_cost(program, program.ops[0], 1, options)
