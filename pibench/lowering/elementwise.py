"""How each call that acts on every scalar alone becomes a form; handlers have torch's signatures after the `Call`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pibench.lowering.builder import Call
from pibench.lowering.moves import rearranged
from pibench.lowering.pointwise import (
    Coefficient,
    Form,
    affine,
    chosen,
    multiplied,
    plain,
    scaled,
    settled,
    shifted,
    summed,
    value_of,
)
from pibench.lowering.pointwise import relu as emit_relu
from pibench.lowering.program import Add, Subtract

Operand = Form | Tensor | float
_SECRET_PRODUCT = "it multiplies two secret values, and only constants and the square of one value are multiplied here"


def relu(call: Call, x: Form, inplace: bool = False) -> Form:
    """max(x, 0)."""
    return Form(value_of(x), {"relu": 1.0}, call, call)


def add(call: Call, x: Operand, other: Operand, *, alpha: float = 1) -> Form:
    """X + alpha other."""
    return _sum(call, x, _times(call, other, alpha))


def sub(call: Call, x: Operand, other: Operand, *, alpha: float = 1) -> Form:
    """X - alpha other."""
    if alpha == 1 and isinstance(x, Form) and isinstance(other, Form):
        x, other = settled(x), settled(other)
        if x.base != other.base:
            one, two = _level(call, value_of(x), value_of(other))
            return plain(call.emit(Subtract, one, two, shape=one.shape))
    return _sum(call, x, _times(call, other, -alpha))


def rsub(call: Call, x: Operand, other: Operand, *, alpha: float = 1) -> Form:
    """Other - alpha x."""
    return sub(call, other, x, alpha=alpha)


def neg(call: Call, x: Form) -> Form:
    """-x."""
    return scaled(settled(x), -1.0, call)


def mul(call: Call, x: Operand, other: Operand) -> Any:
    """X other, where one of them is constant or both are of one value."""
    if isinstance(x, Form) and isinstance(other, Form):
        return multiplied(x, other, call) or call.refuse(_SECRET_PRODUCT)
    if isinstance(other, Form):
        x, other = other, x
    assert isinstance(x, Form)
    form, by = _beside(call, x if x.made is None else settled(x), other)
    return scaled(form, by, call)


def div(call: Call, x: Operand, other: Operand, *, rounding_mode: str | None = None) -> Any:
    """X / other, where other is constant."""
    if rounding_mode is not None or isinstance(other, Form):
        call.refuse("it divides by a secret value, or rounds")
    return mul(call, x, 1 / other if isinstance(other, int | float) else 1 / other.double())


def power(call: Call, x: Form, exponent: Any) -> Any:
    """x^2, or x itself."""
    if exponent == 1:
        return x
    return mul(call, x, x) if exponent == 2 else call.refuse(f"power {exponent} (only squares)")


def square(call: Call, x: Form) -> Any:
    """x^2."""
    return mul(call, x, x)


def where(call: Call, condition: Any, x: Operand = 0.0, other: Operand = 0.0) -> Form:
    """X where a constant mask is true, other elsewhere."""
    if not isinstance(condition, Tensor):
        call.refuse("which branch it takes would depend on values of the image")
    forms = [settled(item) if isinstance(item, Form) else item for item in (x, other)]
    base = next(item for item in forms if isinstance(item, Form)).base
    one, two = (item if isinstance(item, Form) else _constant_form(call, base.shape, item, base) for item in forms)
    mask = _image_of(call, condition, len(base.shape) + 1).bool()
    if one.base == two.base:
        return chosen(mask, one, two, call)
    refs = _level(call, value_of(one), value_of(two))
    places = torch.arange(refs[0].count).reshape(refs[0].shape)
    index = torch.where(mask.cpu(), places, places + refs[0].count)
    return plain(rearranged(call, refs, index.flatten(), refs[0].shape))


def masked_fill(call: Call, x: Form, mask: Any, value: Any) -> Form:
    """Value where a constant mask is true, x elsewhere."""
    return where(call, mask, value if isinstance(value, Form | Tensor) else float(value), x)


def addcmul(call: Call, x: Operand, one: Operand, two: Operand, *, value: float = 1) -> Form:
    """X + value one two."""
    product = one * two if isinstance(one, Tensor) and isinstance(two, Tensor) else mul(call, one, two)
    return _sum(call, x, _times(call, product, value))


def threshold(call: Call, x: Form, threshold: float, value: float, inplace: bool = False) -> Form:
    """X where it is above a threshold, a value elsewhere: a bound from below where both are one number."""
    if threshold != value:
        call.refuse(f"it jumps from {value} to {threshold}, which is no ReLU; give both one number")
    return clamp(call, x, min=float(threshold))


def lerp(call: Call, x: Operand, end: Operand, weight: Any) -> Form:
    """X + weight (end - x)."""
    rest = 1 - weight
    return _sum(call, mul(call, x, rest), mul(call, end, weight))


def clamp(call: Call, x: Form, min: Any = None, max: Any = None) -> Form:
    """Between two public numbers: a comparison a scalar for each; min=0 is a ReLU, (0, 6) ReLU6."""
    bounds = [float(b) if isinstance(b, int | float) else b for b in (min, max)]
    if any(isinstance(b, Form | Tensor) for b in bounds):
        call.refuse("its bounds are no numbers of the code")
    low, high = bounds
    above = x if low is None else _over(call, x, low)
    if high is None:
        return above if low is None or low == 0 else shifted(above, low, call)
    if low is None:  # x - relu(x - high)
        return sub(call, x, _over(call, x, high))
    one, two = value_of(above), value_of(_over(call, x, high))
    made = plain(call.emit(Subtract, one, two, shape=one.shape))
    return made if low == 0 else shifted(made, low, call)


def clamp_min(call: Call, x: Form, min: Any) -> Form:
    """Bound from below."""
    return clamp(call, x, min=min)


def clamp_max(call: Call, x: Form, max: Any) -> Form:
    """Bound from above."""
    return clamp(call, x, max=max)


def hardtanh(call: Call, x: Form, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Form:
    """Between min_val and max_val."""
    return clamp(call, x, min=min_val, max=max_val)


def relu6(call: Call, x: Form, inplace: bool = False) -> Form:
    """relu(x) - relu(x - 6): two comparisons a scalar, and counted as two."""
    return clamp(call, x, min=0, max=6)


def leaky_relu(call: Call, x: Form, negative_slope: float = 0.01, inplace: bool = False) -> Form:
    """Lower a x + (1 - a) relu(x): one comparison a scalar."""
    return _leaky(call, x, float(negative_slope))


def prelu(call: Call, x: Form, weight: Any) -> Form:
    """Lower the same, its slope learned and the server's: for all channels, or each its own."""
    slope = weight.detach().double()
    return _leaky(call, x, slope if len(slope) == 1 else slope.reshape(-1, *[1] * (len(x.shape) - 1)))


