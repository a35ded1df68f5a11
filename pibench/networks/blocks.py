"""Pieces that several families share."""

from __future__ import annotations

from torch import Tensor, nn


def relu(kept: bool) -> nn.Module:
    """Return the activation of a site: ReLU, or nothing where the site was culled or thinned."""
    return nn.ReLU() if kept else nn.Identity()


def pool2(kind: str) -> nn.Module:
    """Return a 2x2 pool: average (linear) or maximum (comparisons)."""
    return nn.AvgPool2d(2) if kind == "avg" else nn.MaxPool2d(2)


class ConvUnit(nn.Module):
    """conv-[BN]-[ReLU], padded so that stride alone changes the size."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, kept: bool = True, batchnorm: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not batchnorm)
        self.bn = nn.BatchNorm2d(outputs) if batchnorm else nn.Identity()
        self.relu = relu(kept)

    def forward(self, x: Tensor) -> Tensor:
        """Run the unit."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out
