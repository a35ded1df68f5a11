"""From a network's description to a torch module with fresh weights, and from a module's name to its stage."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from pibench.errors import UsageError
from pibench.networks.activations import ACTIVATIONS, MaskedQuadratic, MaskedReLU, Quadratic
from pibench.networks.resnet import ResNet
from pibench.networks.spec import Network, ResNetSpec


def build(spec: Network) -> nn.Module:
    """Return the network with fresh weights, its ReLU sites as the description wants them."""
    module = _plain(spec)
    _set_activations(module, spec)
    return module


def _plain(spec: Network) -> nn.Module:
    if isinstance(spec, ResNetSpec):
        return ResNet(spec)
    raise UsageError(f"no builder for networks of family '{spec.family}'")


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
    return {name: child for name, child in module.named_modules() if isinstance(child, ACTIVATIONS)}


def site_shapes(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shape of one image's activation at every site, without computing anything."""
    import copy

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


def _set_activations(module: nn.Module, spec: Network) -> None:
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
