"""Which calls of torch become what: the tables that the recorder looks into, by the call's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pibench.lowering.elementwise import POINTWISE
from pibench.lowering.layers import addmm, batch_norm, conv1d, conv2d, conv3d, einsum, linear, matmul
from pibench.lowering.pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d, mean, total

HANDLERS: dict[str, Callable[..., Any]] = {
    "conv2d": conv2d,
    "conv1d": conv1d,
    "conv3d": conv3d,
    "linear": linear,
    "batch_norm": batch_norm,
    "matmul": matmul,
    "mm": matmul,
    "addmm": addmm,
    "einsum": einsum,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "max_pool2d": max_pool2d,
    "adaptive_max_pool2d": adaptive_max_pool2d,
    "mean": mean,
    "sum": total,
}

# What only moves values, or makes none of them any other.
MOVES = frozenset({
    "view", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze",
    "transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "t", "T", "mT", "flip", "roll", "rot90",
    "getitem", "setitem", "index_select", "select", "narrow", "chunk", "split", "split_with_sizes", "tensor_split",
    "unbind", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "pad", "expand", "expand_as",
    "broadcast_to", "repeat", "repeat_interleave", "tile", "unfold", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "native_channel_shuffle", "upsample_nearest2d", "interpolate", "diagonal", "as_strided",
    "take_along_dim",
})  # fmt: skip

SAME = frozenset({
    "contiguous", "clone", "detach", "data", "to", "float", "double", "half", "bfloat16", "type", "type_as", "cpu",
    "requires_grad", "alias", "positive", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "feature_alpha_dropout", "feature_dropout",
})  # fmt: skip

# What looks at values, or takes them out of the network.
READS = frozenset({
    "__bool__", "__int__", "__float__", "__index__", "__complex__", "__array__", "item", "tolist", "numpy", "nonzero",
    "equal", "allclose", "is_nonzero", "unique",
})  # fmt: skip

ENDINGS = frozenset({"softmax", "log_softmax", "sigmoid", "logsigmoid"})

_WHY = {
    "sigmoid": "silu gelu tanh hardswish hardsigmoid mish softplus elu selu celu erf exp log sqrt rsqrt reciprocal "
    "sin cos softmax softmin logsigmoid hardshrink softshrink",
    "statistics": "layer_norm group_norm instance_norm local_response_norm normalize native_layer_norm rms_norm norm "
    "var std var_mean std_mean cosine_similarity vector_norm",
    "product": "bmm scaled_dot_product_attention baddbmm tensordot multi_head_attention_forward grid_sample bilinear",
    "order": "sort topk argmax argmin argsort kthvalue median",
    "comparison": "gt lt ge le eq ne sign heaviside",
}
_WORDS = {
    "sigmoid": "it is no ReLU, and no protocol here evaluates it; train the network with ReLU, or a polynomial of "
    "degree 2, in its place",
    "statistics": "it divides by statistics of the image itself, which are secret; BatchNorm's are fixed in inference",
    "product": "it multiplies two secret values",
    "order": "it orders secret values",
    "comparison": "it compares values of the image and makes the outcome a value; a ReLU, or a constant mask, does not",
}


def why_not(name: str) -> str:
    """Return why a call has no place in a program, in words that its author can act on."""
    kind = next((kind for kind, names in _WHY.items() if name in names.split()), None)
    return _WORDS[kind] if kind else "it is not among the supported operations"


def _like(number: float) -> Callable[..., Any]:
    def make(x: Any, *_: Any, **__: Any) -> Any:
        return torch.full(tuple(x.shape), number)

    return make


def _new(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *args, **kwargs: make(*args, **{**kwargs, "device": "cpu"})


# What takes no more than the shape or the type of a value, and is real therefore.
FRESH: dict[str, Callable[..., Any]] = {
    "zeros_like": _like(0.0),
    "ones_like": _like(1.0),
    "empty_like": _like(0.0),
    "full_like": lambda x, value, **__: torch.full(tuple(x.shape), float(value)),
    "new_zeros": _new(torch.zeros),
    "new_ones": _new(torch.ones),
    "new_empty": _new(torch.zeros),
    "new_full": _new(torch.full),
    "new_tensor": _new(torch.tensor),
}
# Of a constant, what takes no more than the shape or the type of a value beside it.
LIKE = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})

__all__ = ["ENDINGS", "FRESH", "HANDLERS", "LIKE", "MOVES", "POINTWISE", "READS", "SAME", "why_not"]
