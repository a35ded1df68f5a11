"""The arithmetic of merging: two convolutions one after the other, or side by side, as one.

A window here is what a convolution does, with its weights: every linear layer of a program can be seen as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pibench.lowering.program import Pair, Shape


@dataclass(frozen=True)
class Window:
    """A convolution with its weights (O, I/groups, kh, kw) and bias (O,)."""

    weight: Tensor
    bias: Tensor | None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def kernel(self) -> Pair:
        """Taps by height and width."""
        return int(self.weight.shape[2]), int(self.weight.shape[3])

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads the input channel of its own number alone."""
        return self.groups == self.weight.shape[0] and self.weight.shape[1] == 1

    @property
    def biased(self) -> bool:
        """Whether there is a bias. Its values do not count: programs are public, weights are not."""
        return self.bias is not None

    def size(self, shape: Shape) -> Pair:
        """Return height and width of the output for an input of this shape."""
        height, width = (
            (shape[1 + i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        )
        return height, width

    def macs(self, shape: Shape) -> int:
        """Return multiplications for an input of this shape."""
        return math.prod(self.size(shape)) * self.weight.numel()


def border_reason(first: Window, second: Window) -> str | None:
    """Return why two convolutions one after the other are no convolution, or None where they are one.

    The second pads the value between them with zeros, where the merged one would see what the first makes of pixels
    beyond the border: the same only if the first has one tap, no padding and no bias.
    """
    if second.padding == (0, 0):
        return None
    if first.kernel != (1, 1) or first.padding != (0, 0):
        return "the second pads with zeros where the merged kernel would see beyond the border"
    return "the second pads with zeros where the first would put its bias" if first.biased else None


def chain(first: Window, second: Window) -> Window:
    """Return the convolution that does both, first then second; exact where border_reason finds nothing."""
    steps = [_steps(first, second, axis) for axis in (0, 1)]
    inner = _spread(first.weight, first.dilation)
    outer = _spread(second.weight, (first.stride[0] * second.dilation[0], first.stride[1] * second.dilation[1]))
    weight, groups = _convolve(inner, first, outer, second)
    return Window(
        weight=weight[:, :, :: steps[0], :: steps[1]].contiguous(),
        bias=_chained_bias(first, second),
        stride=(first.stride[0] * second.stride[0], first.stride[1] * second.stride[1]),
        padding=(
            first.padding[0] + first.stride[0] * second.padding[0],
            first.padding[1] + first.stride[1] * second.padding[1],
        ),
        dilation=(steps[0], steps[1]),
        groups=groups,
    )


def chain_macs(first: Window, second: Window, shape: Shape) -> int:
    """Return the multiplications of the merged convolution without computing its weights."""
    meta = [Window(w.weight.to("meta"), None, w.stride, w.padding, w.dilation, w.groups) for w in (first, second)]
    return chain(*meta).macs(shape)


def beside(first: Window, second: Window) -> Window | None:
    """Return the convolution that is the sum of two over one input, or None where their strides or groups differ."""
    if first.stride != second.stride:
        return None
    if first.groups != second.groups:
        first, second = dense(first), dense(second)
    axes = [_union(first, second, axis) for axis in (0, 1)]
    (low_h, step_h, taps_h), (low_w, step_w, taps_w) = axes
    weight = first.weight.new_zeros((*first.weight.shape[:2], taps_h, taps_w))
    for window in (first, second):
        at_h, at_w = (-window.padding[0] - low_h) // step_h, (-window.padding[1] - low_w) // step_w
        by_h, by_w = max(1, window.dilation[0] // step_h), max(1, window.dilation[1] // step_w)
        (kh, kw) = window.kernel
        weight[:, :, at_h : at_h + by_h * (kh - 1) + 1 : by_h, at_w : at_w + by_w * (kw - 1) + 1 : by_w] += (
            window.weight
        )
    biases = [window.bias for window in (first, second) if window.bias is not None]
    bias = sum(biases[1:], biases[0]) if biases else None
    return Window(weight, bias, first.stride, (-low_h, -low_w), (step_h, step_w), first.groups)


def identity(channels: int, groups: int, like: Window) -> Window:
    """Return the convolution that returns its input, with this many groups."""
    weight = torch.eye(channels // groups, dtype=like.weight.dtype, device=like.weight.device)
    return Window(weight.repeat(groups, 1)[:, :, None, None], None, groups=groups)


def dense(window: Window) -> Window:
    """Return the same convolution with one group."""
    if window.groups == 1:
        return window
    out, per = window.weight.shape[:2]
    weight = window.weight.new_zeros((out, per * window.groups, *window.kernel))
    for group in range(window.groups):
        rows = slice(group * out // window.groups, (group + 1) * out // window.groups)
        weight[rows, group * per : (group + 1) * per] = window.weight[rows]
    return Window(weight, window.bias, window.stride, window.padding, window.dilation)


def _steps(first: Window, second: Window, axis: int) -> int:
    """Return the dilation of the merged kernel: the distance of its taps."""
    inner, outer = first.dilation[axis], first.stride[axis] * second.dilation[axis]
    if first.kernel[axis] == 1:
        return outer if second.kernel[axis] > 1 else 1
    if second.kernel[axis] == 1 or inner == outer:
        return inner
    return 1


def _spread(weight: Tensor, dilation: Pair) -> Tensor:
    """Write a dilated kernel's zeros out."""
    kh, kw = weight.shape[2:]
    if dilation == (1, 1) or (kh, kw) == (1, 1):
        return weight
    spread = weight.new_zeros((*weight.shape[:2], (kh - 1) * dilation[0] + 1, (kw - 1) * dilation[1] + 1))
    spread[:, :, :: dilation[0], :: dilation[1]] = weight
    return spread


def _convolve(inner: Tensor, first: Window, outer: Tensor, second: Window) -> tuple[Tensor, int]:
    """Return the full convolution of two kernels over the channels between them, and its groups."""
    if second.depthwise:
        return _full(inner.transpose(0, 1), outer, first.weight.shape[0]).transpose(0, 1), first.groups
    if first.depthwise and second.groups == 1:
        return _full(outer, inner, first.weight.shape[0]), 1
    inner = dense(Window(inner, None, groups=first.groups)).weight
    outer = dense(Window(outer, None, groups=second.groups)).weight
    return _full(inner.transpose(0, 1), outer, 1).transpose(0, 1), 1


def _full(kernels: Tensor, by: Tensor, groups: int) -> Tensor:
    """Return the full convolution of each kernel by another: torch's is a correlation, so the other is flipped."""
    return F.conv2d(kernels, by.flip(2, 3), padding=(by.shape[2] - 1, by.shape[3] - 1), groups=groups)


def _chained_bias(first: Window, second: Window) -> Tensor | None:
    if first.bias is None:
        return second.bias
    taps = second.weight.sum(dim=(2, 3)).reshape(second.groups, -1, second.weight.shape[1])
    through = torch.matmul(taps, first.bias.reshape(second.groups, -1, 1)).flatten()
    return through if second.bias is None else through + second.bias


def _union(first: Window, second: Window, axis: int) -> tuple[int, int, int]:
    """Return first offset, distance and number of the taps that cover both kernels along one axis."""
    spans = [(-w.padding[axis], w.dilation[axis], w.kernel[axis]) for w in (first, second)]
    step = math.gcd(*(d for _, d, k in spans if k > 1), spans[0][0] - spans[1][0]) or 1
    low = min(start for start, _, _ in spans)
    high = max(start + d * (k - 1) for start, d, k in spans)
    return low, step, (high - low) // step + 1
