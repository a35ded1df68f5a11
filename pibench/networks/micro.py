"""One operation as a network, for suites/micro.yaml: what a ReLU, a convolution or an exchange costs by itself.

Each ends in a global average, so that the answer is small whatever the operation's size.
"""

from __future__ import annotations

import torch
from torch import nn


def _ending(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def exchange() -> nn.Module:
    """Send an image one way and its averages back: the wire and nothing else."""
    return _ending()


def relu() -> nn.Module:
    """Apply one ReLU to every scalar of the image; the suite's input decides how many."""
    return _ending(nn.ReLU())


# one name a size, since a case is named by its network
relu_2_12 = relu_2_14 = relu_2_16 = relu_2_18 = relu_2_20 = relu


def _convolution(inner: int, outer: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    torch.manual_seed(inner * 1000 + outer)
    return _ending(nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False))


def conv_s1() -> nn.Module:
    """Convolve as ResNet18's first stage does: 64 to 64 channels at 32x32."""
    return _convolution(64, 64)


def conv_s2() -> nn.Module:
    """Convolve as the second stage does: 128 to 128 channels at 16x16."""
    return _convolution(128, 128)


def conv_s3() -> nn.Module:
    """Convolve as the third stage does: 256 to 256 channels at 8x8."""
    return _convolution(256, 256)


def conv_s4() -> nn.Module:
    """Convolve as the fourth stage does: 512 to 512 channels at 4x4."""
    return _convolution(512, 512)


def conv_s2_down() -> nn.Module:
    """Convolve as the second stage's first layer does: 64 to 128 channels, stride 2."""
    return _convolution(64, 128, stride=2)


def conv_s2_shortcut() -> nn.Module:
    """Convolve as the second stage's shortcut does: 1x1, 64 to 128 channels, stride 2."""
    return _convolution(64, 128, kernel=1, stride=2)
