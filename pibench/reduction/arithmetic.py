"""ReLUs and MACs of a residual network by arithmetic on its description, for searches over many; tests pin the census.

Only plain ReLUs (with ReLU-reuse): masks, polynomials and single sites without an activation are counted as built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pibench.networks.spec import ResNetSpec


@dataclass(frozen=True)
class Block:
    """One residual block: its stage, channels and pixels."""

    stage: int
    inputs: int
    inner: int
    outputs: int
    pixels: int
    downsamples: bool


def relus(spec: ResNetSpec) -> int:
    """Return the ReLUs of one image."""
    _check(spec)
    found = _active(spec, spec.widths[0]) * _area(_stem(spec)) if spec.stem_relu else 0
    for block in _blocks(spec):
        found += spec.keeps(block.stage, "top") * _active(spec, block.inner) * block.pixels
        found += spec.keeps(block.stage, "bottom") * _active(spec, block.outputs) * block.pixels
    return found


def macs(spec: ResNetSpec) -> int:
    """Return the multiply-accumulates of one image, as lowered."""
    _check(spec)
    width = spec.widths[0]
    found = _area(_stem(spec)) * width * spec.input[0] * spec.stem_kernel**2 + spec.widths[-1] * spec.classes
    for block in _blocks(spec):
        found += 9 * block.pixels * block.inner * (block.inputs + block.outputs)
        # one filter of one weight is a factor and counts nothing, as in the census
        if (block.downsamples or block.inputs != block.outputs) and spec.shortcut == "conv" and block.outputs > 1:
            found += block.pixels * block.inputs * block.outputs
    return found


def _check(spec: ResNetSpec) -> None:
    if spec.bottleneck:
        raise ValueError("only networks of basic blocks are counted by arithmetic")
    if spec.activation != "relu" or spec.quadratic_sites or spec.linear_sites:
        raise ValueError("only plain ReLUs are counted by arithmetic")


def _active(spec: ResNetSpec, channels: int) -> int:
    return max(1, channels // spec.reuse)


def _stem(spec: ResNetSpec) -> tuple[int, int]:
    return _halved(spec.input[1], spec.stem_stride), _halved(spec.input[2], spec.stem_stride)


def _halved(side: int, stride: int) -> int:
    """Return a side after a stride: every layer pads half its (odd) kernel, so that borders round up."""
    return -(-side // stride)


def _area(sides: tuple[int, int]) -> int:
    return sides[0] * sides[1]


def _blocks(spec: ResNetSpec) -> Iterator[Block]:
    height, width = _stem(spec)
    if spec.stem_pool:
        height, width = _halved(height, 2), _halved(width, 2)
    inputs = spec.widths[0]
    for stage, outputs in enumerate(spec.widths, start=1):
        for index in range(spec.blocks[stage - 1]):
            downsamples = index == 0 and stage > 1
            if downsamples:
                height, width = _halved(height, 2), _halved(width, 2)
            inner = spec.inner_widths[stage - 1][index] if spec.inner_widths else outputs
            yield Block(stage, inputs, inner, outputs, height * width, downsamples)
            inputs = outputs
