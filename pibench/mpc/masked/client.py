"""The client's side: its part of every value, known before any input, and its half of the conversations (rank 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pibench.links.meter import Meter
from pibench.links.transport import Channel
from pibench.mpc.masked import kernels
from pibench.mpc.masked.kernels import Bytes, Ints
from pibench.mpc.masked.local import apply_local
from pibench.mpc.masked.material import ClientDraws, ExtendDraw, ReluDraw, SquareDraw, extended_part, multiply_words
from pibench.mpc.masked.plan import Extend, Plan, Product, Receive, ReluStep, Remask, Square, Step
from pibench.mpc.masked.server import offer_bytes, ring_mask
from pibench.mpc.masked.talk import Conversation, Send, converse
from pibench.mpc.masked.talk import Receive as Await
from pibench.mpc.ring.packing import pack, pack_halves, unpack


@dataclass
class ClientMaterial:
    """What one inference uses up on the client, by the name of the step's output."""

    relu: dict[str, ReluDraw] = field(default_factory=dict)
    square: dict[str, SquareDraw] = field(default_factory=dict)
    extend: dict[str, ExtendDraw] = field(default_factory=dict)
    top: dict[str, Bytes] = field(default_factory=dict)  # top bits of its parts that are truncated
    shown: dict[str, Ints] = field(default_factory=dict)  # debug mode: its parts of ReLU inputs
    image_part: Ints | None = None
    logits_part: Ints | None = None


