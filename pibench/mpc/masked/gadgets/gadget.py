"""What every gadget has: one step of one plan, in all of its phases, from both sides. A new one is one file and a line.

A step's life, and who calls what:

1. *offline*: a source (`sources/`) makes the two halves of what the step uses up, `ServerHalf` at the server and
   `ClientHalf` at the client: dataclasses of the gadget's own file, arrays of the backend. A dealer makes them as this
   class says: both parties draw what is uniform from seeds of their own (`draw_client`, `draw_server`), the dealer
   draws the same and puts what the halves must have in common into a correction (`deal`), which the server takes
   (`receive`). A source of two parties makes the same halves by talking; their docstrings say what they must have in
   common.
2. *offline*: the client works out its part of the output (`client_part`), which depends on no input, and tells the
   server what that needs of it (`tell`), which the server adds to its half (`hear`).
3. *online*: the two conversations, or, where nothing is said, what the server does alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pibench.lowering.program import Weights
from pibench.mpc.backends.backend import Backend, Bytes, Host, Ints, Stream
from pibench.mpc.masked.options import Window
from pibench.mpc.masked.plan import Plan, Step
from pibench.mpc.masked.talk import Conversation
from pibench.mpc.protocol import Cost

StepT = TypeVar("StepT", bound=Step)
ServerT = TypeVar("ServerT")
ClientT = TypeVar("ClientT")
Arrays = dict[str, Host]
Parts = dict[str, Ints]  # a party's parts of the values of one inference, (batch, *shape) by name


class Gadget(Generic[StepT, ServerT, ClientT]):
    """One step of one plan; every process that runs the plan has gadgets of its own."""

    server_half: ClassVar[type[Any] | None] = None
    client_half: ClassVar[type[Any] | None] = None
    told_width: int = 0  # bytes a scalar of what the client tells the server offline, for `told_count` scalars
    told_count: int = 0
    dealt_bytes: int = 0  # of a dealer's correction

    def __init__(self, plan: Plan, step: StepT, backend: Backend) -> None:
        self.plan, self.step, self.options, self.backend = plan, step, plan.options, backend
        self.out = plan.values[step.out]
        self.size = plan.count(step.out)  # scalars of the output for a batch
        self.shape = (plan.batch, *self.out.shape)

    def _uniform(self, stream: Stream, count: int) -> Ints:
        """Draw so many uniform numbers of the output's ring."""
        return stream.words(count)

    def prepare(self, weights: Weights) -> None:
        """Server: get ready for a model, once; `weights` float32, as `product.layer_weights` returns them."""

    # offline, as a dealer does it

    def draw_client(self, stream: Stream) -> ClientT:
        """Client and dealer: draw the client's half from its seed."""
        raise NotImplementedError

    def draw_server(self, stream: Stream) -> ServerT:
        """Server and dealer: draw of the server's half what is uniform; the correction is still missing."""
        raise NotImplementedError

    def deal(self, client: ClientT, server: ServerT, secret: Stream) -> Bytes:
        """Return the correction, `dealt_bytes` long, that makes both halves fit; may use up the client's half."""
        raise NotImplementedError

    def receive(self, half: ServerT, correction: Bytes) -> None:
        """Server: take the dealer's correction."""
        raise NotImplementedError

    # offline, wherever the halves come from

    def client_part(self, inputs: list[Ints | None], half: ClientT) -> Ints:
        """Return the client's part of the output (flat or shaped); a dealer calls it for parts that it can know."""
        raise NotImplementedError

    def tell(self, inputs: list[Ints], half: ClientT) -> Ints:
        """Client: return the `told_count` scalars that the server must know beforehand."""
        raise NotImplementedError

    def hear(self, half: ServerT, told: Ints | None) -> None:
        """Server: complete its half, by what was told where anything is."""

    # online

    def server(self, parts: Parts, half: ServerT) -> Conversation:
        """Server: hold its side of the conversation and put its part of the output among the parts."""
        raise NotImplementedError

    def client(self, half: ClientT) -> Conversation:
        """Client: hold its side; its part of the output was known before."""
        raise NotImplementedError

    def alone(self, inputs: list[Ints], half: ServerT) -> Ints:
        """Server: return its part of the output of a step that needs no conversation."""
        raise NotImplementedError

    @property
    def cost(self) -> Cost:
        """What the conversations send, and what is told offline; what a source sends is the source's to declare."""
        return Cost(offline_client_bytes=self.told_width * self.told_count)

    # on disk

    def lay(self, name: str, array: Any) -> Any:
        """Return the field of a half that was kept as this array."""
        return array


class HasPart(Protocol):
    """A half of the client's that holds its part of the output."""

    part: Ints


class HasMask(Protocol):
    """A half of the server's: its part r0 of the opening's mask r = r0 + r1, (scalars,)."""

    pre: Ints


class HasOtherMask(Protocol):
    """A half of the client's: its part r1, (scalars,)."""

    r: Ints


PartT = TypeVar("PartT", bound=HasPart)
MaskT = TypeVar("MaskT", bound=HasMask)
OtherMaskT = TypeVar("OtherMaskT", bound=HasOtherMask)


class PartDrawn(Gadget[StepT, ServerT, PartT]):
    """A gadget of which the client draws its part of the output, uniform, and the server nothing."""

    server_half: ClassVar[type[Any]]
    client_half: ClassVar[type[Any]]

    def draw_client(self, stream: Stream) -> PartT:
        """Draw the part."""
        half: PartT = self.client_half(self._uniform(stream, self.size))
        return half

    def draw_server(self, stream: Stream) -> ServerT:
        """Nothing is drawn."""
        half: ServerT = self.server_half()
        return half

    def client_part(self, inputs: list[Ints | None], half: PartT) -> Ints:
        """Return the drawn part."""
        return half.part


class Opens(Gadget[StepT, MaskT, OtherMaskT]):
    """A gadget that opens its input under a mask of both: the client's part of it is known before, and goes offline."""

    window: Window

    def tell(self, inputs: list[Ints], half: OtherMaskT) -> Ints:
        """Return part of x + r1."""
        return inputs[0].reshape(-1) + half.r

    def hear(self, half: MaskT, told: Ints | None) -> None:
        """Make r0 all that is added to the server's part of x."""
        assert told is not None
        half.pre += told + self.window.offset


AnyGadget = Gadget[Any, Any, Any]
Gadgets = dict[str, AnyGadget]  # by the name of the step's output, in the order of the plan


def half_arrays(half: object) -> Arrays:
    """Return a half as named arrays: its fields, shares by their buffer."""
    held = {f.name: getattr(half, f.name) for f in fields(half)} if half is not None else {}  # type: ignore[arg-type]
    return {name: getattr(value, "buffer", value) for name, value in held.items() if value is not None}


def half_from(gadget: AnyGadget, kind: type[Any], arrays: Mapping[str, Any]) -> Any:
    """Rebuild what `half_arrays` took apart."""
    half = object.__new__(kind)
    for f in fields(kind):
        setattr(half, f.name, gadget.lay(f.name, arrays[f.name]) if f.name in arrays else None)
    return half
