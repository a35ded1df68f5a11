"""What is done to each scalar of a value alone: r relu(x) + s x^2 + l x + c, with constants r, s, l and c.

Sums, products with constants and choices between such forms are forms again. So a gate, however it is written
(gate * relu(x) + (1 - gate) * x, torch.where, lerp), a learned polynomial and a normalisation in the model are read off
their coefficients when the first layer wants the value, and not from the way in which they were spelled.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pibench.lowering.builder import Call, Ref
from pibench.lowering.moves import fill, reshaped
from pibench.lowering.program import Add, Conv, Linear, Poly, Relu, Shift, Subtract

Coefficient = float | Tensor  # a number of the code, which is public, or a tensor that broadcasts to one image's shape
WIDEST_DIAGONAL = 4096  # a scaling of more flat values is written an element at a time, not as a matrix


@dataclass(eq=False)
class Form:
    """A value given by its coefficients over a base; what is absent is zero."""

    base: Ref
    terms: dict[str, Coefficient]  # relu, square, linear, constant
    call: Call | None = None  # the last that shaped it
    relu_call: Call | None = None  # where its ReLU stands
    made: Ref | None = field(default=None, repr=False)  # the value, once somebody wanted it
    parent: Form | None = field(default=None, repr=False)  # the form that it is a factor and a shift of
    step: Callable[[Form], Form] | None = field(default=None, repr=False)  # how

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape for one image."""
        return self.base.shape


def plain(ref: Ref) -> Form:
    """Return a value as it is."""
    return Form(ref, {"linear": 1.0}, made=ref)


def settled(form: Form) -> Form:
    """Return a form over its own value where that was made already, so that all that reads it shares it."""
    return plain(form.made) if form.made is not None else form


def scaled(form: Form, by: Coefficient, call: Call) -> Form:
    """Return the form times a constant."""
    terms = {name: _both(operator.mul, value, by) for name, value in form.terms.items()}
    return Form(form.base, terms, call, form.relu_call, None, form, lambda parent: scaled(parent, by, call))


def shifted(form: Form, by: Coefficient, call: Call) -> Form:
    """Return the form plus a constant."""
    terms = {**form.terms, "constant": _both(operator.add, form.terms.get("constant", 0.0), by)}
    return Form(form.base, terms, call, form.relu_call, None, form, lambda parent: shifted(parent, by, call))


def summed(one: Form, two: Form, call: Call) -> Form:
    """Return the sum of two forms over one base."""
    terms = dict(one.terms)
    for name, value in two.terms.items():
        terms[name] = _both(operator.add, terms[name], value) if name in terms else value
    return Form(one.base, terms, call, one.relu_call or two.relu_call)


def multiplied(one: Form, two: Form, call: Call) -> Form | None:
    """Return the product of two forms that are linear in one value; None where there is no such value."""
    for form, value in ((one, two), (two, one)):
        over = plain(value_of(value)) if _derived(form, value) else None
        if over is not None:
            return _product(_again(form, value, over), over, call)
    one, two = settled(one), settled(two)
    return _product(one, two, call) if one.base == two.base else None


def _product(one: Form, two: Form, call: Call) -> Form | None:
    if {"relu", "square"} & (one.terms.keys() | two.terms.keys()):
        return None
    l1, c1, l2, c2 = (f.terms.get(name, 0.0) for f in (one, two) for name in ("linear", "constant"))
    cross = _both(operator.add, _both(operator.mul, l1, c2), _both(operator.mul, c1, l2))
    terms = {"square": _both(operator.mul, l1, l2), "linear": cross, "constant": _both(operator.mul, c1, c2)}
    return Form(one.base, terms, call)


def _derived(form: Form, value: Form) -> bool:
    """Whether a form is the value, times and plus constants."""
    return form is value or (form.parent is not None and _derived(form.parent, value))


def _again(form: Form, value: Form, over: Form) -> Form:
    """Return what a form is of the value, of another in its place."""
    if form is value or form.parent is None or form.step is None:
        return over
    return form.step(_again(form.parent, value, over))


