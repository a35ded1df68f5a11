"""How a linear layer lies before it is encrypted: as it is, or a polynomial's weighing in rows, two a channel.

A polynomial weighs t^2 and t of every element by its channel's coefficients: in the plan a layer of one filter an
element, of which an answer's polynomial holds few. Elements of a channel share their weights, so here they stand side
by side: a 1x1 convolution in groups, two rows in and one out for each channel, as long as the channel with the most
elements; places beyond a shorter one hold zeros. An answer is then as large as its elements, whatever the mask kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pibench.mpc.backends.backend import Ints
from pibench.mpc.crypto.rlwe.layer import Layer
from pibench.mpc.masked.gadgets.product import LinearLayer


@dataclass(frozen=True)
class Laid:
    """A layer as it is encrypted."""

    layer: Layer

    @classmethod
    def of(cls, gadget: LinearLayer) -> Laid:
        """Return how a step's layer lies."""
        name, bits = gadget.step.out, gadget.out.bits
        channel = gadget.plan.channels.get(gadget.layer.weight)
        if channel is None:
            return Laid(Layer.of(name, gadget.layer, gadget.source.shape, bits))
        runs = np.bincount(channel)
        runs = runs[runs > 0]
        layer = Layer(name, bits, 2 * len(runs), (1, int(runs.max())), len(runs), groups=len(runs))
        return Rows(layer, tuple(runs.tolist()))

    def part(self, part: Ints) -> Ints:
        """Lay the client's part of the input, a batch of them."""
        return part

    def share(self, share: Ints) -> Ints:
        """Return a share of the output as the plan has it, flat."""
        return share.reshape(-1)

    def weights(self, integers: Ints) -> Ints:
        """Return the weights that the encrypted layer has."""
        return integers


@dataclass(frozen=True)
class Rows(Laid):
    """A weighing: elements of a channel are neighbours in the plan (their channels ascend), and a row here."""

    runs: tuple[int, ...]

    @cached_property
    def places(self) -> Ints:
        """Where each element lies among all rows."""
        row = np.repeat(np.arange(len(self.runs)), self.runs)
        return row * max(self.runs) + np.concatenate([np.arange(n) for n in self.runs])

    def part(self, part: Ints) -> Ints:
        """Lay squares and values of each channel in two rows."""
        pairs = part.reshape(len(part), -1, 2)
        laid = np.zeros((len(part), 2, len(self.runs) * max(self.runs)), np.int64)
        laid[:, :, self.places] = pairs.transpose(0, 2, 1)
        rows = laid.reshape(len(part), 2, len(self.runs), max(self.runs))
        return np.ascontiguousarray(rows.transpose(0, 2, 1, 3)).reshape(len(part), -1, 1, max(self.runs))

    def share(self, share: Ints) -> Ints:
        """Take the elements' places, and none beyond."""
        return share.reshape(len(share), -1)[:, self.places].reshape(-1)

    def weights(self, integers: Ints) -> Ints:
        """Return one filter a channel: that of its first element."""
        first = np.cumsum((0, *self.runs[:-1]))
        return integers.reshape(-1, 2)[first].reshape(-1, 2, 1, 1)
