"""What the steps of a plan do: a gadget is one file, with its step, both conversations, its randomness and its cost."""

from __future__ import annotations

from typing import Any

from pibench.mpc.backends.backend import Backend
from pibench.mpc.backends.choice import backend_for
from pibench.mpc.masked.gadgets.extend import Extend, Extension
from pibench.mpc.masked.gadgets.gadget import Gadgets
from pibench.mpc.masked.gadgets.image import Image, Receive
from pibench.mpc.masked.gadgets.local import Drop, Dropping, Gather, Gathering, Pooling, PoolSum, Sum, Summing
from pibench.mpc.masked.gadgets.product import LinearLayer, Product
from pibench.mpc.masked.gadgets.relu_circa import Circa, SignedRelu
from pibench.mpc.masked.gadgets.relu_halfgates import GarbledRelu, HalfGates
from pibench.mpc.masked.gadgets.relu_truth_tables import ReluStep, Tables
from pibench.mpc.masked.gadgets.relu_two_messages import OfferedRelu, Offers
from pibench.mpc.masked.gadgets.remask import FreshMask, Remask
from pibench.mpc.masked.gadgets.square import Square, Squares
from pibench.mpc.masked.gadgets.wide import (
    Narrow,
    Narrowing,
    WideDropping,
    WideFreshMask,
    WideGathering,
    WideImage,
    WideLayer,
    WidePooling,
    WideSum,
)
from pibench.mpc.masked.plan import Plan, Step

GADGETS: dict[type[Step], type[Any]] = {
    Receive: Image,
    Product: LinearLayer,
    ReluStep: Tables,
    OfferedRelu: Offers,
    GarbledRelu: HalfGates,
    SignedRelu: Circa,
    Square: Squares,
    Extend: Extension,
    Remask: FreshMask,
    Sum: Summing,
    PoolSum: Pooling,
    Gather: Gathering,
    Drop: Dropping,
}


WIDE: dict[type[Step], type[Any]] = {  # where a value has more than a word
    Receive: WideImage,
    Product: WideLayer,
    Remask: WideFreshMask,
    Sum: WideSum,
    PoolSum: WidePooling,
    Gather: WideGathering,
    Drop: WideDropping,
    Narrow: Narrowing,
}


def gadgets_of(plan: Plan, backend: Backend | None = None) -> Gadgets:
    """Return the gadgets of a plan, in its order, by the names of what they make; on the processor unless told."""
    backend = backend or backend_for("cpu")
    kinds = {step.out: (WIDE if plan.is_wide(step) else GADGETS)[type(step)] for step in plan.steps}
    return {step.out: kinds[step.out](plan, step, backend) for step in plan.steps}


def layers_of(gadgets: Gadgets) -> list[LinearLayer]:
    """Return the linear layers, in order."""
    return [gadget for gadget in gadgets.values() if isinstance(gadget, LinearLayer)]
