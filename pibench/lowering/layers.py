"""How each supported module and call of torch becomes operations; what is missing here is refused by name.

Handlers have the signature of the torch function they stand for, after the `Call` that says where they stand.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pibench.lowering.builder import Call, Ref, pair
from pibench.lowering.program import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    PadChannels,
    Poly,
    Relu,
    Slice,
)

Handler = Callable[..., Any]
Size = int | Sequence[int]


def same(call: Call, x: Ref, *_args: Any, **_kwargs: Any) -> Ref:
    """Lower what does nothing in inference."""
    return x


def conv(call: Call, module: nn.Conv2d, x: Ref) -> Ref:
    """Lower a 2-d convolution; `same` and `valid` padding become numbers."""
    if module.padding_mode != "zeros" and pair_of_padding(call, module) != (0, 0):
        call.refuse(f"padding_mode {module.padding_mode!r} (only zeros)")
    padding = pair_of_padding(call, module)
    weight = call.weight("weight", module.weight)
    bias = call.weight("bias", module.bias) if module.bias is not None else None
    return call.emit(
        Conv, x, weight=weight, bias=bias, kernel=pair(module.kernel_size), stride=pair(module.stride),
        padding=padding, dilation=pair(module.dilation), groups=module.groups,
    )  # fmt: skip


def pair_of_padding(call: Call, module: nn.Conv2d) -> tuple[int, int]:
    """Return a convolution's padding as numbers."""
    if not isinstance(module.padding, str):
        return pair(module.padding)
    if module.padding == "valid":
        return 0, 0
    whole = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if any(total % 2 for total in whole):
        call.refuse("padding 'same' of an even kernel is not symmetric")
    return whole[0] // 2, whole[1] // 2


def linear(call: Call, module: nn.Linear, x: Ref) -> Ref:
    """Lower a fully connected layer on a flat value."""
    if len(x.shape) != 1:
        call.refuse(f"its input has shape {x.shape}, and only flat values are multiplied: flatten it first")
    weight = call.weight("weight", module.weight)
    bias = call.weight("bias", module.bias) if module.bias is not None else None
    return call.emit(Linear, x, weight=weight, bias=bias)


def batch_norm(call: Call, module: nn.BatchNorm2d | nn.BatchNorm1d, x: Ref) -> Ref:
    """Lower a normalisation with fixed statistics to a scaling a channel, to be folded where possible."""
    if module.running_mean is None or module.running_var is None:
        call.refuse("it has no running statistics (track_running_stats=False)")
    mean, var = module.running_mean.double(), module.running_var.double()
    factor = torch.rsqrt(var + module.eps)
    factor = factor * module.weight.double() if module.weight is not None else factor
    shift = -mean * factor + (module.bias.double() if module.bias is not None else 0.0)
    flat = len(x.shape) == 1
    weight = call.weight("weight", torch.diag(factor) if flat else factor.reshape(-1, 1, 1, 1))
    bias = call.weight("bias", shift)
    ref = call.emit(Linear, x, weight=weight, bias=bias) if flat else call.emit(
        Conv, x, weight=weight, bias=bias, kernel=(1, 1), groups=x.shape[0]
    )  # fmt: skip
    call.builder.scalings.add(ref.name)
    return ref


def relu(call: Call, x: Ref, inplace: bool = False) -> Ref:
    """Lower a ReLU on every scalar."""
    return call.emit(Relu, x)


def clamp(call: Call, x: Ref, min: Any = None, max: Any = None) -> Ref:
    """Lower clamp at zero from below, which is a ReLU."""
    if max is not None or min != 0:
        call.refuse("only clamp(min=0) is a ReLU")
    return call.emit(Relu, x)


def masked_relu(call: Call, module: nn.Module, x: Ref) -> Ref:
    """Lower a ReLU that acts where its mask is true; an empty mask leaves nothing to do."""
    mask = _mask(call, module, x)
    if mask is not None and not mask.any():
        return x
    return call.emit(Relu, x, mask=_keep(call, mask))


def quadratic(call: Call, module: nn.Module, x: Ref) -> Ref:
    """Lower c2 x^2 + c1 x + c0, coefficients a channel."""
    return _polynomial(call, module, x, _mask(call, module, x))


def masked_quadratic(call: Call, module: nn.Module, x: Ref) -> Ref:
    """Lower a ReLU where the mask is true and a polynomial elsewhere: each leaves the other's places alone."""
    mask = _mask(call, module, x)
    assert mask is not None
    if mask.any():
        x = call.emit(Relu, x, mask=_keep(call, mask))
    return x if mask.all() else _polynomial(call, module.get_submodule("quadratic"), x, ~mask)


def _polynomial(call: Call, module: nn.Module, x: Ref, mask: Tensor | None) -> Ref:
    coefficients = [getattr(module, name).detach().reshape(-1) for name in ("c2", "c1", "c0")]
    table = torch.stack([c.expand(x.shape[0]) for c in coefficients])
    return call.emit(Poly, x, coefficients=call.weight("coefficients", table), mask=_keep(call, mask))


