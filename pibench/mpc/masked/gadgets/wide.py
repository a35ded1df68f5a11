"""Values of more than 64 ring bits: linear layers before the first ReLU, without a ring extension between them.

What the client sends first may be in a ring of any size, since it shares its image itself. So a chain of linear layers
that begins at the image can truncate for free as often as it must, if the ring at its begin has the bits that those
truncations use up: 16 a layer. An extension would cost two messages; here a few more words are multiplied, and only
while they are needed, since every truncation gives its bits back. Nothing is assumed beyond what the narrow steps
assume: a part is uniform in its ring, whatever its size.

A part of such a value is an array (words, batch, *shape) as `ring/wide.py` lays words out; these gadgets are the narrow
ones for it, chosen where a value of theirs is wide. Only a dealer makes such material: encryption has narrower rings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pibench.errors import UsageError
from pibench.lowering.program import Weights
from pibench.mpc.backends.backend import Backend, Bytes, Host, Ints, Stream, rounding_up
from pibench.mpc.masked.gadgets.gadget import Gadget, Parts
from pibench.mpc.masked.gadgets.image import ClientHalf as ImageHalf
from pibench.mpc.masked.gadgets.image import Image
from pibench.mpc.masked.gadgets.local import Drop, Gathering, Local, PoolSum, Sum
from pibench.mpc.masked.gadgets.product import LinearLayer, Product
from pibench.mpc.masked.gadgets.product import ServerHalf as ProductServerHalf
from pibench.mpc.masked.gadgets.remask import ClientHalf as FreshHalf
from pibench.mpc.masked.gadgets.remask import FreshMask, Remask
from pibench.mpc.masked.gadgets.remask import ServerHalf as FreshServerHalf
from pibench.mpc.masked.plan import Plan, Step, Value
from pibench.mpc.masked.talk import Await, Conversation, Send
from pibench.mpc.protocol import Cost
from pibench.mpc.ring import wide
from pibench.mpc.ring.wide import Words

PIECE_BYTES = wide.WORD_BITS // 8  # of what goes over the wire
PRODUCT_BITS = 62  # of a low word's product: what the narrow steps' products have
HALF_BITS = wide.WORD_BITS // 2  # of a low word's halves, which are multiplied where weights are large
WHOLE_SUM_BITS, LARGEST_SUM_BITS = (PRODUCT_BITS - 1 - bits for bits in (wide.WORD_BITS, HALF_BITS))


@dataclass(frozen=True, kw_only=True)
class Narrow(Step):
    """The lowest bits of a wide value as one word, for a step that wants no more."""


class Wide(Gadget[Any, Any, Any]):
    """How a wide gadget holds its output: (words, batch, *shape), or as ever where one word is enough."""

    def __init__(self, plan: Plan, step: Step, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        if self.out.words > 1:
            self.shape = (self.out.words, *self.shape)
        self.pieces = wide.pieces_for(self.out.bits)

    def _words(self, value: Value, part: Ints) -> Words:
        """Return the words of a part of this value, no more than the output has."""
        return wide.narrowed(list(part) if value.words > 1 else [part], self.out.words)

    def _input(self, part: Ints, position: int = 0) -> Words:
        return self._words(self.plan.values[self.step.inputs[position]], part)

    def _array(self, words: Words) -> Ints:
        return self.backend.stack(words) if len(words) > 1 else words[0]

    def _dropped(self, part: Ints, extra: int) -> Words:
        """Return (input + extra) without its lowest `shift` bits."""
        value = self.plan.values[self.step.inputs[0]]
        first, *others = list(part) if value.words > 1 else [part]
        return wide.shifted_down(wide.carried([first + extra, *others]), self.step.shift, self.out.words)

    def _uniform(self, stream: Stream, count: int) -> Ints:
        """Draw uniform numbers of the output's ring: (words, count), or (count,)."""
        *lows, last = (stream.words(count) for _ in range(self.out.words))
        return self._array([*(low & wide.LOW for low in lows), last])

    def _packed(self, words: Words) -> Ints:
        """Return a number's pieces one after another, of which four bytes each count."""
        return self.backend.flat(self.backend.stack(wide.pieces(words, self.out.bits)))

    def _unpacked(self, heard: Ints, count: int) -> Ints:
        """Return (words, count) or (count,) of what was packed."""
        return self._array(wide.from_pieces(list(heard.reshape(self.pieces, count)), self.out.bits))