def chosen(mask: Tensor, one: Form, two: Form, call: Call) -> Form:
    """Return `one` where the mask is true, `two` elsewhere; both over one base."""

    def pick(name: str) -> Coefficient:
        a, b = (_tensor(form.terms.get(name, 0.0)) for form in (one, two))
        if a.is_meta or b.is_meta:
            return torch.where(mask.to("meta"), a.to("meta"), b.to("meta"))
        return torch.where(mask, a, b)

    terms = {name: pick(name) for name in one.terms.keys() | two.terms.keys()}
    return Form(one.base, terms, call, one.relu_call or two.relu_call)


def value_of(form: Form) -> Ref:
    """Return the form's value, made by operations when it is first wanted."""
    if form.made is None:
        terms = {name: value for name, value in form.terms.items() if not _is(value, 0)}
        form.made = _made(form, terms)
    return form.made


def _made(form: Form, terms: Mapping[str, Coefficient]) -> Ref:
    call, x = form.call, form.base
    assert call is not None
    if "relu" in terms:
        return _with_relu(form.relu_call or call, call, x, dict(terms))
    if "square" in terms:
        return _polynomial(call, x, terms, None)
    if _is(terms.get("linear", 0.0), 1) and "constant" not in terms:
        return x
    return affine(call, x, terms.get("linear", 0.0), terms.get("constant", 0.0))


def _with_relu(site: Call, call: Call, x: Ref, terms: dict[str, Coefficient]) -> Ref:
    """Make a ReLU, one that a mask keeps to some places, or a weighed one."""
    gate = terms.pop("relu")
    kept = _gate(gate, x)
    if kept is not None and all(_is(value, 0, kept) for value in terms.values()):
        y = relu(site, x, kept)
        return y if bool(kept.all()) else _elsewhere(call, x, y, ~kept, terms)
    if terms.keys() == {"linear"} and isinstance(gate, Tensor) and _is(_tensor(gate) + terms["linear"], 1):
        off = gate.flatten()[((gate != 0) & (gate != 1)).flatten()]
        site.refuse(f"its gate is to be 0 or 1 everywhere, and holds {float(off[0]):.3g}; round it as its authors do")
    constant = terms.pop("constant", 0.0)
    y = affine(call, relu(site, x, None), gate, constant)
    if not terms:
        return y
    if terms.keys() == {"linear"} and _is(terms["linear"], -1):
        return call.emit(Subtract, y, x, shape=x.shape)
    rest = _polynomial(call, x, terms, None) if "square" in terms else affine(call, x, terms["linear"], 0.0)
    return call.emit(Add, y, rest, shape=x.shape)


def relu(call: Call, x: Ref, kept: Tensor | None) -> Ref:
    """Emit a ReLU where `kept` is true; one that keeps everything needs no mask, and an empty one nothing."""
    if kept is not None and not kept.any():
        return x
    return call.emit(Relu, x, shape=x.shape, mask=None if kept is None else call.mask(kept))


def _elsewhere(call: Call, x: Ref, y: Ref, rest: Tensor, terms: Mapping[str, Coefficient]) -> Ref:
    """Make of `y`, which is x itself in the places `rest`, what the other terms say there."""
    if not terms:
        return fill(call, y, rest)
    if "square" in terms:
        return _polynomial(call, y, terms, rest)
    linear, constant = terms.get("linear", 0.0), terms.get("constant", 0.0)
    if _is(linear, 1, rest) and _is(constant, 0, rest):
        return y
    whole = [_tensor(value).expand(x.shape) for value in (linear, constant)]
    return affine(call, y, torch.where(rest, whole[0], 1.0), torch.where(rest, whole[1], 0.0))


def _polynomial(call: Call, x: Ref, terms: Mapping[str, Coefficient], mask: Tensor | None) -> Ref:
    """Emit c2 x^2 + c1 x + c0, coefficients a channel, where the mask is true."""
    table = [_of_channels(terms.get(name, 0.0), x, mask) for name in ("square", "linear", "constant")]
    if any(column is None for column in table):
        call.refuse("its polynomial has other coefficients from pixel to pixel; only from channel to channel")
    meta = any(column.is_meta for column in table if column is not None)
    stacked = torch.stack([column.to("meta") if meta else column for column in table if column is not None])
    name = call.weight("coefficients", stacked)
    return call.emit(Poly, x, shape=x.shape, coefficients=name, mask=None if mask is None else call.mask(mask))


