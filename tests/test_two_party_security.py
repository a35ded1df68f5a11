"""How much security an inference without a third party has: from the parameters in use, beside the published tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import networks_for_tests as networks
import numpy as np
import pytest
import torch
from masked_pair import run_masked
from test_protocol_masked import identity_relu

from pibench.errors import UsageError
from pibench.lowering.lower import lower
from pibench.lowering.merge import merge
from pibench.mpc.crypto import transfers
from pibench.mpc.crypto.garbling import layout
from pibench.mpc.crypto.rlwe import params
from pibench.mpc.crypto.rlwe.primes import primes
from pibench.mpc.masked.gadgets import layers_of
from pibench.mpc.masked.gadgets.product import layer_weights
from pibench.mpc.masked.options import WeightBits
from pibench.mpc.masked.security_bits import security_of
from pibench.mpc.masked.sources.two_party import assumed_sizes
from pibench.mpc.masked.total_cost import operation_cost, planned, settled_options
from pibench.mpc.protocol import CLIENT, SERVER, Cost
from pibench.networks.build import build, skeleton
from pibench.networks.card import load_card
from pibench.run.declared import declared_cost
from pibench.run.predict import predict
from pibench.run.prepare import prepare_instance
from pibench.run.settings import CasePlan, Needs
from pibench.training.find_checkpoint import find_checkpoint
from pibench.training.runs import load_into

pytestmark = pytest.mark.timeout(240)
ALONE: dict[str, Any] = {"provider": "two-party"}

# log2 q, at most, for 128 bits (classical), secrets uniform in {-1, 0, 1}: the tables as published
STANDARD_2018 = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
GUIDELINES_2025 = {1024: 26, 2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868}


@pytest.mark.parametrize(
    ("name", "weight_bits"),
    [("resnet18-c100", 22), ("resnet18-c100", 24), ("resnet18-c100", 26), ("drd-c100-12k", 24), ("wrn22-8-c100", 22)],
)
def test_whole_networks_have_what_is_claimed(name: str, weight_bits: int) -> None:
    """Every layer's parameters: 128 bits by both tables; 40 bits over all coefficients, from public limits alone."""
    card = load_card(name)
    program, weights = lower(skeleton(card.network), card.network.input_shape)
    _, gadgets = planned(merge(program, weights)[0], 1, {**ALONE, "weight_bits": weight_bits})
    sizes, distance = assumed_sizes(gadgets, 1), 0.0
    for layer in layers_of(gadgets):
        p = sizes.parameters[layer.step.out]
        log_q = math.log2(math.prod(primes(p.primes)))
        assert log_q <= min(STANDARD_2018[p.degree], GUIDELINES_2025[p.degree])
        # by hand: a client's error (21) and rounding (1) meet the weights; an encryption of zero, u e + e1 s + e0, is
        # fresh; a flood uniform in [-2^f, 2^f) that is moved by v has distance |v| / 2^(f+1) from itself
        moved = (21 + 1) * 2**weight_bits + 2 * 8192 * 21 + 21
        distance += layer.size * moved / 2 ** (p.flood + 1)
        # and decryption: flood, noise and what the answer's rounding can do, within half a step
        step = 2**log_q / 2**p.bits
        tail = math.sqrt(8192 / 2 * (40 + math.log2(layer.size) + 1) * math.log(2)) + 1
        worst = (2**p.flood + moved) / step + tail * 2.0 ** (p.bits - 8 * p.mask_bytes)
        assert worst + 2.0 ** (p.bits - 8 * p.body_bytes) < 0.5
    assert distance <= 2**-40
    said = security_of(gadgets)
    assert said.hiding == pytest.approx(-math.log2(distance))
    assert (said.encryption, said.weight_bits) == (128, weight_bits)
    assert said.decryption >= 40


def test_weights_of_the_zoo_lie_in_their_class_and_move_floods_less_than_is_claimed() -> None:
    """A trained network: sums of absolute weights, and what noise moves a flood on average, from its own weights."""
    card = load_card("drd-c100-12k")
    checkpoint = find_checkpoint(card)
    assert checkpoint is not None
    module = build(card.network).eval()
    load_into(module, checkpoint, card.network)
    program, weights = merge(*lower(module, card.network.input_shape))[:2]
    options = settled_options(program, weights, 1, ALONE)
    plan, gadgets = planned(program, 1, options)
    sizes, made, moved = assumed_sizes(gadgets, 1), layer_weights(plan, weights), 0.0
    for layer in layers_of(gadgets):
        w = made[layer.layer.weight].double().mul(2**16).round().reshape(layer.weight_shape[0], -1)
        assert w.abs().sum(1).max() <= 2 ** options["weight_bits"]
        # errors of variance 10.5 and a rounding's 1/12, times weights; an encryption of zero: u e + e1 s, ternary
        variance = (w**2).sum(1) * (10.5 + 1 / 12) + 2 * 8192 * 10.5 * 2 / 3
        mean = float(torch.sqrt(variance * 2 / math.pi).mean())
        moved += layer.size * mean / 2 ** (sizes.parameters[layer.step.out].flood + 1)
    assert -math.log2(moved) > sizes.hiding_bits() + 5  # a hard bound is worse than what happens