class WideImage(Wide, Image):
    """See image.Receive."""

    def server(self, parts: Parts, half: None) -> Conversation:
        """Take the masked image."""
        heard = self.backend.unpack((yield Await(PIECE_BYTES * self.pieces * self.size)), PIECE_BYTES)
        parts[self.step.out] = self._unpacked(heard, self.size).reshape(self.shape)

    def client(self, half: ImageHalf) -> Conversation:
        """Send the image less its mask."""
        assert half.image is not None
        shown = wide.widened(half.image.reshape(-1), self.out.words)
        masked = wide.added(shown, wide.negated(self._words(self.out, half.part)))
        yield Send(self.backend.pack(self._packed(masked), PIECE_BYTES))

    @property
    def cost(self) -> Cost:
        """One message."""
        return Cost(rounds=self.step.rounds, client_bytes=PIECE_BYTES * self.pieces * self.size)


class WideLayer(Wide, LinearLayer):
    """See product.Product: a word of the input at a time, all of them in one batch."""

    def __init__(self, plan: Plan, step: Product, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        self.dealt_bytes = PIECE_BYTES * self.pieces * self.size
        self._reads = math.prod(self.weight_shape[1:])
        self._weight_words = (*self.shape[: -1 - len(self.out.shape)], *self.weight_shape)
        self._limb_bits = min(31, (63 - (self._reads - 1).bit_length()) // 2)  # sums of products of two stay below 2^63

    @property
    def more_macs(self) -> int:
        """Multiply-accumulates of a batch that one word would not have taken."""
        return (self.out.words - 1) * self.size * self._reads

    def prepare(self, weights: Weights) -> None:
        """Encode weights and bias; raises UsageError where products do not fit even of halves of low words."""
        encoded = self.encoded(weights)
        sum_bits = int(encoded.abs().flatten(1).sum(1).max()).bit_length()  # of one output's absolute weights
        if sum_bits > LARGEST_SUM_BITS:
            most = LARGEST_SUM_BITS - self.options.fraction_bits
            raise UsageError(
                f"the weights before the first ReLU are too large for a wide image: 2^{most} is the limit of an "
                "output's absolute weights",
                remedy="set wide_image: false in the protocol's options",
            )
        lows, self._halved = self.out.words - 1, sum_bits > WHOLE_SUM_BITS
        rows, last = (1 + self._halved) * lows + 1, self.out.bits - wide.WORD_BITS * lows
        self._make(encoded, weights, batch=self.plan.batch * rows, bits=max(PRODUCT_BITS, last))

    # masked weights and products with them

    @property
    def mask_name(self) -> str:
        """A mask is as wide as its product: layers of the same weights share it where their rings are alike."""
        return f"{self.layer.weight}/{self.pieces}"

    @property
    def hidden_bytes(self) -> int:
        """Of D on the wire."""
        return PIECE_BYTES * self.pieces * math.prod(self.weight_shape)

    def draw_mask(self, stream: Stream) -> Ints:
        """Return B, uniform in the output's ring."""
        return self._uniform(stream, math.prod(self.weight_shape)).reshape(self._weight_words)

    def hide(self, weight: Ints, mask: Ints) -> Host:
        """Return D = W - B as it is sent."""
        shown = wide.widened(weight, self.out.words)
        hidden = wide.added(shown, wide.negated(self._words(self.out, mask)))
        return self.backend.pack(self._packed(hidden), PIECE_BYTES)

    def hidden(self, heard: Host) -> Ints:
        """Return D from what was sent."""
        count = math.prod(self.weight_shape)
        made = self._unpacked(self.backend.unpack(heard, PIECE_BYTES), count)
        return made.reshape(self._weight_words)

    def dealt(self, part: Ints, mask: Ints, offset: Ints) -> Bytes:
        """Return B k - K'."""
        made = self._product(part, mask, wide.negated(self._words(self.out, offset)))
        return self.backend.lift(self.backend.pack(self._packed(made), PIECE_BYTES))

    def shared(self, part: Ints, hidden: Ints, offset: Ints) -> Ints:
        """Return D k + K'."""
        return self._array(self._product(part, hidden, self._words(self.out, offset)))

    def _product(self, part: Ints, weight: Ints, offset: Words) -> Words:
        """Multiply limb by limb, each pair's sums exact in a word, and add the offset (flat)."""
        size, batch = self._limb_bits, self.plan.batch
        count = -(-self.out.bits // size)
        k, w = self._input(part), self._words(self.out, weight)
        limbs = [wide.limb(k, size * i, size) for i in range(count)]
        for i in range(count):
            left = count - i  # what lies beyond the ring is not multiplied
            x = self.backend.stack(limbs[:left]).reshape(left * batch, *self.source.shape)
            y = self.multiply_words(x, wide.limb(w, size * i, size)).reshape(left, self.size)
            for j in range(left):
                offset = wide.place_at(offset, y[j], size * (i + j))
        return wide.carried(offset)

    def receive(self, half: ProductServerHalf, correction: Bytes) -> None:
        """Take K0."""
        heard = self.backend.unpack(self.backend.host(correction), PIECE_BYTES)
        half.pre = self._unpacked(heard, self.size).reshape(self.shape)

    def hear(self, half: ProductServerHalf, told: Ints | None) -> None:
        """Add the bias to K0."""
        if self._bias is not None:
            bias = wide.widened(self._bias, self.out.words)
            half.pre = self._array(wide.added(self._words(self.out, half.pre), bias))

    def alone(self, inputs: list[Ints], half: ProductServerHalf) -> Ints:
        """W s + K0 + bias."""
        spare = 64 - PRODUCT_BITS
        (*lows, last), (*adds, add) = self._input(inputs[0]), self._words(self.out, half.pre)
        if self._halved:  # low halves first, under what is added; then high ones
            highs = [low >> HALF_BITS for low in lows]
            lows, adds = [low & ((1 << HALF_BITS) - 1) for low in lows] + highs, adds + [word * 0 for word in adds]
        x, shape = self._array([*lows, last]), (len(lows) + 1, self.plan.batch, *self.out.shape)
        made = self._multiply(x.reshape(-1, *self.source.shape), self._array([*adds, add]).reshape(-1, *self.out.shape))
        *products, top = made.reshape(shape)
        words = [(word << spare) >> spare for word in products]
        return self._array(wide.carried(_whole(words, top) if self._halved else [*words, top]))


class WideFreshMask(Wide, FreshMask):
    """See remask.Remask."""

    def __init__(self, plan: Plan, step: Remask, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        self.told_width, self.told_count = PIECE_BYTES, self.pieces * self.size

    def tell(self, inputs: list[Ints], half: FreshHalf) -> Ints:
        """Return the old part, truncated, less the fresh one, which hides it."""
        old = [self.backend.flat(word) for word in self._dropped(inputs[0], 0)]
        return self._packed(wide.added(old, wide.negated(self._words(self.out, half.part))))

    def hear(self, half: FreshServerHalf, told: Ints | None) -> None:
        """Take the difference."""
        assert told is not None
        half.gap = self._unpacked(told, self.size).reshape(self.shape)

    def alone(self, inputs: list[Ints], half: FreshServerHalf) -> Ints:
        """Truncate and add the difference."""
        x = self._dropped(inputs[0], rounding_up(self.step.shift))
        return self._array(wide.added(x, self._words(self.out, half.gap)))


class WideSum(Wide, Local[Sum]):
    """See local.Sum."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Shift and add."""
        moved = [
            wide.shifted_up(wide.raised(self._input(part, position), self.out.words), shift)
            for position, (part, shift) in enumerate(zip(parts, self.step.shifts, strict=False))
        ]
        if len(moved) == 1:
            return self._array(moved[0])
        return self._array(wide.added(moved[0], moved[1] if self.step.sign > 0 else wide.negated(moved[1])))


class WidePooling(Wide, Local[PoolSum]):
    """See local.PoolSum."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Add up the windows, a word at a time."""
        step = self.step
        sums = wide.carried(
            [self.backend.pool_sum(word, step.kernel, step.stride, step.padding) for word in self._input(parts[0])]
        )
        return self._array(wide.carried([word * step.factor for word in sums]))


class WideGathering(Wide, Gathering):
    """See local.Gather."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Take elements by position, a word at a time."""
        fill = wide.split(self.step.fill if server else 0, self.out.words)
        rows = zip(*(self._input(part, position) for position, part in enumerate(parts)), strict=True)
        shape = (self.plan.batch, *self.out.shape)
        gathered = self.backend.gather
        taken = [gathered(list(row), self._places, low).reshape(shape) for row, low in zip(rows, fill, strict=True)]
        return self._array(taken)


class WideDropping(Wide, Local[Drop]):
    """See local.Drop."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Shift the part down: the server's rounded up."""
        return self._array(self._dropped(parts[0], rounding_up(self.step.shift) if server else 0))


class Narrowing(Wide, Local[Narrow]):
    """See Narrow."""

    def apply(self, parts: list[Ints], server: bool) -> Ints:
        """Keep the lowest bits."""
        return self._array(self._input(parts[0]))


def _whole(halves: Words, top: Ints) -> Words:
    """Put products of low halves and, after them, of high halves together; not carried."""
    count = len(halves) // 2
    words = [*halves[:count], top]
    for place, high in enumerate(halves[count:]):
        words[place] = words[place] + ((high & ((1 << HALF_BITS) - 1)) << HALF_BITS)
        words[place + 1] = words[place + 1] + (high >> HALF_BITS)
    return words
