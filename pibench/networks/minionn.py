"""The CIFAR-10 network of MiniONN, as DELPHI uses it: seven convolutions, a ReLU after each, two pools."""

from __future__ import annotations

from torch import Tensor, nn

from pibench.networks.blocks import ConvUnit, pool2
from pibench.networks.spec import MiniOnnSpec


class MiniOnn(nn.Module):
    """Three stages, told apart by resolution; the last ends in two 1x1 convolutions."""

    def __init__(self, spec: MiniOnnSpec) -> None:
        super().__init__()
        width, bn = spec.width, spec.batchnorm

        def unit(inputs: int, outputs: int, kernel: int) -> ConvUnit:
            return ConvUnit(inputs, outputs, kernel, batchnorm=bn)

        self.layer1 = nn.Sequential(unit(spec.input[0], width, 3), unit(width, width, 3), pool2(spec.pool))
        self.layer2 = nn.Sequential(unit(width, width, 3), unit(width, width, 3), pool2(spec.pool))
        self.layer3 = nn.Sequential(unit(width, width, 3), unit(width, width, 1), unit(width, spec.last_width, 1))
        self.linear = nn.Linear(spec.last_width * (spec.input[1] // 4) * (spec.input[2] // 4), spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.flatten(1))
        return logits
