"""Garbled circuits against integers, kernels against numpy, and what a transcript must look like."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pibench.mpc.crypto.aes import LANES
from pibench.mpc.crypto.garbling import garbling, plain
from pibench.mpc.crypto.garbling.circuit import Builder, Circuit
from pibench.mpc.crypto.garbling.circuits import relu_circuit, sign_circuit
from pibench.mpc.crypto.garbling.layout import BLOCK, Keys, choices, colours, encode, expand_salt, filled

PIECES = (1, 16, BLOCK, 9 * BLOCK + 5)  # of lanes: less than a filled block, one, one whole, more than a key's


def words(rng: np.random.Generator, count: int, bits: int = 64) -> np.ndarray:
    return rng.integers(0, 1 << 64, count, np.uint64) & np.uint64((1 << bits) - 1)


def offset_of(rng: np.random.Generator) -> np.ndarray:
    offset = words(rng, 2)
    offset[0] |= np.uint64(1)
    return offset


def keys_of(rng: np.random.Generator, instance: int = 0) -> Keys:
    return Keys(expand_salt(rng.bytes(16)), instance)


def chosen(columns: list[tuple[np.ndarray, int]], lanes: int) -> np.ndarray:
    """Choice bits, in the order of labels, of words side by side."""
    wires = sum(width for _, width in columns)
    bits, first = np.zeros(lanes * wires, np.uint8), 0
    for column, width in columns:
        choices(column, first, width, wires, lanes, bits)
        first += width
    return bits


def active(zero: np.ndarray, columns: list[tuple[np.ndarray, int]], offset: np.ndarray) -> np.ndarray:
    bits = chosen(columns, zero.size // (2 * sum(width for _, width in columns))).astype(np.uint64)
    return (zero.reshape(-1, 2) ^ (bits[:, None] * offset)).reshape(-1)


def compute(
    circuit: Circuit, garbler: list[tuple[np.ndarray, int]], evaluator: list[tuple[np.ndarray, int]], seed: int
) -> np.ndarray:
    """Garble, evaluate and decode: the outputs as words, one a lane."""
    rng, count = np.random.default_rng(seed), garbler[0][0].size
    lanes, offset, keys = filled(count), offset_of(rng), keys_of(rng, seed)
    a, b = words(rng, 2 * lanes * circuit.garbler), words(rng, 2 * lanes * circuit.evaluator)
    tables, zero = garbling.garble(circuit, keys, a, b, offset)
    assert tables.nbytes == lanes * garbling.table_bytes(circuit)
    made = garbling.evaluate(circuit, keys, active(a, garbler, offset), active(b, evaluator, offset), tables)
    masks, seen = np.empty(count, np.uint64), np.empty(count, np.uint64)
    colours(zero, circuit.outputs, masks)
    colours(made, circuit.outputs, seen)
    return masks ^ seen


def signed(values: np.ndarray, bits: int) -> np.ndarray:
    return values.astype(np.int64) << (64 - bits) >> (64 - bits)


def shares(rng: np.random.Generator, values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    b = words(rng, values.size, bits)
    return (values.astype(np.uint64) - b) & np.uint64((1 << bits) - 1), b


def edges(bits: int) -> np.ndarray:
    top = 1 << (bits - 1)
    return np.array([0, 1, top - 1, top, top + 1, 2 * top - 1], np.uint64)


# ---- gates and circuits


@pytest.mark.parametrize("code", ["xor", "not", "and", "add"])
def test_a_gate_is_right_for_all_inputs(code: str) -> None:
    builder = Builder(2, 1)
    made = {
        "xor": lambda: [builder.xor(0, 2)],
        "not": lambda: [builder.invert(1)],
        "and": lambda: [builder.both(0, 2)],
        "add": lambda: list(builder.full(0, 1, 2)),
    }[code]()
    circuit = builder.build(made)
    p, q, c = ((np.arange(8, dtype=np.uint64) >> np.uint64(k)) & np.uint64(1) for k in range(3))
    want = {"xor": p ^ c, "not": q ^ np.uint64(1), "and": p & c, "add": p + q + c}[code]
    for seed in range(4):  # colours fall differently
        got = compute(circuit, [(p | q << np.uint64(1), 2)], [(c, 1)], seed)
        np.testing.assert_array_equal(got, want)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_relu_is_exact_at_every_width(data: st.DataObject) -> None:
    width = data.draw(st.integers(2, 63), "width")
    out_width = data.draw(st.integers(1, 63), "out_width")
    shift = data.draw(st.integers(0, width - 2), "shift")
    garbler_masks = data.draw(st.booleans(), "garbler_masks")
    seed = data.draw(st.integers(0, 2**32 - 1), "seed")
    rng = np.random.default_rng(seed)
    x = np.concatenate([edges(width), words(rng, 20, width)]) & np.uint64((1 << width) - 1)
    (a, b), n = shares(rng, x, width), words(rng, x.size, out_width)
    mine, theirs = [(a, width)], [(b, width)]
    (mine if garbler_masks else theirs).append((n, out_width))
    circuit = relu_circuit(width, out_width, shift, garbler_masks)
    got = compute(circuit, mine, theirs, seed)
    y = (np.maximum(signed(x, width), 0) >> shift).astype(np.uint64)
    np.testing.assert_array_equal(got, (y + n) & np.uint64((1 << out_width) - 1))
    assert circuit.ands == (width - 1) + min(width - 1 - shift, out_width) + (out_width - 1)


def test_relu_takes_three_ands_a_bit_at_most() -> None:
    assert relu_circuit(41, 41, 14).ands == 106  # 3 (k - 1) - m
    assert garbling.table_bytes(relu_circuit(41, 41, 14)) == 3392
    for width, shift in ((32, 12), (45, 16), (62, 16), (8, 0)):
        assert relu_circuit(width, width, shift).ands == 3 * (width - 1) - shift


@given(st.integers(2, 63), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_signs_are_shared_by_xor_and_the_carry_tells_the_sum(width: int, seed: int, wraps: bool) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate([edges(width), words(rng, 20, width)])
    a, b = shares(rng, x, width)
    got = compute(sign_circuit(width, wraps), [(a, width)], [(b, width)], seed)
    positive = (signed(x, width) >= 0).astype(np.uint64)
    np.testing.assert_array_equal(got & np.uint64(1), positive)
    if wraps:
        whole = a.astype(object) + b.astype(object) - ((got >> np.uint64(1)).astype(object) << width)
        np.testing.assert_array_equal(whole[positive == 1], signed(x, width)[positive == 1].astype(object))
    assert sign_circuit(width, wraps).ands == width - 1 + 2 * wraps


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_the_largest_of_many_less_the_last(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 9), "count")
    width = data.draw(st.integers(3, 47), "width")
    shift = data.draw(st.integers(0, width - 2), "shift")
    out_width = data.draw(st.integers(1, 63), "out_width")
    garbler_masks = data.draw(st.booleans(), "garbler_masks")
    seed = data.draw(st.integers(0, 2**32 - 1), "seed")
    rng = np.random.default_rng(seed)
    x = signed(words(rng, count * 20, width - 1), width - 1).reshape(count, 20)  # differences fit
    x[:, 0], x[:, 1] = x[0, 0], -(1 << (width - 2))  # all alike, and all as low as can be
    x[-1, 2], x[0, 3] = (1 << (width - 2)) - 1, (1 << (width - 2)) - 1
    pairs = [shares(rng, gap, width) for gap in x[:-1] - x[1:]]
    n = words(rng, 20, out_width)
    mine, theirs = [(a, width) for a, _ in pairs], [(b, width) for _, b in pairs]
    (mine if garbler_masks else theirs).append((n, out_width))
    circuit = relu_circuit(width, out_width, shift, garbler_masks, count - 1)
    want = (((x.max(0) - x[-1]) >> shift).astype(np.uint64) + n) & np.uint64((1 << out_width) - 1)
    np.testing.assert_array_equal(compute(circuit, mine, theirs, seed), want)
    one = relu_circuit(width, out_width, shift)  # a tournament has as many of these as there are gaps
    assert circuit.ands == one.ands + (count - 2) * 3 * (width - 1)
    assert relu_circuit(width, width, 0, gaps=count - 1).ands == (count - 1) * relu_circuit(width, width, 0).ands


# ---- the same bits from kernels and from numpy, in pieces of any size


@pytest.mark.skipif(not LANES, reason="numba compiles without AES instructions here: there is one path only")
@pytest.mark.parametrize("count", PIECES)
def test_kernels_and_numpy_make_the_same_bits(count: int) -> None:
    rng, circuit = np.random.default_rng(count), relu_circuit(9, 11, 2)
    lanes, offset, keys = filled(count), offset_of(rng), keys_of(rng)
    a, b = words(rng, 2 * lanes * circuit.garbler), words(rng, 2 * lanes * circuit.evaluator)
    tables, zero = garbling.garble(circuit, keys, a, b, offset)
    slow, out = np.empty_like(tables), np.empty_like(zero)
    plain.run(circuit, keys, a, b, offset, slow, out)
    np.testing.assert_array_equal(slow, tables)
    np.testing.assert_array_equal(out, zero)
    made = garbling.evaluate(circuit, keys, a, b, tables)
    plain.run(circuit, keys, a, b, None, tables, out)
    np.testing.assert_array_equal(out, made)


def test_without_aes_instructions_the_bits_are_the_same() -> None:
    """LLVM aborts a process that is compiled for a CPU without them: numba's own switch is the test."""
    program = (
        "import hashlib, numpy as np\n"
        "from pibench.mpc.crypto.garbling import garbling\n"
        "from pibench.mpc.crypto.garbling.circuits import relu_circuit\n"
        "from pibench.mpc.crypto.garbling.layout import Keys, expand_salt\n"
        "c = relu_circuit(6, 6, 1)\n"
        "a, b = (np.arange(1, 2 * 144 * n + 1, dtype=np.uint64) for n in (c.garbler, c.evaluator))\n"
        "made = garbling.garble(c, Keys(expand_salt(bytes(16)), 3), a, b, np.array([7, 9], np.uint64))\n"
        "print(hashlib.sha256(b''.join(x.tobytes() for x in made)).hexdigest())\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | cpu, check=True, capture_output=True, timeout=100
        ).stdout
        for cpu in ({}, {"NUMBA_CPU_NAME": "generic"})
    }
    assert len(printed) == 1