def rrelu(call: Call, x: Form, lower: float = 0.125, upper: float = 1 / 3, *_: Any, **__: Any) -> Form:
    """In inference a leaky ReLU with the mean slope."""
    return _leaky(call, x, (lower + upper) / 2)


def absolute(call: Call, x: Form) -> Form:
    """2 relu(x) - x."""
    x = plain(value_of(x))
    return summed(scaled(relu(call, x), 2.0, call), scaled(x, -1.0, call), call)


def maximum(call: Call, x: Operand, other: Any = None, *_: Any, **__: Any) -> Form:
    """Take the larger of two values: other + relu(x - other)."""
    if isinstance(other, Tensor) or not isinstance(x, Form):
        call.refuse("of two values of the network only")
    if isinstance(other, Form):
        return add(call, other, relu(call, sub(call, x, other)))
    return call.refuse("only the larger of two values; pools take the largest of a window")


def minimum(call: Call, x: Operand, other: Any = None, *_: Any, **__: Any) -> Form:
    """Take the smaller of two values: x - relu(x - other)."""
    if not isinstance(other, Form) or not isinstance(x, Form):
        call.refuse("of two values of the network only")
    return sub(call, x, relu(call, sub(call, x, other)))


def _times(call: Call, x: Operand, factor: float) -> Operand:
    if factor == 1 or not isinstance(x, Form):
        return x if isinstance(x, Form) else x * factor
    return scaled(x if x.made is None else settled(x), float(factor), call)


