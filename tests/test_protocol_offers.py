"""ReLUs in two messages: the same answers, the declared cost, and an offer that stays closed."""

from __future__ import annotations

from typing import Any

import networks_for_tests as networks
import numpy as np
import pytest
import torch
import yaml
from masked_pair import assert_uniform, run_masked
from scipy import stats
from test_protocol_masked import close, identity_relu

from pibench.cli import main
from pibench.errors import UsageError
from pibench.lowering.reference import evaluate
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.masked.gadgets.relu_two_messages import ENTRIES
from pibench.mpc.masked.options import Options
from pibench.mpc.masked.planner import plan_program
from pibench.mpc.masked.total_cost import operation_cost
from pibench.mpc.protocol import CLIENT, SERVER, Cost, options_on
from pibench.mpc.ring.packing import unpack
from pibench.mpc.ring.randomness import Stream, blocks_at, fresh_seed
from pibench.records.files import load_record

pytestmark = pytest.mark.timeout(120)
TWO = {"relu_messages": 2}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("provider", ["dealer", "first-party"])
@pytest.mark.parametrize("name", networks.everything())
def test_every_operation_agrees_with_plaintext_and_costs_what_is_declared(name, provider, batch):
    program, weights = networks.program_of(name)
    images = [torch.randn(batch, *networks.SHAPE) for _ in range(2)]
    options: dict[str, Any] = {**TWO, "provider": provider}
    outcome = run_masked(program, weights, images, **options)
    close(outcome, program, weights, images)
    declared = sum((operation_cost(program, op, batch, options) for op in program), Cost())
    for tally in outcome.online[SERVER]:
        assert (tally.total.rounds, tally.total.sent_bytes) == (declared.rounds, declared.server_bytes)
    for tally in outcome.online[CLIENT]:
        assert (tally.total.rounds, tally.total.sent_bytes) == (declared.rounds, declared.client_bytes)


@pytest.mark.parametrize("range_bits", [8, 12, 16])
def test_a_relu_is_within_one_unit_over_its_whole_range(range_bits):
    n, limit = 4096, float(2**range_bits)
    x = ((torch.rand(n, dtype=torch.float64) * 2 - 1) * limit).float().double()
    x[:6] = torch.tensor([0.0, 2.0**-16, -(2.0**-16), limit - limit * 2.0**-23, -limit, 1.0])
    x = (x * 2**16).round() / 2**16
    program, weights = identity_relu(n)
    outcome = run_masked(program, weights, [x.view(1, 1, 1, n).float()], range_bits=range_bits, **TWO)
    want = evaluate(program, weights, x.view(1, 1, 1, n).float(), dtype=torch.float64)
    assert (outcome.logits[0] - want).abs().max() <= 2**-16 + limit * 2**-23


def test_rounds_are_two_a_relu():
    program, _ = networks.program_of("residual")
    four, two = (plan_program(program, Options(relu_messages=messages)) for messages in (4, 2))
    assert four.rounds - 1 == 2 * (two.rounds - 1)


def test_of_two_pads_of_an_entry_the_server_is_dealt_one():
    """The integer definition: pad u of element i is AES_key(64 i + u), of two words the one that its bit says."""
    n, width, backend, stream = 37, 6, backend_for("cpu"), Stream(fresh_seed())
    key, table, flip = stream.bytes(16), stream.words(n).view(np.uint64), stream.small(n, 1)
    pads = np.empty(ENTRIES * width * n, np.uint8)
    backend.deal_pads(key, table, flip, width, pads)
    both = blocks_at(key.tobytes(), np.arange(ENTRIES * n)).reshape(n, ENTRIES, 2)
    for i, u in ((0, 0), (1, 63), (20, 5), (36, 63)):
        place = int(table[i]) >> u & 1 ^ int(flip[i])
        held = int.from_bytes(pads.reshape(n, ENTRIES, width)[i, u].tobytes(), "little")
        assert held == int(both[i, u, place]) % 2**48
        assert held != int(both[i, u, 1 - place]) % 2**48


