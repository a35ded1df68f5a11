"""Systems on paper: what garbled circuits and homomorphic encryption would cost, from published constants.

Nothing here is measured by this suite. A system is a function from a workload (counts of a network) to steps; each
step has a phase, a side that computes, seconds and bytes by direction. Compute and wire are added: no overlap.
docs/costmodels.md says where the constants come from, and where the model does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pibench.errors import UsageError
from pibench.reporting.onpaper.constants import Prices, cheap, dear, point

if TYPE_CHECKING:
    from pibench.lowering.program import Op, Program

SLOTS = 8192  # of a ciphertext


@dataclass(frozen=True)
class LinearLayer:
    """A linear operation as HE sees it."""

    inputs: int  # scalars in
    outputs: int
    taps: int  # kernel pixels: that many rotated ciphertexts go up for each


@dataclass(frozen=True)
class Workload:
    """What a system has to do for one image. `layers` is empty where only counts are known: HE traffic is left out."""

    name: str
    relu_count: int
    macs: int
    relu_rounds: int
    linear_layers: int
    linear_inputs: int | None = None  # scalars entering linear layers; None: taken as the ReLU count
    quadratics: int = 0
    comparisons: int = 0  # of max pooling, priced like ReLUs
    layers: tuple[LinearLayer, ...] = ()

    @property
    def garbled(self) -> int:
        """Scalars that go through a garbled circuit."""
        return self.relu_count + self.comparisons


@dataclass(frozen=True)
class Wire:
    """A link as the model sees it; down is server to client. None: as fast as it goes."""

    name: str
    rtt_ms: float = 0.0
    down_mbit_s: float | None = None
    up_mbit_s: float | None = None

    def seconds(self, down_bytes: float, up_bytes: float, round_trips: float) -> float:
        """Return the time on the wire of messages that wait for each other."""
        down = down_bytes * 8e-6 / self.down_mbit_s if self.down_mbit_s else 0.0
        up = up_bytes * 8e-6 / self.up_mbit_s if self.up_mbit_s else 0.0
        return down + up + round_trips * self.rtt_ms / 1e3


@dataclass(frozen=True)
class Step:
    """One kind of work of a system."""

    phase: str  # offline or online
    what: str
    server_s: float = 0.0
    client_s: float = 0.0
    down_bytes: float = 0.0
    up_bytes: float = 0.0


@dataclass(frozen=True)
class Bill:
    """A system's steps, round trips and storage for one inference, before any link is known."""

    steps: tuple[Step, ...]
    round_trips: dict[str, int]
    storage_bytes: dict[str, float] = field(default_factory=dict)  # by side


@dataclass(frozen=True)
class PhaseCost:
    """One phase on one link."""

    compute_s: float
    wire_s: float
    down_bytes: float
    up_bytes: float
    round_trips: int

    @property
    def total_s(self) -> float:
        """Compute and wire, one after the other."""
        return self.compute_s + self.wire_s


@dataclass(frozen=True)
class PaperEstimate:
    """What a system on paper would cost; `low_s` and `high_s` come from the ranges of its constants."""

    system: str
    workload: Workload
    wire: Wire
    offline: PhaseCost
    online: PhaseCost
    online_range_s: tuple[float, float]
    offline_range_s: tuple[float, float]
    storage_bytes: dict[str, float]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class System:
    """A system on paper."""

    name: str
    title: str
    note: str
    bill: Callable[[Workload, Prices, bool], Bill]


def _he_steps(load: Workload, price: Prices, parallel: bool) -> list[Step]:
    """Offline linear layers: the client sends encrypted masks, the server evaluates, the client decrypts."""
    up = sum(layer.taps * math.ceil(layer.inputs / SLOTS) for layer in load.layers)
    down = sum(math.ceil(layer.outputs / SLOTS) for layer in load.layers)
    size = price("he_ciphertext_bytes")
    gain = price("he_parallel") if parallel else 1.0
    return [
        Step("offline", "HE keys", client_s=price("he_keygen_s"), up_bytes=price("he_key_bytes")),
        Step("offline", "HE encrypt and decrypt", up_bytes=up * size, down_bytes=down * size,
             client_s=up * price("he_encrypt_s") + down * price("he_decrypt_s")),
        Step("offline", "HE linear layers", server_s=load.macs * price("he_mac_s") / gain),
    ]  # fmt: skip


