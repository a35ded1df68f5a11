"""Weights that a training begins with, out of another network's: those that fit, or a narrower one's made wider."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pibench.errors import DataError


def copy_matching(module: nn.Module, state: dict[str, Tensor]) -> int:
    """Copy those tensors of `state` whose name and shape fit; returns how many did."""
    own = module.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    module.load_state_dict({**own, **fitting})
    return len(fitting)


def widen_into(module: nn.Module, state: dict[str, Tensor], seed: int) -> None:
    """Let a module compute what a narrower one of the same layers does.

    Every channel is there several times, and what reads it shares its weight out among the copies, at random, so that
    they learn different things (Net2Net; Chen, Goodfellow and Shlens, ICLR 2016, section 2.2). Copies lie side by side,
    so that shortcuts which pad channels on both sides fit; a linear layer must read pooled channels, not whole maps.
    Raises DataError where a tensor's widths are no whole multiples, or `state` lacks it.
    """
    own, rng = module.state_dict(), torch.Generator().manual_seed(seed)
    counters = {name: value for name, value in own.items() if value.dim() == 0}  # shipped files have none
    state = {**counters, **state}
    if unfit := [name for name in own if name not in state or not _is_multiple(state[name], own[name])]:
        had = tuple(state[unfit[0]].shape) if unfit[0] in state else "not there"
        raise DataError(f"cannot be widened: {unfit[0]} of {tuple(own[unfit[0]].shape)} is {had} in it")
    module.load_state_dict({name: _wider(state[name], own[name].shape, rng) for name in own})


def _is_multiple(narrow: Tensor, wide: Tensor) -> bool:
    """Whether outputs and inputs, the first two dimensions, are multiples, and kernels the same."""
    alike = narrow.dim() == wide.dim() and narrow.shape[2:] == wide.shape[2:]
    return alike and all(w % n == 0 for n, w in zip(narrow.shape[:2], wide.shape[:2], strict=True))


def _wider(narrow: Tensor, shape: torch.Size, rng: torch.Generator) -> Tensor:
    if narrow.dim() == 0:
        return narrow
    tall = narrow.repeat_interleave(shape[0] // narrow.shape[0], 0)
    if narrow.dim() == 1:
        return tall
    outputs, inputs, times = shape[0], narrow.shape[1], shape[1] // narrow.shape[1]
    shares = 0.5 + torch.rand(outputs, inputs, times, generator=rng)
    shares /= shares.sum(2, keepdim=True)
    kernel = [1] * (narrow.dim() - 2)
    return (tall[:, :, None] * shares.reshape(outputs, inputs, times, *kernel)).reshape(shape)
