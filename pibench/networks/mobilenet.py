"""MobileNetV1 for small images: depthwise then pointwise convolutions, a ReLU after each."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pibench.networks.blocks import relu
from pibench.networks.spec import MobileNetSpec

# stages by resolution; each block is (width in units of the stem's, stride)
_STAGES = (
    ((2, 1),),
    ((4, 2), (4, 1)),
    ((8, 2), (8, 1)),
    ((16, 2), (16, 1), (16, 1), (16, 1), (16, 1), (16, 1)),
    ((32, 2), (32, 1)),
)


class SeparableBlock(nn.Module):
    """Depthwise conv-BN-[ReLU top]-pointwise conv-BN-[ReLU bottom]."""

    def __init__(self, inputs: int, outputs: int, stride: int, top: bool, bottom: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = relu(top)
        self.conv2 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = relu(bottom)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        x = self.relu1(self.bn1(self.conv1(x)))
        out: Tensor = self.relu2(self.bn2(self.conv2(x)))
        return out


class MobileNet(nn.Module):
    """Stem, five stages of separable blocks, global average pool, linear head."""

    def __init__(self, spec: MobileNetSpec) -> None:
        super().__init__()
        channels = spec.scaled(spec.base_width)
        self.conv1 = nn.Conv2d(spec.input[0], channels, 3, spec.stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = relu(spec.stem_relu)
        for number, blocks in enumerate(_STAGES, start=1):
            stage = nn.Sequential()
            for times, stride in blocks:
                width = spec.scaled(spec.base_width * times)
                keeps = spec.keeps(number, "top"), spec.keeps(number, "bottom")
                stage.append(SeparableBlock(channels, width, stride, *keeps))
                channels = width
            self.add_module(f"layer{number}", stage)
        self.linear = nn.Linear(channels, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.relu(self.bn1(self.conv1(x)))
        for number in range(1, len(_STAGES) + 1):
            x = getattr(self, f"layer{number}")(x)
        x = functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1)
        logits: Tensor = self.linear(x)
        return logits