def test_a_large_modulus_has_no_security_by_the_tables() -> None:
    _, gadgets = planned(networks.program_of("residual")[0], 1, ALONE)
    said = security_of(gadgets)
    assert said.encryption == 128
    assert type(said)(219.0, said.hiding, said.weight_bits, said.decryption, said.transfers).encryption == 0


def test_what_the_multi_instance_bound_loses_is_what_a_key_sees() -> None:
    """Transfers: 1,024 rows and two pads of each a key; circuits: 8 blocks of 128 lanes, two hashes of each."""
    assert 2 * transfers.ROWS_A_KEY == 2 * layout.BLOCK * layout.KEY_BLOCKS == 2**11
    assert transfers.SECURITY_BITS == 127 - 11  # Delta's lowest bit is one, for everybody to know
    assert transfers.SECURITY_BITS >= 112


def test_show_tells_it_where_there_is_no_third_party() -> None:
    program = networks.program_of("residual")[0]
    told = predict(program, "masked", "wan", 1, ALONE)
    assert told["encryption"].startswith("128 bits: log2 q 135")
    assert "bits in one inference" in told["weights hidden"]
    assert told["transfers"] == "116 bits"
    assert "encryption" not in predict(program, "masked", "wan", 1)
    assert "encryption" in predict(program, "delphi", "wan", 1)


# classes of weights: sizes are declared for the class that the server names


@pytest.fixture
def classes_matter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ask for as much hiding as tells classes apart in networks of a few thousand outputs."""
    monkeypatch.setattr(params, "HIDING_BITS", 50)
    params.choose.cache_clear()
    yield
    params.choose.cache_clear()


def heavy(weight: float) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a layer of that weight and its ReLU."""
    program, weights = identity_relu(1024)
    return program, {name: torch.full_like(tensor, weight) for name, tensor in weights.items()}


@pytest.mark.parametrize(("weight", "bits"), [(1.0, 22), (64.0, 22), (65.0, 24), (300.0, 26)])
def test_declared_sizes_are_those_of_the_class_in_use(weight: float, bits: int, classes_matter: None) -> None:
    program, weights = heavy(weight)
    options = settled_options(program, weights, 1, ALONE)
    assert options["weight_bits"] == bits
    outcome = run_masked(program, weights, [torch.full((1, 1, 1, 1024), 0.5)], **ALONE)
    declared = sum((operation_cost(program, op, 1, options) for op in program), Cost())
    assert outcome.offline[SERVER].total.sent_bytes == declared.offline_server_bytes
    assert outcome.offline[CLIENT].total.sent_bytes == declared.offline_client_bytes
    assert outcome.setup[CLIENT].total.sent_bytes == declared.setup_client_bytes
    smallest = sum((operation_cost(program, op, 1, ALONE) for op in program), Cost())
    assert (smallest == declared) == (bits == 22)  # or the test would tell nothing


def test_a_suite_may_name_the_class_whatever_the_weights(classes_matter: None) -> None:
    program, weights = heavy(1.0)
    options: dict[str, Any] = {**ALONE, "weight_bits": 26}
    outcome = run_masked(program, weights, [torch.full((1, 1, 1, 1024), 0.5)], **options)
    declared = sum((operation_cost(program, op, 1, options) for op in program), Cost())
    assert outcome.offline[CLIENT].total.sent_bytes == declared.offline_client_bytes
    assert settled_options(program, weights, 1, options) == options
    assert torch.allclose(outcome.logits[0], torch.tensor(0.5))


def test_weights_beyond_the_named_class_are_refused() -> None:
    program, weights = heavy(65.0)
    with pytest.raises(UsageError, match=r"(?s)weights of more in sum than the 2\^22 .*raise weight_bits"):
        run_masked(program, weights, [torch.zeros(1, 1, 1, 1024)], **ALONE, weight_bits=22)
    with pytest.raises(UsageError, match=r"(?s)more in sum than the 2\^26 .*provider: dealer"):
        settled_options(*heavy(1025.0), 1, ALONE)


def test_the_classes_that_a_suite_may_name_are_the_encryptions() -> None:
    assert get_args(WeightBits) == (0, *params.LIMITS)
    with pytest.raises(UsageError, match="weight_bits is 23"):
        planned(networks.program_of("residual")[0], 1, {**ALONE, "weight_bits": 23})


def test_a_record_declares_for_the_weights_that_run(tmp_path: Path, classes_matter: None) -> None:
    conv = torch.nn.Conv2d(1, 2, 1, bias=False)
    network = torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Flatten())
    found = []
    for weight in (1.0, 300.0):
        torch.nn.init.constant_(conv.weight, weight)
        needs, images = Needs(images=1, plain_images=0, seed=0), np.zeros((1, 1, 32, 32), np.float32)
        prepared = prepare_instance("heavy", network.eval(), images, None, tmp_path / str(weight), needs)
        declared = declared_cost(CasePlan(network="heavy", protocol="masked", options=ALONE), prepared)
        assert declared is not None
        found.append(declared.offline_client_bytes)
    assert found[0] < found[1]