def _leaky(call: Call, x: Form, slope: Coefficient) -> Form:
    source = value_of(x)
    active = affine(call, emit_relu(call, source, None), 1 - slope, 0.0)
    return plain(call.emit(Add, active, affine(call, source, slope, 0.0), shape=source.shape))


def _over(call: Call, x: Form, bound: float) -> Form:
    """relu(x - bound)."""
    return relu(call, shifted(settled(x), -bound, call) if bound else x)


def _sum(call: Call, x: Operand, other: Operand) -> Form:
    """Return the sum of two operands, one of which is a value of the network."""
    if not isinstance(x, Form):
        x, other = other, x
    assert isinstance(x, Form)
    if not isinstance(other, Form):
        form, by = _beside(call, settled(x), other)
        return form if not isinstance(by, Tensor) and by == 0 else shifted(form, by, call)
    x, other = settled(x), settled(other)
    if x.base == other.base and (x.made is None or other.made is None):
        return summed(x, other, call)
    one, two = _level(call, value_of(x), value_of(other))
    return plain(call.emit(Add, one, two, shape=one.shape))


def _level(call: Call, *refs: Any) -> list[Any]:
    """Spread values of one channel or pixel over the shape of the others, as torch broadcasts."""
    shape = _broadcast(*(ref.shape for ref in refs))
    return [
        ref if ref.shape == shape
        else rearranged(call, [ref], torch.arange(ref.count).reshape(ref.shape).expand(shape).flatten(), shape)
        for ref in refs
    ]  # fmt: skip


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _beside(call: Call, form: Form, operand: Operand) -> tuple[Form, Coefficient]:
    """Return a constant operand as it stands beside one image, and the form spread where the constant is larger."""
    if not isinstance(operand, Tensor):
        return form, float(operand)  # type: ignore[arg-type]
    by = _image_of(call, operand, len(form.shape) + 1)
    shape = _broadcast(tuple(by.shape), form.shape)
    if shape != form.shape:
        x = value_of(form)
        index = torch.arange(x.count).reshape(x.shape).expand(shape).flatten()
        form = plain(rearranged(call, [x], index, shape))
    return form, by


def _image_of(call: Call, constant: Tensor, dims: int) -> Tensor:
    """Return a constant without its batch dimension, which holds the same for every image."""
    constant = constant.detach() if constant.dtype == torch.bool else constant.detach().double()
    if constant.dim() < dims:
        return constant
    if len(constant) > 1 and not constant.is_meta and not bool((constant == constant[:1]).all()):
        call.refuse("its constant differs from image to image of a batch")
    return constant[0]


def _constant_form(call: Call, shape: tuple[int, ...], value: Any, base: Any) -> Form:
    number = _image_of(call, value, len(shape) + 1) if isinstance(value, Tensor) else float(value)
    return Form(base, {"constant": number}, call)


POINTWISE: dict[str, Callable[..., Any]] = {
    "relu": relu,
    **dict.fromkeys(("add", "radd", "iadd"), add),
    **dict.fromkeys(("sub", "subtract", "isub"), sub),
    "rsub": rsub,
    **dict.fromkeys(("mul", "multiply", "rmul", "imul"), mul),
    **dict.fromkeys(("div", "divide", "true_divide", "truediv", "itruediv"), div),
    **dict.fromkeys(("neg", "negative"), neg),
    **dict.fromkeys(("pow",), power),
    "square": square,
    "where": where,
    "lerp": lerp,
    "masked_fill": masked_fill,
    "addcmul": addcmul,
    "threshold": threshold,
    **dict.fromkeys(("clamp", "clip"), clamp),
    "clamp_min": clamp_min,
    "clamp_max": clamp_max,
    "hardtanh": hardtanh,
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "prelu": prelu,
    "rrelu": rrelu,
    **dict.fromkeys(("abs", "absolute"), absolute),
    **dict.fromkeys(("max", "maximum"), maximum),
    **dict.fromkeys(("min", "minimum"), minimum),
}
