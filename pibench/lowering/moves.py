"""Values that only move: the call itself is run on positions, and what it does to them is what it does to anything.

So views, permutations, shuffles, flips, slices, padding and upsampling need no rules of their own. What the result is
(a flattening, a slice, padded channels, a concatenation) is read off the positions; all else is a Rearrange.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from pibench.lowering.builder import Builder, Call, Ref
from pibench.lowering.program import Concat, Flatten, PadChannels, Rearrange, Shape, Slice

_NOWHERE = -1.0  # a position that holds zero


def move(call: Call, func: Any, args: Any, kwargs: dict[str, Any], traced: Mapping[int, Ref]) -> Any:
    """Lower a call that moves values; positions go through it as a batch of two, which must not mix.

    `traced` are the values among the arguments, by the identity of their tensors.
    """
    refs = list(traced.values())
    total = sum(ref.count for ref in refs)
    starts = [sum(ref.count for ref in refs[:i]) for i in range(len(refs))]
    positions = {
        key: torch.arange(start, start + ref.count, dtype=torch.float64).reshape(1, *ref.shape)
        for (key, ref), start in zip(traced.items(), starts, strict=True)
    }

    def standing(item: Any) -> Any:
        if id(item) in positions:
            one = positions[id(item)]
            return torch.cat([one, one + total])
        if isinstance(item, Tensor) and item.is_floating_point():
            if item.is_meta or item.any():
                call.refuse("beside values of the network it moves constants other than zero")
            return torch.full(item.shape, _NOWHERE, dtype=torch.float64)
        return item

    args, kwargs = _zeros_are_nowhere(call, args, kwargs)
    with torch.no_grad():
        moved = func(*tree_map(standing, args), **tree_map(standing, kwargs))
    if isinstance(moved, Tensor):
        return _placed(call, refs, moved, total)
    return type(moved)(_placed(call, refs, part, total) for part in moved)


def written(target: Tensor, index: Any, values: Any) -> Tensor:
    """Return what a tensor is after target[index] = values."""
    made = target.clone()
    made[index] = values
    return made


def whole_numbers(index: Any) -> Any:
    """Return an index whose boolean masks are positions: how many there are is known without data then."""
    parts = index if isinstance(index, tuple) else (index,)
    found: list[Any] = []
    for part in parts:
        is_mask = isinstance(part, Tensor) and part.dtype == torch.bool and not part.is_meta and part.dim()
        found += part.nonzero(as_tuple=True) if is_mask else [part]
    return tuple(found)


def _zeros_are_nowhere(call: Call, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Let padding put positions that are nowhere, where it would put zeros."""
    if call.function == "interpolate" and kwargs.get("mode", "nearest") not in ("nearest", "nearest-exact"):
        call.refuse("it weighs neighbours; only mode='nearest' moves values")
    if call.function == "setitem" and isinstance(args[2], int | float):
        if args[2] != 0:
            call.refuse(f"it writes {args[2]} into a value; only zeros, or values of the network")
        return (*args[:2], _NOWHERE), kwargs
    if call.function != "pad":
        return args, kwargs
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    value = args[3] if len(args) > 3 else kwargs.get("value")
    if mode != "constant":
        return args, kwargs
    if value not in (None, 0):
        call.refuse(f"it pads with {value}; only zeros")
    return args[:2], {**{k: v for k, v in kwargs.items() if k == "pad"}, "mode": mode, "value": _NOWHERE}


def _placed(call: Call, refs: Sequence[Ref], moved: Tensor, total: int) -> Ref:
    """Return the value whose scalars come from these positions, if both images of the batch moved alike."""
    if moved.dim() < 1 or len(moved) != 2 or not _alike(moved[0], moved[1], total):
        call.refuse(f"it turns a batch into shape {tuple(moved.shape)} and mixes its images")
    return rearranged(call, refs, moved[0].round().long().flatten(), tuple(moved.shape[1:]))


def _alike(first: Tensor, second: Tensor, total: int) -> bool:
    nowhere = first == _NOWHERE
    return bool((torch.where(nowhere, first, first + total) == second).all() and (first < total).all())


def rearranged(call: Call, refs: Sequence[Ref], index: Tensor, shape: Shape) -> Ref:
    """Return the scalars of the joined values at these positions, as the simplest operation that does it."""
    if (known := _recognised(call, refs, index, shape)) is not None:
        return known
    refs, index = _through(call.builder, refs, index)
    if (known := _recognised(call, refs, index, shape)) is not None:
        return known
    return call.emit(Rearrange, *refs, shape=shape, index=call.mask(index))


def reshaped(call: Call, x: Ref, shape: Sequence[int]) -> Ref:
    """Return the value in another shape."""
    made = torch.arange(x.count).reshape(tuple(shape))
    return rearranged(call, [x], made.flatten(), tuple(made.shape))


