"""A user's module as inference takes it: a copy in eval mode and in float32, without what training wraps around it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pibench.errors import UnsupportedLayer

_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "AveragedModel": "module",
             "FullyShardedDataParallel": "module", "OptimizedModule": "_orig_mod"}  # fmt: skip


def unwrapped(module: nn.Module) -> nn.Module:
    """Return what DataParallel, AveragedModel or torch.compile stand around; a scripted module is refused."""
    while (inner := _WRAPPERS.get(type(module).__name__)) and isinstance(
        found := getattr(module, inner, None), nn.Module
    ):
        module = found
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedLayer(
            f"{type(module).__name__} is compiled by TorchScript, and its layers cannot be seen any more",
            remedy="give the module as it was before torch.jit.script or torch.jit.trace",
        )
    return module


def on_cpu(module: nn.Module) -> nn.Module:
    """Move a module from whichever device to the CPU; what has no data stays without."""
    moved = module._apply(lambda tensor: tensor if tensor.is_meta else tensor.cpu())  # type: ignore[no-untyped-call]
    assert isinstance(moved, nn.Module)
    return moved


def inference_copy(module: nn.Module) -> nn.Module:
    """Return a copy in eval mode and float32; the module given stays as it is."""
    module = unwrapped(module)
    memo = {id(tensor): tensor.detach().clone() for tensor in _computed(module)}  # torch copies leaves alone
    try:
        made = copy.deepcopy(module, memo)
    except Exception as error:
        raise UnsupportedLayer(
            f"{type(module).__name__} cannot be copied: {str(error).splitlines()[0] if str(error) else error!r}",
            remedy="copy.deepcopy(module) shows what it holds that has no copy (a lock, an open file)",
        ) from error
    for name, child in list(made.named_modules()):
        child._compiled_call_impl = None
        if (inner := unwrapped(child)) is not child and name:
            parent, _, leaf = name.rpartition(".")
            setattr(made.get_submodule(parent), leaf, inner)
    made = on_cpu(made.eval().requires_grad_(False))
    mixed = any(t.is_floating_point() and t.dtype != torch.float32 for t in (*made.parameters(), *made.buffers()))
    return made.float() if mixed else made


def _computed(module: nn.Module) -> Iterator[Tensor]:
    """Yield tensors that a module holds and that others are computed from: a weight under weight_norm or a mask."""
    for child in module.modules():
        yield from _non_leaves(vars(child))


def _non_leaves(held: Any, depth: int = 2) -> Iterator[Tensor]:
    if isinstance(held, Tensor):
        if not held.is_leaf:
            yield held
    elif depth and isinstance(held, dict | list | tuple):
        for item in held.values() if isinstance(held, dict) else held:
            yield from _non_leaves(item, depth - 1)
