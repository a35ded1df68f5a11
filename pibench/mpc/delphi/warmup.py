"""Compile what garbling needs, or load it from numba's cache, before anything is measured."""

from __future__ import annotations

import functools

import numpy as np

from pibench.mpc.backends.choice import prepare_host
from pibench.mpc.crypto.garbling.circuits import relu_circuit
from pibench.mpc.crypto.garbling.garbling import evaluate, garble
from pibench.mpc.crypto.garbling.layout import Keys, choices, colours, encode, expand_salt


@functools.cache
def compile_kernels() -> None:
    """Garble, evaluate and decode a layer of the smallest size, after `masked`'s own kernels."""
    prepare_host()
    circuit, lanes = relu_circuit(2, 2, 0), 16
    a, b = (np.zeros(2 * lanes * wires, np.uint64) for wires in (circuit.garbler, circuit.evaluator))
    keys, words = Keys(expand_salt(bytes(16)), 0), np.zeros(lanes, np.uint64)
    tables, out = garble(circuit, keys, a, b, np.ones(2, np.uint64))
    evaluate(circuit, keys, a, b, tables)
    encode(a, words, 0, circuit.garbler, circuit.garbler, np.ones(2, np.uint64), np.empty_like(a))
    colours(out, circuit.outputs, words)
    choices(words, 0, 2, 2, lanes, np.zeros(2 * lanes, np.uint8))