def _mask(call: Call, module: nn.Module, x: Ref) -> Tensor | None:
    mask = getattr(module, "mask", None)
    if mask is None:
        return None
    if tuple(mask.shape) != x.shape:
        call.refuse(f"its mask has shape {tuple(mask.shape)}, its input {x.shape}")
    return mask.detach().to("cpu", torch.bool).clone()  # type: ignore[no-any-return]


def _keep(call: Call, mask: Tensor | None) -> str | None:
    """Store a mask under the name of the operation that comes next; one that keeps everything is no mask."""
    if mask is None or bool(mask.all()):
        return None
    name = call.builder.peek(call.site)
    call.builder.masks[name] = mask
    return name


def add(call: Call, x: Any, other: Any, *, alpha: float = 1) -> Ref:
    """Lower a sum of two values of one shape."""
    if not isinstance(x, Ref):
        x, other = other, x
    if not isinstance(other, Ref) and isinstance(other, int | float) and other == 0 and isinstance(x, Ref):
        return x  # what sum([...]) starts with
    if not isinstance(other, Ref) or alpha != 1:
        call.refuse("only sums of two values of the network, without alpha")
    if x.shape != other.shape:
        call.refuse(f"shapes {x.shape} and {other.shape} differ (no broadcasting)")
    return call.emit(Add, x, other)


def flatten(call: Call, x: Ref, *_args: Any, **_kwargs: Any) -> Ref:
    """Lower whatever flattens an image, or leaves its shape as it is."""
    if call.out == x.shape:
        return x
    if len(call.out) != 1 or call.out[0] != torch.Size(x.shape).numel():
        call.refuse(f"it turns shape {x.shape} of one image into {call.out}; only flattening to (N, -1)")
    return call.emit(Flatten, x)


def squeeze(call: Call, x: Ref, dim: Any = None) -> Ref:
    """Lower a squeeze that flattens (several dimensions at once); a batch dimension is never squeezed here."""
    return flatten(call, x)


