"""Residual networks: CIFAR and ImageNet kinds, and what DeepReDuce and DeepReShape make of them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pibench.networks.blocks import relu
from pibench.networks.spec import ResNetSpec


class PadShortcut(nn.Module):
    """Parameter-free shortcut (option A): every second pixel, zero channels on both sides."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Take the pixels and pad the channels."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """conv-BN-[ReLU top]-conv-BN, plus the shortcut, [ReLU bottom]."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, kept: tuple[bool, bool], kind: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = relu(kept[0])
        self.conv2 = nn.Conv2d(inner, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = make_shortcut(inputs, outputs, stride, kind)
        self.relu2 = relu(kept[1])

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1x1 conv-BN-[ReLU top]-3x3 conv-BN-[ReLU top]-1x1 conv-BN, plus the shortcut, [ReLU bottom].

    The stride is the 3x3 convolution's, as in the public ImageNet models (not the first one's, as in the paper).
    """

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, kept: tuple[bool, bool], kind: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = relu(kept[0])
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = relu(kept[0])
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = make_shortcut(inputs, outputs, stride, kind)
        self.relu3 = relu(kept[1])

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(y)))))
        out: Tensor = self.relu3(y + self.shortcut(x))
        return out


def make_shortcut(inputs: int, outputs: int, stride: int, kind: str) -> nn.Module:
    """Return the identity, or what brings a block's input to its output's shape."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    if kind == "pad":
        return PadShortcut(inputs, outputs, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Stem, stages of blocks, global average pool, linear head."""

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        widths, kernel = spec.widths, spec.stem_kernel
        self.conv1 = nn.Conv2d(spec.input[0], widths[0], kernel, spec.stem_stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = relu(spec.stem_relu)
        self.pool = nn.MaxPool2d(3, 2, 1) if spec.stem_pool else nn.Identity()
        self.stages: list[str] = []
        channels = widths[0]
        for number, width in enumerate(widths, start=1):
            self.stages.append(f"layer{number}")
            self.add_module(f"layer{number}", _stage(spec, number, channels, width * spec.expansion))
            channels = width * spec.expansion
        self.linear = nn.Linear(channels, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        x = functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1)
        logits: Tensor = self.linear(x)
        return logits


def _stage(spec: ResNetSpec, number: int, inputs: int, outputs: int) -> nn.Sequential:
    count = spec.blocks[number - 1]
    inner = spec.inner_widths[number - 1] if spec.inner_widths else [outputs // spec.expansion] * count
    block = Bottleneck if spec.bottleneck else BasicBlock
    kept = (spec.keeps(number, "top"), spec.keeps(number, "bottom"))
    stage = nn.Sequential()
    for index in range(count):
        stride = 2 if index == 0 and number > 1 else 1
        start = inputs if index == 0 else outputs
        stage.append(block(start, inner[index], outputs, stride, kept, spec.shortcut))
    return stage
