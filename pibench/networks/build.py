"""From a network's description to a torch module with fresh weights, and from a module's name to its stage."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pibench.errors import UsageError
from pibench.networks.activations import ACTIVATIONS, MaskedQuadratic, MaskedReLU, Quadratic, ReusedReLU
from pibench.networks.minionn import MiniOnn
from pibench.networks.mobilenet import MobileNet
from pibench.networks.resnet import ResNet
from pibench.networks.spec import (
    AnyNetwork,
    MiniOnnSpec,
    MobileNetSpec,
    ReducedSpec,
    ResNetSpec,
    VggSpec,
    WideResNetSpec,
)
from pibench.networks.vgg import Vgg
from pibench.networks.wideresnet import WideResNet

_FAMILIES: dict[type[AnyNetwork], Callable[[Any], nn.Module]] = {
    ResNetSpec: ResNet,
    VggSpec: Vgg,
    MobileNetSpec: MobileNet,
    WideResNetSpec: WideResNet,
    MiniOnnSpec: MiniOnn,
}


def build(spec: AnyNetwork) -> nn.Module:
    """Return the network with fresh weights, its ReLU sites as the description wants them."""
    module = _FAMILIES[type(spec)](spec)
    _set_activations(module, spec)
    if isinstance(spec, ReducedSpec) and spec.reuse > 1:
        for name, shape in site_shapes(module, spec.input_shape).items():
            if shape[0] > 1:
                replace(module, name, ReusedReLU(shape[0], spec.reuse))
    return module


def skeleton(spec: AnyNetwork) -> nn.Module:
    """Return the network without data (on torch's meta device) but with masks, all true: enough to be counted."""
    with torch.device("meta"):
        module = build(spec)
    for site in sites(module).values():
        if isinstance(site, MaskedReLU | MaskedQuadratic):
            site.mask = torch.ones(site.mask.shape, dtype=torch.bool, device="cpu")
    return module


def stage_of(name: str) -> str:
    """Return the stage of a module by its name: "stem", "S1".., "head", or "" where the name tells none."""
    first = name.split(".")[0]
    if match := re.fullmatch(r"layer(\d+)", first):
        return f"S{match[1]}"
    if first in {"conv1", "bn1", "relu", "pool"}:
        return "stem"
    return "head" if first in {"linear", "classifier", "fc", "head"} else ""


def sites(module: nn.Module) -> dict[str, nn.Module]:
    """Return the activations of a network by name (sites without one are nn.Identity and not listed)."""
    found = {name: child for name, child in module.named_modules() if isinstance(child, ACTIVATIONS)}
    return {name: child for name, child in found.items() if name.rpartition(".")[0] not in found}  # no parts of one


def site_shapes(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shape of one image's activation at every site, without computing anything."""
    shapes: dict[str, tuple[int, ...]] = {}
    probe = copy.deepcopy(module).to("meta").eval()
    for name, child in sites(probe).items():
        child.register_forward_hook(
            lambda _module, _inputs, out, name=name: shapes.__setitem__(name, tuple(out.shape[1:]))
        )
    with torch.no_grad():
        probe(torch.empty(1, *input_shape, device="meta"))
    return shapes


def replace(module: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where the submodule `name` stands."""
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)


def _set_activations(module: nn.Module, spec: AnyNetwork) -> None:
    known = set(sites(module))
    if unknown := sorted((set(spec.quadratic_sites) | set(spec.linear_sites)) - known):
        remedy = f"sites: {', '.join(sorted(known))}"
        raise UsageError(f"the network has no ReLU site {', '.join(unknown)}", remedy=remedy)
    if spec.activation == "relu" and not spec.quadratic_sites and not spec.linear_sites:
        return
    for name, shape in site_shapes(module, spec.input_shape).items():
        if name in spec.linear_sites:
            replace(module, name, nn.Identity())
        elif name in spec.quadratic_sites or spec.activation == "quadratic":
            replace(module, name, Quadratic(shape[0]))
        elif spec.activation == "masked":
            replace(module, name, MaskedReLU(shape) if spec.complement == "identity" else MaskedQuadratic(shape))


def masks_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the public masks of a network's sites, by site."""
    return {name: s.mask for name, s in sites(module).items() if isinstance(s, MaskedReLU | MaskedQuadratic)}
