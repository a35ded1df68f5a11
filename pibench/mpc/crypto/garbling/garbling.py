"""Garble and evaluate a circuit over many lanes: half-gates, with kernels where the CPU has AES instructions.

Privacy is that of half-gates with a circular correlation robust hash, here in the ideal cipher model with a fresh
public key for each gate, half and 1,024 lanes (see gates.py and layout.py). Inputs must not depend on the garbled
circuit. Semi-honest, unaudited, for measurement.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pibench.mpc.crypto.aes import LANES
from pibench.mpc.crypto.garbling import plain
from pibench.mpc.crypto.garbling.circuit import Circuit
from pibench.mpc.crypto.garbling.gates import LABEL_BYTES
from pibench.mpc.crypto.garbling.layout import Keys

if LANES:
    from pibench.mpc.crypto.garbling.fast import run as _run
else:
    _run = plain.run

Words = NDArray[np.uint64]


def table_bytes(circuit: Circuit) -> int:
    """Bytes of ciphertexts a lane."""
    return 2 * LABEL_BYTES * circuit.ands


def garble(
    circuit: Circuit, keys: Keys, garbler: Words, evaluator: Words, offset: Words, into: Words | None = None
) -> tuple[Words, Words]:
    """Return ciphertexts (`into` takes them) and the outputs' labels of zero, flat, from the inputs' labels of zero.

    `garbler` and `evaluator` are flat, lanes x wires x 2 words in the order of layout.py; `offset` is R, its lowest bit
    1. Keys must never have served before.
    """
    if not offset[0] & np.uint64(1):
        raise ValueError("the offset's lowest bit is 1, or colours tell nothing")
    lanes = _lanes(circuit, garbler, evaluator)
    tables = np.empty(4 * circuit.ands * lanes, np.uint64) if into is None else into
    out = np.empty(2 * circuit.outputs * lanes, np.uint64)
    _run(circuit, keys, garbler, evaluator, offset, tables, out)
    return tables, out


def evaluate(circuit: Circuit, keys: Keys, garbler: Words, evaluator: Words, tables: Words) -> Words:
    """Return the outputs' active labels, flat, from the inputs' and the ciphertexts."""
    lanes = _lanes(circuit, garbler, evaluator)
    if tables.size != 4 * circuit.ands * lanes:
        raise ValueError(f"{tables.size // 2} ciphertexts do not fit {lanes} lanes of {circuit.ands} ANDs")
    out = np.empty(2 * circuit.outputs * lanes, np.uint64)
    _run(circuit, keys, garbler, evaluator, None, tables, out)
    return out


def _lanes(circuit: Circuit, garbler: Words, evaluator: Words) -> int:
    lanes = garbler.size // (2 * circuit.garbler)
    if lanes % 16 or garbler.size != 2 * lanes * circuit.garbler or evaluator.size != 2 * lanes * circuit.evaluator:
        raise ValueError("labels do not fit the circuit's inputs, or lanes are no multiple of 16")
    return lanes
