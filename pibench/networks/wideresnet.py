"""Wide residual networks with pre-activation blocks (WRN-depth-widen)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from pibench.networks.blocks import relu
from pibench.networks.spec import WideResNetSpec


class PreActBlock(nn.Module):
    """BN-[ReLU top]-conv-BN-[ReLU bottom]-conv, plus the block's input (projected from the first activation)."""

    def __init__(self, inputs: int, outputs: int, stride: int, top: bool, bottom: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = relu(top)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = relu(bottom)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.projects = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential()
        if self.projects:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        y = self.relu1(self.bn1(x))
        kept = self.shortcut(y) if self.projects else x
        out: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(y)))) + kept
        return out


class WideResNet(nn.Module):
    """Stem, three stages of pre-activation blocks, BN-[ReLU], global average pool, linear head."""

    def __init__(self, spec: WideResNetSpec) -> None:
        super().__init__()
        channels = spec.scaled(spec.base_width)
        self.conv1 = nn.Conv2d(spec.input[0], channels, 3, spec.stem_stride, 1, bias=False)
        for number in (1, 2, 3):
            width = spec.scaled(spec.base_width * spec.widen << (number - 1))
            stage = nn.Sequential()
            for index in range((spec.depth - 4) // 6):
                stride = 2 if index == 0 and number > 1 else 1
                keeps = spec.keeps(number, "top"), spec.keeps(number, "bottom")
                stage.append(PreActBlock(channels, width, stride, *keeps))
                channels = width
            self.add_module(f"layer{number}", stage)
        self.head = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(channels), relu=relu(spec.final_relu)))
        self.linear = nn.Linear(channels, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.conv1(x)
        for number in (1, 2, 3):
            x = getattr(self, f"layer{number}")(x)
        x = functional.adaptive_avg_pool2d(self.head(x), (1, 1)).flatten(1)
        logits: Tensor = self.linear(x)
        return logits