def _online_linear(load: Workload, price: Prices) -> list[Step]:
    """Online linear layers: the server computes on the client's masked input, in the clear."""
    seconds = price("linear_first_s") + max(load.linear_layers - 1, 0) * price("linear_layer_s")
    entering = load.relu_count if load.linear_inputs is None else load.linear_inputs
    steps = [Step("online", "linear layers", server_s=seconds + load.macs * price("linear_mac_s"),
                  up_bytes=entering * price("share_bytes"))]  # fmt: skip
    if load.quadratics:
        half = load.quadratics * price("quadratic_bytes") / 2
        work = load.quadratics * price("quadratic_s")
        steps.append(Step("online", "quadratic activations", server_s=work, down_bytes=half, up_bytes=half))
    return steps


def _stored_shares(load: Workload) -> tuple[float, float]:
    """Bytes of linear-layer masks that client and server keep, 8 B a scalar."""
    outputs = sum(layer.outputs for layer in load.layers)
    inputs = sum(layer.inputs for layer in load.layers)
    return 8.0 * (inputs + outputs), 8.0 * outputs


def _server_garbles(load: Workload, price: Prices, atom: bool, *, parallel: bool, time: float, room: float) -> Bill:
    n, slow = load.garbled, price("atom_eval") if atom else 1.0
    garble = n * (price("gc_garble_s") + price("gc_encode_offline_s")) / time
    client_keeps, server_keeps = _stored_shares(load)
    steps = [
        *_he_steps(load, price, parallel),
        Step("offline", "garble and send circuits", server_s=garble, down_bytes=n * price("gc_circuit_bytes") / room),
        Step("offline", "oblivious transfer", up_bytes=n * price("ot_setup_bytes") / room,
             down_bytes=n * price("ot_send_bytes") / room),
        *_online_linear(load, price),
        Step("online", "send labels", server_s=n * price("gc_encode_online_s") / time,
             down_bytes=n * price("label_bytes") / room),
        Step("online", "evaluate garbled ReLUs", client_s=n * price("gc_eval_s") * slow / time),
    ]  # fmt: skip
    storage = {
        "client": n * price("evaluator_bytes") / room + client_keeps,
        "server": n * price("garbler_bytes") / room + server_keeps,
    }
    return Bill(tuple(steps), {"offline": 3, "online": load.relu_rounds + 1}, storage)


def _delphi(load: Workload, price: Prices, atom: bool) -> Bill:
    return _server_garbles(load, price, atom, parallel=False, time=1.0, room=1.0)


def _delphi_parallel(load: Workload, price: Prices, atom: bool) -> Bill:
    return _server_garbles(load, price, atom, parallel=True, time=1.0, room=1.0)


def _circa(load: Workload, price: Prices, atom: bool) -> Bill:
    return _server_garbles(
        load, price, atom, parallel=False, time=price("circa_time"), room=price("circa_storage")
    )  # fmt: skip