class Client:
    """Runs the plan on the client's parts: offline all of it, online only what talks."""

    def __init__(
        self, plan: Plan, masked_weights: dict[str, Tensor], channel: Channel, meter: Meter, batch: int
    ) -> None:
        self.plan, self.channel, self.meter, self.batch = plan, channel, meter, batch
        self._masked_weights = masked_weights  # D = W - B
        self._telling = True

    def expand_material(self, seed: bytes, tell: bool = True) -> ClientMaterial:
        """Draw one inference's material, work out all of the client's parts, and tell the server what it needs of them.

        Kept material was told when it was made.
        """
        self._telling = tell
        draws, made, parts = ClientDraws(seed, self.plan, self.batch), ClientMaterial(), dict[str, Ints]()
        for step in self.plan.steps:
            inputs = [parts[name] for name in step.inputs]
            parts[step.out] = self._part(step, inputs, draws, made)
        made.logits_part = parts[self.plan.output.name]
        return made

    def _part(self, step: Step, inputs: list[Ints], draws: ClientDraws, made: ClientMaterial) -> Ints:
        shape = (self.batch, *self.plan.values[step.out].shape)
        match step:
            case Receive():
                made.image_part = draws.part(step)
                return made.image_part.reshape(shape)
            case Remask():
                fresh = draws.part(step).reshape(shape)
                self._tell((inputs[0] >> step.shift) - fresh, self.plan.values[step.out].wire_bytes)
                return fresh
            case Product():
                return self._product(step, inputs[0], draws).reshape(shape)
            case ReluStep():
                return self._relu_part(step, inputs[0], draws, made).reshape(shape)
            case Square():
                return self._square_part(step, inputs[0], draws, made).reshape(shape)
            case Extend():
                return self._extend_part(step, inputs[0], draws, made).reshape(shape)
        return apply_local(self.plan, step, inputs, server=False)

    def _tell(self, values: Ints, width: int) -> None:
        if self._telling:
            self.channel.send(pack(np.ascontiguousarray(values).reshape(-1), width))

    def _product(self, step: Product, part: Ints, draws: ClientDraws) -> Ints:
        """K1 = D * A + K'."""
        made = multiply_words(step.layer, torch.from_numpy(part), self._masked_weights[step.layer.weight])
        return made.numpy().reshape(-1) + draws.part(step)

    def _relu_part(self, step: ReluStep, part: Ints, draws: ClientDraws, made: ClientMaterial) -> Ints:
        draw = made.relu[step.out] = draws.relu(step)
        window = self.plan.windows[step.inputs[0]]
        self._tell(part.reshape(-1) + draw.r, window.wire_bytes)
        if self.plan.options.check_ranges:
            made.shown[step.out] = np.ascontiguousarray(part).reshape(-1)
        return draw.part

    def _extend_part(self, step: Extend, part: Ints, draws: ClientDraws, made: ClientMaterial) -> Ints:
        draw = made.extend[step.out] = draws.extend(step)
        y, made.top[step.out] = extended_part(self.plan, step, part, draw)
        return y

    def _square_part(self, step: Square, part: Ints, draws: ClientDraws, made: ClientMaterial) -> Ints:
        draw = made.square[step.out] = draws.square(step)
        window = self.plan.windows[step.inputs[0]]
        self._tell(part.reshape(-1) + draw.r, window.wire_bytes)
        return draw.part

    def run(self, images: Tensor, material: ClientMaterial) -> Tensor:
        """Run one inference from images (batch, *shape) to logits (batch, classes), float32."""
        # `fixedpoint.encode` in numpy: one image is so small that torch's first operations would cost more than it
        scaled = images.numpy() * np.float64(1 << self.plan.options.fraction_bits)
        part = self.compute(np.rint(scaled, out=scaled).astype(np.int64), material)
        output = self.plan.output
        heard = np.empty(output.count * self.batch * output.wire_bytes, np.uint8)
        self.channel.recv_into(heard)
        total = unpack(heard, output.wire_bytes) + part.reshape(-1)
        keep = 64 - output.bits
        logits = ((total << keep) >> keep).astype(np.float64) / 2.0**output.scale
        return torch.from_numpy(logits).float().view(self.batch, *output.shape)

    def compute(self, image: Ints, material: ClientMaterial) -> Ints:
        """Return the client's part of the output, from the encoded images or from its additive share of them."""
        for group in self.plan.groups:
            if group[0].talks:
                converse(self.channel, self.meter, [(s.label, self._talk(s, image, material)) for s in group])
        assert material.logits_part is not None
        return material.logits_part

    def _talk(self, step: Step, image: Ints, material: ClientMaterial) -> Conversation:
        if isinstance(step, Receive):
            return self._give_image(step, image, material)
        if isinstance(step, Extend):
            return self._extend(step, material)
        if isinstance(step, Square):
            return self._square(step, material)
        assert isinstance(step, ReluStep)
        return self._relu(step, material)

    def _give_image(self, step: Receive, image: Ints, material: ClientMaterial) -> Conversation:
        assert material.image_part is not None
        yield Send(pack(image.reshape(-1) - material.image_part, self.plan.values[step.out].wire_bytes))

    def _relu(self, step: ReluStep, material: ClientMaterial) -> Conversation:
        """Hold the other half of the four messages of `Server._relu`."""
        source, out = self.plan.values[step.inputs[0]], self.plan.values[step.out]
        window, draw = self.plan.windows[source.name], material.relu[step.out]
        share, n = draw.share, draw.mu.size
        if self.plan.options.check_ranges:
            yield Send(material.shown[step.out].view(np.uint8))
        bits, reply, y = np.empty(n, np.uint8), np.empty(n, np.uint8), np.empty(n, np.int64)
        c = unpack((yield Await(n * window.wire_bytes)), window.wire_bytes)
        c &= ring_mask(window.bits)
        kernels.read_digits(c, share.words, draw.mu, window.low, self.plan.options.digit_bits, bits)
        theirs = yield Await(n)
        kernels.answer(bits, theirs, share.table, reply)
        yield Send(reply)
        beta = np.unpackbits((yield Await(-(-n // 8))), count=n)
        kernels.select(
            c, beta, share.s, share.rp, share.srp, share.rt, share.srt, step.shift, window.bits, window.offset, 0, y
        )  # fmt: skip
        y -= draw.part
        yield Send(pack(y, out.wire_bytes))

    def _square(self, step: Square, material: ClientMaterial) -> Conversation:
        """Hold the other half of the two messages of `Server._square`."""
        source, out = self.plan.values[step.inputs[0]], self.plan.values[step.out]
        window, draw = self.plan.windows[source.name], material.square[step.out]
        share, y = draw.share, np.empty(draw.part.size, np.int64)
        c = unpack((yield Await(draw.r.size * window.wire_bytes)), window.wire_bytes)
        c &= ring_mask(window.bits)
        raised = self.plan.options.fraction_bits
        kernels.square(
            c, share.rp, share.sq, share.rt, share.rprt, step.shift, window.bits, window.offset, raised, 0, y
        )
        y -= draw.part
        yield Send(pack(y, out.wire_bytes))

    def _extend(self, step: Extend, material: ClientMaterial) -> Conversation:
        """Hold the other half of the two messages of `Server._extend`."""
        source, out = self.plan.values[step.inputs[0]], self.plan.values[step.out]
        draw, top = material.extend[step.out], material.top[step.out]
        d = np.unpackbits((yield Await(-(-top.size // 8))), count=top.size)
        offers = np.empty(2 * top.size, np.uint32)
        kernels.wrap_offers(top, d, draw.x, draw.p0, draw.p1, offers)
        size = offer_bytes(out.bits, self.plan.windows[source.name].bits, step.shift)
        yield Send(pack_halves(offers, size))