def avg_pool(
    call: Call, x: Ref, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Ref:  # fmt: skip
    """Lower average pooling with one divisor for every window."""
    if divisor_override is not None:
        call.refuse("divisor_override")
    if pair(padding) != (0, 0) and not count_include_pad:
        call.refuse("count_include_pad=False with padding (windows would have different divisors)")
    return _pool(call, AvgPool, x, kernel_size, stride, padding, ceil_mode)


def max_pool(
    call: Call, x: Ref, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Ref:  # fmt: skip
    """Lower max pooling."""
    if pair(dilation) != (1, 1) or return_indices:
        call.refuse("dilation or return_indices")
    return _pool(call, MaxPool, x, kernel_size, stride, padding, ceil_mode)


def _pool(
    call: Call, cls: type[AvgPool | MaxPool], x: Ref, kernel_size: Size, stride: Size | None, padding: Size, ceil: bool
) -> Ref:
    kernel, pad = pair(kernel_size), pair(padding)
    step = kernel if stride is None or stride == [] else pair(stride)
    size = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(x.shape[1:], kernel, step, pad, strict=True)]
    if ceil and (x.shape[0], *size) != call.out:
        call.refuse("ceil_mode where the last window leaves the image")
    if kernel == (1, 1) and step == (1, 1) and pad == (0, 0):
        return x
    return call.emit(cls, x, kernel=kernel, stride=step, padding=pad)


def adaptive_avg_pool(call: Call, x: Ref, output_size: Any) -> Ref:
    """Lower adaptive average pooling where all windows have one size."""
    size = call.out[1:]
    if any(n % o for n, o in zip(x.shape[1:], size, strict=True)):
        call.refuse(f"{x.shape[1:]} is no whole multiple of {size}, so that windows would differ in size")
    kernel = (x.shape[1] // size[0], x.shape[2] // size[1])
    return _pool(call, AvgPool, x, kernel, kernel, 0, False)


def mean(call: Call, x: Ref, dim: Any = None, keepdim: bool = False) -> Ref:
    """Lower the mean over height and width."""
    dims = sorted(d % (len(x.shape) + 1) for d in ([dim] if isinstance(dim, int) else dim or []))
    if dims != [2, 3] or len(x.shape) != 3:
        call.refuse("only the mean over height and width, dim=(2, 3)")
    pooled = call.emit(AvgPool, x, kernel=x.shape[1:], stride=x.shape[1:], shape=(x.shape[0], 1, 1))
    return pooled if keepdim else call.emit(Flatten, pooled)


def getitem(call: Call, x: Any, index: Any) -> Any:
    """Lower channel slices and every s-th pixel."""
    if not isinstance(x, Ref):
        return x[index]  # chunk and split return tuples
    index = index if isinstance(index, tuple) else (index,)
    if len(index) > len(x.shape) + 1 or not all(isinstance(i, slice) for i in index):
        call.refuse("only slices, as in x[:, a:b, ::s, ::s]")
    parts: list[slice] = [*index, *[slice(None)] * (len(x.shape) + 1 - len(index))]
    batch, channels, *pixels = parts
    steps = tuple(s.step or 1 for s in pixels) or (1, 1)
    if batch != slice(None) or channels.step not in (None, 1):
        call.refuse("channels may be cut as a:b, the batch not at all")
    if any(
        s.start not in (None, 0) or not (s.stop is None or s.stop >= n)
        for s, n in zip(pixels, x.shape[1:], strict=True)
    ):
        call.refuse("pixels may be taken as ::s only")
    start, stop, _ = channels.indices(x.shape[0])
    kept = None if (start, stop) == (0, x.shape[0]) else (start, stop)
    return x if kept is None and steps == (1, 1) else call.emit(Slice, x, stride=steps, channels=kept)


def chunk(call: Call, x: Ref, chunks: int, dim: int = 0) -> tuple[Ref, ...]:
    """Lower chunks of channels."""
    return split(call, x, -(-x.shape[0] // chunks), dim)


def split(call: Call, x: Ref, split_size_or_sections: Any, dim: int = 0) -> tuple[Ref, ...]:
    """Lower a split of channels."""
    if dim != 1:
        call.refuse("only along channels, dim=1")
    sizes, total = split_size_or_sections, x.shape[0]
    if isinstance(sizes, int):
        sizes = [min(sizes, total - at) for at in range(0, total, sizes)]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    cuts = [(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return tuple(call.emit(Slice, x, channels=cut, shape=(cut[1] - cut[0], *x.shape[1:])) for cut in cuts)


def pad(call: Call, x: Ref, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Ref:
    """Lower zero padding of channels (option-A shortcuts)."""
    widths = [*pad, *[0] * (8 - len(pad))]
    if mode != "constant" or value not in (None, 0) or any(widths[:4]) or any(widths[6:]) or min(widths) < 0:
        call.refuse("only zeros before and after the channels, F.pad(x, (0, 0, 0, 0, before, after))")
    if len(x.shape) != 3:
        call.refuse(f"its input has shape {x.shape}")
    return call.emit(PadChannels, x, before=widths[4], after=widths[5]) if any(widths) else x


def cat(call: Call, tensors: Sequence[Ref], dim: int = 0) -> Ref:
    """Lower a concatenation of channels."""
    if dim not in (1, -len(call.out)):
        call.refuse("only along channels, dim=1")
    return call.emit(Concat, *tensors)


def _pool_module(handler: Handler, *names: str) -> Handler:
    def lowered(call: Call, module: nn.Module, x: Ref) -> Ref:
        return handler(call, x, **{name: getattr(module, name) for name in names})  # type: ignore[no-any-return]

    return lowered


def _bare(handler: Handler) -> Handler:
    """Make a module handler of a function handler that needs nothing from the module."""
    return lambda call, module, x: handler(call, x)


_POOL = ("kernel_size", "stride", "padding", "ceil_mode")

MODULES: dict[type[nn.Module], Handler] = {
    nn.Conv2d: conv,
    nn.Linear: linear,
    nn.BatchNorm2d: batch_norm,
    nn.BatchNorm1d: batch_norm,
    nn.ReLU: _bare(relu),
    nn.AvgPool2d: _pool_module(avg_pool, *_POOL, "count_include_pad", "divisor_override"),
    nn.MaxPool2d: _pool_module(max_pool, *_POOL, "dilation", "return_indices"),
    nn.AdaptiveAvgPool2d: _pool_module(adaptive_avg_pool, "output_size"),
    **{cls: _bare(flatten) for cls in (nn.Flatten, nn.Unflatten)},
    **{cls: _bare(same) for cls in (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)},
}

# Known by name, so that a user's own copy of these small modules is recognised as well.
NAMED_MODULES: dict[str, Handler] = {
    "MaskedReLU": masked_relu,
    "Quadratic": quadratic,
    "MaskedQuadratic": masked_quadratic,
}

FUNCTIONS: dict[Any, Handler] = {
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_), relu),
    **dict.fromkeys((torch.clamp, torch.clamp_min), clamp),
    **dict.fromkeys((operator.add, operator.iadd, torch.add), add),
    torch.flatten: flatten,
    torch.reshape: flatten,
    torch.squeeze: squeeze,
    **dict.fromkeys((F.avg_pool2d,), avg_pool),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), max_pool),
    F.adaptive_avg_pool2d: adaptive_avg_pool,
    torch.mean: mean,
    operator.getitem: getitem,
    torch.chunk: chunk,
    torch.split: split,
    F.pad: pad,
    **dict.fromkeys((torch.cat, torch.concat), cat),
    **dict.fromkeys((F.dropout, F.dropout2d), same),
}

METHODS: dict[str, Handler] = {
    **dict.fromkeys(("relu", "relu_"), relu),
    **dict.fromkeys(("clamp", "clamp_", "clamp_min", "clamp_min_"), clamp),
    **dict.fromkeys(("add", "add_"), add),
    **dict.fromkeys(("flatten", "view", "reshape"), flatten),
    "squeeze": squeeze,
    "mean": mean,
    "chunk": chunk,
    "split": split,
    **dict.fromkeys(("contiguous", "clone", "detach"), same),
}
