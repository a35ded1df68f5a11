"""VGG: groups of convolutions, each ending in a 2x2 pool, then fully connected layers."""

from __future__ import annotations

from torch import Tensor, nn

from pibench.networks.blocks import ConvUnit, pool2, relu
from pibench.networks.spec import VggSpec


class Vgg(nn.Module):
    """layer1.. (a group each), pool after every group, hidden layers (reduced with the last group), linear head."""

    def __init__(self, spec: VggSpec) -> None:
        super().__init__()
        self.stages: list[str] = []
        channels = spec.input[0]
        for number, width in enumerate(spec.widths, start=1):
            self.stages.append(f"layer{number}")
            self.add_module(f"layer{number}", _group(spec, number, channels, spec.scaled(width)))
            channels = spec.scaled(width)
        shrink = spec.stem_stride << spec.stage_count
        features = channels * (spec.input[1] // shrink) * (spec.input[2] // shrink)
        self.head = nn.Sequential()
        for number, width in enumerate(spec.hidden, start=1):
            self.head.add_module(f"fc{number}", nn.Linear(features, width))
            self.head.add_module(f"relu{number}", relu(_kept(spec, spec.stage_count, number - 1)))
            features = width
        self.linear = nn.Linear(features, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        for stage in self.stages:
            x = getattr(self, stage)(x)
        logits: Tensor = self.linear(self.head(x.flatten(1)))
        return logits


def _kept(spec: VggSpec, stage: int, index: int) -> bool:
    """Return whether a ReLU is kept; in a plain chain, thinning drops every other one (top: 0, 2.., bottom: 1, 3..)."""
    return spec.keeps(stage, "bottom" if index % 2 else "top")


def _group(spec: VggSpec, number: int, inputs: int, outputs: int) -> nn.Sequential:
    """Return one group of convolutions and its pool."""
    group = nn.Sequential()
    for index in range(spec.convolutions[number - 1]):
        stride = spec.stem_stride if number == 1 and index == 0 else 1
        group.append(ConvUnit(inputs if index == 0 else outputs, outputs, 3, stride, _kept(spec, number, index)))
    group.add_module("pool", pool2(spec.pool))
    return group