def _client_garbles(load: Workload, price: Prices, atom: bool) -> Bill:
    """Let the client garble and the server evaluate: the client stores little, oblivious transfer moves online."""
    n, slow = load.garbled, price("atom_garble") if atom else 1.0
    garble = n * (price("gc_garble_s") + price("gc_encode_offline_s")) * slow
    client_keeps, server_keeps = _stored_shares(load)
    steps = [
        *_he_steps(load, price, parallel=True),
        Step("offline", "garble and send circuits", client_s=garble, up_bytes=n * price("gc_circuit_bytes")),
        *_online_linear(load, price),
        Step("online", "oblivious transfer of labels", client_s=n * price("gc_encode_online_s") * slow,
             down_bytes=n * price("ot_setup_bytes"), up_bytes=n * price("ot_send_bytes")),
        Step("online", "evaluate garbled ReLUs", server_s=n * price("gc_eval_s"), down_bytes=n * price("label_bytes")),
    ]  # fmt: skip
    storage = {
        "client": n * price("garbler_bytes") + client_keeps,
        "server": n * price("evaluator_bytes") + server_keeps,
    }
    return Bill(tuple(steps), {"offline": 2, "online": 2 * load.relu_rounds + 1}, storage)


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System("delphi", "DELPHI", "HE linear layers offline, ReLUs in garbled circuits; the server garbles", _delphi),
        System("delphi-lphe", "DELPHI, layer-parallel HE", "as DELPHI, all layers under HE at once", _delphi_parallel),
        System("client-garbler", "Client-Garbler", "the client garbles, the server stores and evaluates; "
               "layer-parallel HE; oblivious transfer online", _client_garbles),
        System("circa", "Circa on DELPHI", "a stochastic sign in garbled circuits: the best its paper claims, "
               "so a lower bound", _circa),
    )
}  # fmt: skip

WIRES: dict[str, Wire] = {
    wire.name: wire
    for wire in (
        Wire("loopback"),
        Wire("lan", 0.5, 1000.0, 1000.0),
        Wire("wan", 40.0, 100.0, 100.0),
        Wire("asplos", 0.0, 500.0, 500.0),
        Wire("asplos-slots", 0.0, 165.0, 835.0),
    )
}


def system_named(name: str) -> System:
    """Return the system of that name; raises UsageError with the list."""
    if name not in SYSTEMS:
        raise UsageError(f"no system on paper is named {name!r}", remedy=f"choose one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def _phase(bill: Bill, wire: Wire, phase: str) -> PhaseCost:
    steps = [step for step in bill.steps if step.phase == phase]
    down, up = sum(s.down_bytes for s in steps), sum(s.up_bytes for s in steps)
    trips = bill.round_trips[phase]
    compute = sum(s.server_s + s.client_s for s in steps)
    return PhaseCost(compute, wire.seconds(down, up, trips), down, up, trips)


def estimate(load: Workload, system: str, wire: Wire, *, atom_client: bool = False) -> PaperEstimate:
    """Return what a system on paper would cost for one inference of a workload over a link."""
    chosen = system_named(system)
    bill, low, high = (chosen.bill(load, price, atom_client) for price in (point, cheap, dear))
    ranges = {
        phase: (_phase(low, wire, phase).total_s, _phase(high, wire, phase).total_s) for phase in ("offline", "online")
    }
    return PaperEstimate(
        system=system, workload=load, wire=wire, offline=_phase(bill, wire, "offline"),
        online=_phase(bill, wire, "online"), online_range_s=ranges["online"], offline_range_s=ranges["offline"],
        storage_bytes=bill.storage_bytes, steps=bill.steps,
    )  # fmt: skip


def _size(shape: Iterable[int]) -> int:
    return math.prod(shape)


def workload_of(program: Program, name: str, macs: int, relu_rounds: int) -> Workload:
    """Return the workload of a lowered program. Linear operations that read one value share one message."""
    from pibench.lowering.program import Conv, Linear, MaxPool, Poly

    shapes = {op.name: op.shape for op in program}
    linear = [op for op in program if isinstance(op, Conv | Linear)]
    first = {op.inputs[0]: op for op in reversed(linear)}  # the first reader of each value
    layers = tuple(LinearLayer(_size(shapes[op.inputs[0]]), _size(op.shape), _taps(op)) for op in first.values())
    return Workload(
        name=name, relu_count=program.relu_count, macs=macs, relu_rounds=relu_rounds, linear_layers=len(layers),
        linear_inputs=sum(layer.inputs for layer in layers),
        quadratics=sum(program.kept(op) for op in program if isinstance(op, Poly)),
        comparisons=sum(_size(op.shape) * (_size(op.kernel) - 1) for op in program if isinstance(op, MaxPool)),
        layers=tuple(reversed(layers)),
    )  # fmt: skip


def _taps(op: Op) -> int:
    """Return the kernel's pixels; a fully connected layer has one."""
    return math.prod(getattr(op, "kernel", (1, 1)))