def fill(call: Call, x: Ref, where: Tensor) -> Ref:
    """Return the value with zeros in these places."""
    index = torch.arange(x.count).masked_fill(where.flatten(), -1)
    return rearranged(call, [x], index, x.shape)


def _through(builder: Builder, refs: Sequence[Ref], index: Tensor) -> tuple[list[Ref], Tensor]:
    """Look through values that were only moved, and leave out those of which nothing is taken."""
    made = {op.name: op for op in builder.ops}
    sources: list[Ref] = []
    table: list[Tensor] = []
    for ref in refs:
        op = made[ref.name]
        inside = [builder.ref(name) for name in op.inputs] if isinstance(op, Flatten | Rearrange) else [ref]
        places = builder.masks[op.index] if isinstance(op, Rearrange) else torch.arange(ref.count)
        start = sum(source.count for source in sources)
        table.append(torch.where(places < 0, -1, places + start))
        sources += inside
    found = torch.where(index < 0, -1, torch.cat(table)[index.clamp(min=0)])
    return _used(sources, found)


def _used(sources: list[Ref], index: Tensor) -> tuple[list[Ref], Tensor]:
    """Drop the sources of which nothing is taken (one stays, for its batch)."""
    kept: list[Ref] = []
    moved, start = index.clone(), 0
    for source in sources:
        inside = (index >= start) & (index < start + source.count)
        if bool(inside.any()):
            moved[inside] = index[inside] - start + sum(ref.count for ref in kept)
            kept.append(source)
        start += source.count
    return kept or sources[:1], moved


def _recognised(call: Call, refs: Sequence[Ref], index: Tensor, shape: Shape) -> Ref | None:
    """Return the value if nothing moved, or an operation with a name for what did."""
    identity = len(index) == sum(ref.count for ref in refs) and bool((index == torch.arange(len(index))).all())
    if len(refs) > 1:
        tails = {ref.shape[1:] for ref in refs}
        joined = (sum(ref.shape[0] for ref in refs), *refs[0].shape[1:])
        return call.emit(Concat, *refs, shape=shape) if identity and len(tails) == 1 and joined == shape else None
    x = refs[0]
    if identity and shape == x.shape:
        return x
    if identity and len(shape) == 1 and x.shape:
        return call.emit(Flatten, x, shape=shape)
    return _sliced(call, x, index, shape) or _padded(call, x, index, shape)


def _sliced(call: Call, x: Ref, index: Tensor, shape: Shape) -> Ref | None:
    """Recognise x[a:b, ::s, ::t] of one image."""
    if len(x.shape) not in (1, 3) or len(shape) != len(x.shape) or shape[0] > x.shape[0] or bool((index < 0).any()):
        return None
    if not len(index):  # a split that left nothing
        return call.emit(Slice, x, shape=shape, channels=(x.shape[0], x.shape[0])) if shape[0] == 0 else None
    first = int(index[0]) // math.prod(x.shape[1:])
    grid = torch.arange(x.count).reshape(x.shape)[first : first + shape[0]]
    for stride in _strides(x.shape, shape, index):
        taken = grid if len(x.shape) == 1 else grid[:, :: stride[0], :: stride[1]]
        if taken.shape == shape and bool((taken.flatten() == index).all()):
            kept = None if shape[0] == x.shape[0] else (first, first + shape[0])
            return call.emit(Slice, x, shape=shape, stride=stride, channels=kept)
    return None


def _strides(source: Shape, shape: Shape, index: Tensor) -> list[tuple[int, int]]:
    """Return the one stride that the first rows and columns show."""
    if len(source) == 1:
        return [(1, 1)]
    columns = int(index[1] - index[0]) if shape[2] > 1 else _step(source[2], shape[2])
    rows = int(index[shape[2]] - index[0]) // source[2] if shape[1] > 1 else _step(source[1], shape[1])
    return [(rows, columns)] if rows > 0 and columns > 0 else []


def _step(before: int, after: int) -> int:
    """Return a stride that leaves this many of `before`; 0 where there is none."""
    return -(-before // after) if after else 0


def _padded(call: Call, x: Ref, index: Tensor, shape: Shape) -> Ref | None:
    """Recognise zero channels before and after."""
    if len(x.shape) != 3 or shape[1:] != x.shape[1:] or shape[0] <= x.shape[0]:
        return None
    held = (index >= 0).nonzero().flatten()
    if len(held) != x.count or int(held[0]) % math.prod(x.shape[1:]):
        return None
    start = int(held[0])
    if not bool((index[start : start + x.count] == torch.arange(x.count)).all()):
        return None
    before = start // math.prod(x.shape[1:])
    return call.emit(PadChannels, x, shape=shape, before=before, after=shape[0] - x.shape[0] - before)
