"""What gadgets with a garbled circuit have in common; `sources/garbling.py` makes the circuits of all of them together.

A dealer draws the client's part of the output; circuit and labels come from both parties, in acts (`offline.Acts`).
"""

from __future__ import annotations

from pibench.mpc.backends.backend import Backend, Ints
from pibench.mpc.crypto.garbling.circuit import Circuit
from pibench.mpc.crypto.garbling.layer import Layer
from pibench.mpc.crypto.garbling.offline import Acts, Ends, waiting_bytes
from pibench.mpc.masked.gadgets.gadget import PartDrawn, PartT, ServerT, StepT
from pibench.mpc.masked.plan import Plan


class Garbled(PartDrawn[StepT, ServerT, PartT]):
    """A step with a circuit a lane; halves are filled by `make_*`, but for the client's part, which is drawn."""

    circuit: Circuit
    client_garbles = False

    def __init__(self, plan: Plan, step: StepT, backend: Backend) -> None:
        super().__init__(plan, step, backend)
        source = plan.values[step.inputs[0]]
        self.width = source.scale + source.beyond + plan.options.range_bits + 1  # the range, and the sign

    def layer(self, number: int = 0) -> Layer:
        """Return the garbled layer, by its number in the life of a connection."""
        return Layer(self.circuit, self.size, number)

    @property
    def waiting_bytes(self) -> int:
        """What the evaluator keeps until the circuit's one use."""
        return waiting_bytes(self.layer(), self.client_garbles)

    def make_server(self, ends: Ends, number: int, half: ServerT) -> Acts[None]:
        """Server: fill its half, as garbler or evaluator."""
        raise NotImplementedError

    def make_client(self, ends: Ends, number: int, half: PartT, inputs: list[Ints]) -> Acts[None]:
        """Client: fill its half; its parts of input and output are inputs of the circuit."""
        raise NotImplementedError
