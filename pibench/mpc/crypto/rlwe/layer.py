"""What the encryption knows of a linear layer: its shape alone, which is public."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pibench.lowering import program as ir

Pair = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """A convolution of words of `bits` over (channels, *size); a fully connected layer is one over a single pixel."""

    name: str
    bits: int
    channels: int
    size: Pair
    filters: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, name: str, op: ir.Conv | ir.Linear, shape: ir.Shape, bits: int) -> Layer:
        """Describe an operation that reads values of this shape (without the batch)."""
        if isinstance(op, ir.Linear):
            return cls(name, bits, math.prod(shape), (1, 1), op.shape[0])
        return cls(
            name, bits, shape[0], (shape[1], shape[2]), op.shape[0], op.kernel, op.stride, op.padding, op.dilation,
            op.groups,
        )  # fmt: skip

    @property
    def out_size(self) -> Pair:
        """Height and width of the output."""
        height, width = (
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, pad, dilation, kernel, stride in zip(
                self.size, self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return height, width

    @property
    def outputs(self) -> int:
        """Elements of the output for one image."""
        return self.filters * math.prod(self.out_size)

    @property
    def inputs(self) -> int:
        """Elements of the input for one image."""
        return self.channels * math.prod(self.size)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(filters, channels of a group, *kernel)."""
        return self.filters, self.channels // self.groups, *self.kernel
