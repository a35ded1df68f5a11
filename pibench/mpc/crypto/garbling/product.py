"""Products of a garbled bit, shared by XOR as colours, with numbers that the two parties hold, in no further message.

The label that an evaluator gets of an output wire is the row of a transfer whose choice is the bit: of two pads, hashes
of both labels in the order of their colours, it can make the one for the colour that it sees. So the garbler multiplies
what it holds by the bit with one correction that goes out with its input labels. What the evaluator holds meets the
garbler's colour in transfers that were made offline, since that colour is known then. Semi-honest, unaudited, for
measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pibench.mpc.crypto.garbling.layer import Layer
from pibench.mpc.crypto.garbling.layout import BLOCK
from pibench.mpc.crypto.transfers import pads

Words = NDArray[np.uint64]
COLOUR_KEYS = 4  # purpose of the keys of these pads (transfers.py lists the others)
_LANE_BITS = 32


@dataclass
class GarblerPads:
    """Pads of both colours, and the colour of the label of zero: a word a lane."""

    first: Words
    second: Words
    colour: Words

    def correct(self, held: Words) -> tuple[Words, Words]:
        """Return the garbler's share of bit times held, and the correction for the evaluator."""
        if_first = held * self.colour  # the bit that colour 0 stands for is the colour of the label of zero
        difference = held - if_first - if_first
        return if_first - self.first, difference + self.first - self.second


def garbler_pads(layer: Layer, labels: Words, offset: Words, salt: Words) -> GarblerPads:
    """Return the pads of a layer's first output, from the labels of zero of all of them (flat)."""
    zero = wire_labels(labels, layer.circuit.outputs, 0)
    made = [_pads(layer, zero, shift, salt) for shift in (np.zeros(2, np.uint64), offset)]
    colour = zero.reshape(-1, 2)[: layer.count, 0] & np.uint64(1)
    of_zero, of_one = made
    swapped = np.negative(colour) & (of_zero ^ of_one)
    return GarblerPads(of_zero ^ swapped, of_one ^ swapped, colour)


def evaluator_share(layer: Layer, labels: Words, salt: Words, correction: Words) -> Words:
    """Return the evaluator's share, from its active labels of all outputs (flat)."""
    active = wire_labels(labels, layer.circuit.outputs, 0)
    colour = active.reshape(-1, 2)[: layer.count, 0] & np.uint64(1)
    return _pads(layer, active, np.zeros(2, np.uint64), salt) + colour * correction


def wire_labels(labels: Words, wires: int, wire: int) -> Words:
    """Return one wire's labels, flat, lane after lane, from those of all."""
    lanes = labels.size // (2 * wires)
    whole = lanes // BLOCK * BLOCK
    blocks = labels[: 2 * wires * whole].reshape(-1, wires, BLOCK, 2)[:, wire].reshape(-1)
    rest = labels[2 * wires * whole :].reshape(wires, -1)[wire] if lanes > whole else labels[:0]
    return np.concatenate([blocks, rest])


def _pads(layer: Layer, labels: Words, offset: Words, salt: Words) -> Words:
    made = np.empty_like(labels)
    pads(labels, layer.number << _LANE_BITS, offset, salt, COLOUR_KEYS, made)
    return made.reshape(-1, 2)[: layer.count, 0].copy()
