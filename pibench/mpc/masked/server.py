"""The server's side of an inference (rank 0: owns the weights)."""

from __future__ import annotations

from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.lowering.program import Weights
from pibench.mpc.backends.backend import Backend, Ints, ring_mask
from pibench.mpc.masked.gadgets.gadget import Gadgets
from pibench.mpc.masked.plan import Plan
from pibench.mpc.masked.sources.source import Material
from pibench.mpc.masked.talk import converse


class Server:
    """Runs the plan on the server's parts."""

    def __init__(
        self, plan: Plan, gadgets: Gadgets, backend: Backend, weights: Weights, channel: Channel, meter: Meter
    ) -> None:
        self.plan, self.gadgets, self.backend, self.channel, self.meter = plan, gadgets, backend, channel, meter
        for gadget in gadgets.values():
            gadget.prepare(weights)

    def run(self, material: Material) -> None:
        """Run one inference; the last message carries the server's part of the logits.

        Of that the valid bits alone, and none below the network's fraction bits: the client's part makes up for them
        with what is uniform to it.
        """
        part = self.backend.flat(self.compute(material)) & ring_mask(self.plan.output.bits)
        self.channel.send(self.backend.pack(part >> self.plan.output_shift, self.plan.answer_bytes))

    def compute(self, material: Material) -> Ints:
        """Return the server's part of the output."""
        parts, halves = material.parts, material.halves
        for group in self.plan.groups:
            if group[0].talks:
                talks = [(s.label, self.gadgets[s.out].server(parts, halves.get(s.out))) for s in group]
                converse(self.backend, self.channel, self.meter, talks)
                continue
            step = group[0]
            with self.meter.op(*step.label):
                inputs = [parts[name] for name in step.inputs]
                parts[step.out] = self.gadgets[step.out].alone(inputs, halves.get(step.out))
        return parts[self.plan.output.name]
