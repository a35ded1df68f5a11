"""What a network holds and what it costs to evaluate: ReLUs by stage and site, MACs, parameters, ReLU rounds.

Two figures for MACs. `macs` is the program as lowered: what an engine executes that fuses nothing. `macs_merged`
follows the papers' counting once reductions leave convolutions without a ReLU between them (merging.py); it is a
convention of theirs and no claim about what an exact fusion would cost, for the kernels of fused layers grow.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pibench.lowering.program import Conv, Linear, MaxPool, Op, Poly, Program, Relu, Shape
from pibench.networks.merging import merged_away


@dataclass(frozen=True)
class Site:
    """One activation layer: `count` of its `elements` are evaluated (fewer under a mask)."""

    site: str
    stage: str
    kind: str  # relu, poly or maxpool
    count: int
    elements: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One linear layer."""

    site: str
    stage: str
    macs: int
    merged: bool  # whether the papers' counting leaves it out


@dataclass(frozen=True)
class Census:
    """The counts of one program, for one image."""

    relu_count: int
    poly_count: int  # elements under a polynomial
    maxpool_comparisons: int  # not ReLUs, and not counted as such anywhere in the literature, but not free
    relu_rounds: int  # dependent ReLU layers, one after another
    macs: int
    macs_merged: int
    parameters: int  # BatchNorm folded
    sites: tuple[Site, ...]
    layers: tuple[Layer, ...]

    @property
    def stages(self) -> list[str]:
        """Stages in the order of the network."""
        return list(dict.fromkeys([layer.stage for layer in self.layers] + [site.stage for site in self.sites]))

    @property
    def relus_by_stage(self) -> dict[str, int]:
        """ReLUs of every stage, also of those that have none."""
        return {s: sum(x.count for x in self.sites if x.stage == s and x.kind == "relu") for s in self.stages}

    @property
    def macs_by_stage(self) -> dict[str, int]:
        """MACs of every stage, as lowered."""
        return {s: sum(x.macs for x in self.layers if x.stage == s) for s in self.stages}

    @property
    def macs_merged_by_stage(self) -> dict[str, int]:
        """MACs of every stage in the papers' counting."""
        return {s: sum(x.macs for x in self.layers if x.stage == s and not x.merged) for s in self.stages}

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        by_stage = {
            "relus_by_stage": self.relus_by_stage,
            "macs_by_stage": self.macs_by_stage,
            "macs_merged_by_stage": self.macs_merged_by_stage,
        }
        return {**asdict(self), **by_stage}


def census(program: Program) -> Census:
    """Count a lowered network; its structure says all, no weights are needed."""
    away, shapes = merged_away(program), program.weight_shapes()
    layers = tuple(
        Layer(op.site, op.stage, _macs(op, shapes), op.name in away) for op in program if isinstance(op, Conv | Linear)
    )
    sites = tuple(_site(program, op) for op in program if isinstance(op, Relu | Poly | MaxPool))
    return Census(
        relu_count=program.relu_count,
        poly_count=sum(site.count for site in sites if site.kind == "poly"),
        maxpool_comparisons=sum(site.count for site in sites if site.kind == "maxpool"),
        relu_rounds=relu_rounds(program),
        macs=sum(layer.macs for layer in layers),
        macs_merged=sum(layer.macs for layer in layers if not layer.merged),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        sites=sites,
        layers=layers,
    )


def relu_rounds(program: Program) -> int:
    """Return the length of the longest chain of ReLU layers that wait for one another."""
    depth: dict[str, int] = {}
    for op in program:
        depth[op.name] = max((depth[name] for name in op.inputs), default=0) + isinstance(op, Relu)
    return depth[program.output.name]


def _macs(op: Op, shapes: dict[str, Shape]) -> int:
    """Return multiply-accumulates of one image: each output takes one a weight of its filter.

    A BatchNorm that could not be folded (one factor a channel) counts nothing, as in the papers.
    """
    assert isinstance(op, Conv | Linear)
    filter_size = math.prod(shapes[op.weight][1:])
    if isinstance(op, Conv) and op.groups == op.shape[0] and filter_size == 1:
        return 0
    return math.prod(op.shape) * filter_size


def _site(program: Program, op: Relu | Poly | MaxPool) -> Site:
    elements = math.prod(op.shape)
    if isinstance(op, MaxPool):
        comparisons = elements * (op.kernel[0] * op.kernel[1] - 1)
        return Site(op.site, op.stage, "maxpool", comparisons, elements, op.shape)
    return Site(op.site, op.stage, "relu" if isinstance(op, Relu) else "poly", program.kept(op), elements, op.shape)