def test_garbler_and_evaluator_may_cut_a_layer_differently() -> None:
    rng, circuit, lanes = np.random.default_rng(3), relu_circuit(5, 5, 1), 12 * BLOCK + 32
    offset, keys = offset_of(rng), keys_of(rng)
    a, b = words(rng, 2 * lanes * circuit.garbler), words(rng, 2 * lanes * circuit.evaluator)
    whole, out = garbling.garble(circuit, keys, a, b, offset)
    for step in (BLOCK, 5 * BLOCK, 9 * BLOCK):
        pieces = [
            garbling.evaluate(
                circuit,
                keys.at(start),
                a[start * 2 * circuit.garbler : (start + step) * 2 * circuit.garbler],
                b[start * 2 * circuit.evaluator : (start + step) * 2 * circuit.evaluator],
                whole[start * 4 * circuit.ands : (start + step) * 4 * circuit.ands],
            )
            for start in range(0, lanes, step)
        ]
        np.testing.assert_array_equal(np.concatenate(pieces), out)
    with pytest.raises(ValueError, match="begins no block"):
        keys.at(16)


# ---- security


def test_no_key_serves_twice() -> None:
    """Equal labels everywhere: ciphertexts of any two gates, halves, key blocks or instances differ all the same."""
    builder = Builder(1, 1)
    wire = builder.both(0, 1)
    circuit = builder.build([builder.both(wire, builder.both(0, 1))])
    lanes, offset, salt = 2048, np.array([1, 2], np.uint64), expand_salt(bytes(16))
    same = np.tile(np.array([4, 6], np.uint64), lanes)
    tables = [garbling.garble(circuit, Keys(salt, instance), same, same, offset)[0] for instance in (0, 1)]
    seen = np.stack(tables).reshape(2, lanes // BLOCK, 2 * circuit.ands, BLOCK, 2)
    per_key = seen[:, ::8, :, 0].reshape(-1, 2)  # a lane of every key
    assert len(np.unique(per_key, axis=0)) == len(per_key)
    np.testing.assert_array_equal(seen[:, :8], np.broadcast_to(seen[:, :1, :, :1], seen[:, :8].shape))


def uniform(data: np.ndarray) -> bool:
    """Whether bytes pass a chi-squared test at 1 in 100,000."""
    return bool(stats.chisquare(np.bincount(data.view(np.uint8).reshape(-1), minlength=256)).pvalue > 1e-5)


@pytest.mark.parametrize("x", [0, 5, 2**30 - 1])
def test_tables_labels_and_colours_are_uniform_for_constant_inputs(x: int) -> None:
    rng, circuit, lanes = np.random.default_rng(x), relu_circuit(31, 31, 9), 4 * BLOCK
    offset, keys = offset_of(rng), keys_of(rng)
    zeros, constant = np.zeros(lanes, np.uint64), np.full(lanes, x, np.uint64)
    a, b = words(rng, 2 * lanes * circuit.garbler), words(rng, 2 * lanes * circuit.evaluator)
    tables, _ = garbling.garble(circuit, keys, a, b, offset)
    held = active(a, [(constant, 31)], offset), active(b, [(zeros, 31), (zeros, 31)], offset)
    made = garbling.evaluate(circuit, keys, *held, tables)
    for seen in (tables, *held, made):
        assert uniform(seen)
    shown = np.empty(lanes, np.uint64)
    colours(made, 31, shown)
    ones = ((shown[:, None] >> np.arange(31, dtype=np.uint64)) & np.uint64(1)).sum(0)
    assert (np.abs(ones - lanes / 2) < 6 * np.sqrt(lanes) / 2).all()  # each output's colour says nothing


def test_what_the_evaluator_has_never_contains_the_offset() -> None:
    """Of every wire one label: no two labels of the evaluator's, and no ciphertext, differ by R."""
    rng, circuit, lanes = np.random.default_rng(8), relu_circuit(12, 12, 3), 2 * BLOCK
    offset, keys = offset_of(rng), keys_of(rng)
    a, b = words(rng, 2 * lanes * circuit.garbler), words(rng, 2 * lanes * circuit.evaluator)
    tables, _ = garbling.garble(circuit, keys, a, b, offset)
    held = active(a, [(words(rng, lanes, 12), 12)], offset), active(b, [(words(rng, lanes, 24), 24)], offset)
    made = garbling.evaluate(circuit, keys, *held, tables)
    seen = np.concatenate([*held, made, tables]).reshape(-1, 2)
    moved = {tuple(row) for row in (seen ^ offset).tolist()}
    assert not moved & {tuple(row) for row in seen.tolist()}
    assert tuple(offset.tolist()) not in {tuple(row) for row in seen.tolist()}


def test_encode_gives_the_label_of_each_bit() -> None:
    rng, count = np.random.default_rng(4), BLOCK + 20
    lanes, offset, values, more = filled(count), offset_of(rng), words(rng, count, 13), words(rng, count, 4)
    zero = words(rng, 2 * lanes * 17)
    made = np.empty_like(zero)
    encode(zero, values, 0, 13, 17, offset, made)
    encode(zero, more, 13, 4, 17, offset, made)
    np.testing.assert_array_equal(made, active(zero, [(values, 13), (more, 4)], offset))


def test_wrong_sizes_are_refused() -> None:
    circuit, rng = relu_circuit(4, 4, 0), np.random.default_rng(0)
    a, b = words(rng, 2 * 16 * 4), words(rng, 2 * 16 * 8)
    with pytest.raises(ValueError, match="lowest bit"):
        garbling.garble(circuit, keys_of(rng), a, b, np.array([2, 1], np.uint64))
    with pytest.raises(ValueError, match="do not fit"):
        garbling.garble(circuit, keys_of(rng), a[:-2], b, offset_of(rng))
    with pytest.raises(ValueError, match="do not fit"):
        garbling.evaluate(circuit, keys_of(rng), a, b, np.empty(6, np.uint64))
    with pytest.raises(ValueError, match="nothing but the sign"):
        relu_circuit(8, 8, 7)
