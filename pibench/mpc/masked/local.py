"""Steps that each party does alone and alike on its own part of a value: sums, pools, gathers, free truncations."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pibench.mpc.masked.kernels import Ints
from pibench.mpc.masked.plan import Drop, Gather, Plan, PoolSum, Step, Sum


def apply_local(plan: Plan, step: Step, parts: list[Ints], server: bool) -> Ints:
    """Return this party's part (batch, *shape) of a local step's output; constants go onto the server's part."""
    shape = (len(parts[0]), *plan.values[step.out].shape)
    match step:
        case Sum():
            return _sum(step, parts)
        case PoolSum():
            return _pool_sum(step, parts[0])
        case Gather():
            return _gather(step, parts, step.fill if server else 0).reshape(shape)
        case Drop():
            return parts[0] >> step.shift
    raise TypeError(f"{type(step).__name__} is no local step")


def _sum(step: Sum, parts: list[Ints]) -> Ints:
    moved = [part << shift if shift else part for part, shift in zip(parts, step.shifts, strict=False)]
    if len(moved) == 1:
        return moved[0]
    return moved[0] + moved[1] if step.sign > 0 else moved[0] - moved[1]


def _pool_sum(step: PoolSum, part: Ints) -> Ints:
    (ph, pw), (sh, sw) = step.padding, step.stride
    if part.shape[2:] == step.kernel and not (ph or pw):  # global pooling, the usual case
        total = part.reshape(*part.shape[:2], -1).sum(-1)[:, :, None, None]
    else:
        padded = np.pad(part, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        total = sliding_window_view(padded, step.kernel, axis=(2, 3))[:, :, ::sh, ::sw].sum((-1, -2))
    made: Ints = total if step.factor == 1 else total * step.factor
    return made


def _gather(step: Gather, parts: list[Ints], fill: int) -> Ints:
    flat = [part.reshape(len(part), math.prod(part.shape[1:])) for part in parts]
    joined = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
    if joined.shape[1] == len(step.index) and step.is_identity:
        return joined
    taken = joined[:, step.index]
    if len(step.filled):
        taken[:, step.filled] = fill
    return taken