def test_the_offer_that_the_server_holds_no_pad_for_is_uniform_under_all_that_it_holds():
    """The same image 64 times: the closed offer less the pad that the server has for this entry looks like nothing."""
    n, runs = 512, 64
    program, weights = identity_relu(n)
    outcome = run_masked(program, weights, [torch.full((1, 1, 1, n), 1.25)] * runs, keep=True, **TWO)
    name = plan_program(program, Options(**TWO)).steps[2].out
    closed, opened = [], []
    for heard, material in zip(outcome.heard[SERVER], outcome.material[SERVER], strict=True):
        reply, first, second = (np.frombuffer(m, np.uint8).copy() for m in heard[1:4])
        half = material.halves[name]
        offers = np.stack([unpack(first, first.size // n), unpack(second, second.size // n)])
        width = first.size // n
        rows = half.pads.reshape(n, ENTRIES, width)
        own = np.frombuffer(outcome.heard[CLIENT][len(closed)][1], np.uint8)
        entry = ((own ^ reply) & 63).astype(np.int64)
        place = ((half.share.table >> entry.astype(np.uint64)) & np.uint64(1)).astype(np.int64) ^ half.flip
        held = rows[np.arange(n), entry].astype(np.int64)
        value = sum(held[:, k] << (8 * k) for k in range(width))
        at = np.arange(n)
        closed.append((offers[1 - place, at] - value) & 255)
        opened.append((offers[place, at] - value) & 255)
    for values in (np.concatenate(closed), np.concatenate(opened)):
        assert stats.chisquare(np.bincount(values, minlength=256)).pvalue > 1e-6


def test_every_message_is_uniform():
    program, weights = identity_relu(1024)
    outcome = run_masked(program, weights, [torch.full((1, 1, 1, 1024), 1.25)] * 48, **TWO)
    assert_uniform(outcome, SERVER, 4)
    assert_uniform(outcome, CLIENT, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relu_messages": 3}, "relu_messages is 3"),
        ({"relu_messages": 2, "provider": "two-party"}, "pads that only a dealer makes"),
    ],
)
def test_what_no_source_makes_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Options(**options)


def wire(rtt_ms: float | None, mbit_s: float | None, **options: Any) -> Any:
    program, _ = identity_relu(1000)
    return options_on(program, "masked", 1, options, rtt_ms, mbit_s)


def test_a_link_decides_where_the_suite_says_nothing():
    assert wire(None, None) == {}  # nothing waits for messages: the least work
    assert wire(40.0, 100.0) == TWO
    assert wire(0.5, 1.0) == {}  # five bytes a ReLU more take longer than two messages less
    assert wire(40.0, 100.0, relu_messages=4) == {"relu_messages": 4}
    assert wire(40.0, 100.0, provider="two-party") == {"provider": "two-party"}


@pytest.mark.timeout(240)
def test_a_run_records_what_its_link_decided_and_declares_it(tmp_path, monkeypatch):
    slow = {"name": "slow", "rtt_ms": 20.0, "mbit_s": 100.0, "how": "paced"}
    text = {"name": "t", "networks": ["digits-tiny"], "protocols": ["masked"], "links": ["loopback", slow]}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({**text, "sessions": 1, "inferences": 1, "warmups": 0}))
    monkeypatch.chdir(tmp_path)
    main(["run", "t.yaml", "-q", "--record", "r.json"])  # a busy machine's link may be slower than asked for: invalid
    near, far = load_record(tmp_path / "r.json").cases
    assert (near.options, far.options) == ({}, {**TWO, "wide_image": True})  # its first two layers have no ReLU
    assert far.declared.rounds < near.declared.rounds
    assert far.sessions[0].inferences[-1].client.rounds == far.declared.rounds
