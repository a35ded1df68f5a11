"""The client's side of an inference: all its parts are known before, only what talks is left (rank 1)."""

from __future__ import annotations

from torch import Tensor

from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.mpc.backends.backend import Backend, Host, Ints
from pibench.mpc.masked.gadgets.gadget import Gadgets
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.sources.source import Material
from pibench.mpc.masked.talk import converse


class Client:
    """Holds the client's half of every conversation."""

    def __init__(self, plan: Plan, gadgets: Gadgets, backend: Backend, channel: Channel, meter: Meter) -> None:
        self.plan, self.gadgets, self.backend, self.channel, self.meter = plan, gadgets, backend, channel, meter

    def run(self, images: Tensor, material: Material) -> Tensor:
        """Run one inference from images (batch, *shape) to logits (batch, classes), float32."""
        fraction_bits = self.plan.options.fraction_bits
        part = self.compute(self.backend.encode(images, fraction_bits), material)
        heard = self.backend.buffer(self.plan.count(self.plan.output.name) * self.plan.answer_bytes)
        self.channel.recv_into(heard)
        return self.backend.decode(self._add(heard, part), fraction_bits).view(part.shape)

    def _add(self, heard: Host, part: Ints) -> Ints:
        """Return the logits at the network's fraction bits, from the server's part without what lies below them.

        What is missing makes the sum too small by less than a unit, uniformly: the next unit up is exact where the
        logits are, and right on average everywhere.
        """
        shift, keep = self.plan.output_shift, 64 - self.plan.output.bits
        total = (self.backend.unpack(heard, self.plan.answer_bytes) << shift) + part.reshape(-1)
        total = (total << keep) >> keep
        return -(-total >> shift)

    def compute(self, image: Ints, material: Material) -> Ints:
        """Return the client's part of the output, from the encoded images (batch, *shape)."""
        material.halves[self.plan.steps[0].out].image = image
        for group in self.plan.groups:
            if group[0].talks:
                talks = [(s.label, self.gadgets[s.out].client(material.halves[s.out])) for s in group]
                converse(self.backend, self.channel, self.meter, talks)
        return material.parts[self.plan.output.name]