def affine(call: Call, x: Ref, linear: Coefficient, constant: Coefficient) -> Ref:
    """Make linear x + constant: a public shift, a scaling a channel (to be folded where possible) or an element."""
    if _is(linear, 1) and isinstance(constant, float):
        return call.emit(Shift, x, shape=x.shape, amount=constant) if constant else x
    bias = not (isinstance(constant, float) and constant == 0)
    columns = [_of_channels(value, x, None) for value in (linear, constant)]
    if columns[0] is None or columns[1] is None or (len(x.shape) == 1 and x.shape[0] > WIDEST_DIAGONAL):
        whole = [_tensor(value).expand(x.shape).flatten() for value in (linear, constant)]
        flat = reshaped(call, x, (len(whole[0]), 1, 1))
        return reshaped(call, scaling(call, flat, whole[0], whole[1] if bias else None), x.shape)
    if len(x.shape) in (1, 3):
        return scaling(call, x, columns[0], columns[1] if bias else None)
    image = reshaped(call, x, (x.shape[0], -1, 1))
    return reshaped(call, scaling(call, image, columns[0], columns[1] if bias else None), x.shape)


def scaling(call: Call, x: Ref, factor: Tensor, shift: Tensor | None) -> Ref:
    """Emit a factor and a shift a channel, which fold into the layer before where nothing else reads that one."""
    flat = len(x.shape) == 1
    weight = call.weight("weight", torch.diag(factor) if flat else factor.reshape(-1, 1, 1, 1))
    bias = call.weight("bias", shift) if shift is not None else None
    ref = call.emit(Linear, x, shape=x.shape, weight=weight, bias=bias) if flat else call.emit(
        Conv, x, shape=x.shape, weight=weight, bias=bias, kernel=(1, 1), groups=x.shape[0]
    )  # fmt: skip
    call.builder.scalings.add(ref.name)
    return ref


def _gate(gate: Coefficient, x: Ref) -> Tensor | None:
    """Return where a ReLU acts, if its factor is 0 or 1 everywhere."""
    if isinstance(gate, Tensor) and (gate.is_meta or not bool(((gate == 0) | (gate == 1)).all())):
        return None
    if not isinstance(gate, Tensor) and gate not in (0, 1):
        return None
    return (_tensor(gate) != 0).expand(x.shape)


def _of_channels(value: Coefficient, x: Ref, where: Tensor | None) -> Tensor | None:
    """Return a coefficient as one number a channel (0 for a channel out of the mask); None where it has several."""
    rows = _tensor(value).expand(x.shape).reshape(x.shape[0], -1)
    if rows.is_meta:
        return rows[:, 0]
    if where is None:
        return rows[:, 0] if bool((rows == rows[:, :1]).all()) else None
    inside = where.reshape(x.shape[0], -1)
    first = rows.gather(1, inside.int().argmax(1, keepdim=True))
    fits = bool(((rows == first) | ~inside).all())
    return torch.where(inside.any(1), first[:, 0], 0.0) if fits else None


def _is(value: Coefficient, number: float, where: Tensor | None = None) -> bool:
    """Whether a coefficient is this number everywhere, or in some places; of one without data nothing is known."""
    if not isinstance(value, Tensor):
        return value == number or (where is not None and not where.any())
    if value.is_meta:
        return where is not None
    return bool((value == number).all() if where is None else ((value == number) | ~where).all())


def _both(act: Callable[[Any, Any], Any], one: Coefficient, two: Coefficient) -> Coefficient:
    if isinstance(one, Tensor) and isinstance(two, Tensor) and one.is_meta != two.is_meta:
        one, two = one.to("meta"), two.to("meta")
    result: Coefficient = act(one, two)
    return result


def _tensor(value: Coefficient) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
