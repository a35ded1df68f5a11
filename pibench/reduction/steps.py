"""The coarse steps of DeepReDuce and DeepReShape on a network's description: cull, thin, reshape. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pibench.errors import UsageError
from pibench.networks.spec import AnyNetwork, MobileNetSpec, ReducedSpec, ResNetSpec, Thinning, VggSpec, WideResNetSpec

Reducible = ResNetSpec | VggSpec | MobileNetSpec | WideResNetSpec
Spec = TypeVar("Spec", bound=ReducedSpec)


def changed(spec: Spec, **fields: Any) -> Spec:
    """Return the description with some fields replaced, and checked again."""
    return type(spec).model_validate({**spec.model_dump(), **fields})


def changed_any(spec: AnyNetwork, **fields: Any) -> AnyNetwork:
    """Return a description of any family with some fields replaced, and checked again."""
    return type(spec).model_validate({**spec.model_dump(), **fields})


def reducible(spec: AnyNetwork) -> Reducible:
    """Return the description if its family has the steps' fields; raises UsageError where it has not."""
    if isinstance(spec, ReducedSpec):
        return spec
    remedy = "use a resnet, vgg, mobilenet or wideresnet card, or a method by masks (snl, senet, coordinate, taylor)"
    raise UsageError(f"stages of the family '{spec.family}' cannot be culled", remedy=remedy)


def cull(spec: Spec, stages: Iterable[int]) -> Spec:
    """Remove every ReLU of some stages; what stands before S1 goes with S1, what comes after the last with the last.

    The stem's ReLU goes with stage 1 in every released DeepReDuce network.
    """
    culled = sorted({*spec.culled, *stages})
    edges: dict[str, Any] = {}
    if 1 in culled and not isinstance(spec, VggSpec | WideResNetSpec):  # VGG's stem is part of its first group
        edges["stem_relu"] = False
    if spec.stage_count in culled and isinstance(spec, WideResNetSpec):
        edges["final_relu"] = False
    return changed(spec, culled=culled, **edges)


def only(spec: Spec, stage: int) -> Spec:
    """Keep the ReLUs of one stage alone."""
    return cull(spec, (other for other in range(1, spec.stage_count + 1) if other != stage))


def thin(spec: Spec, which: Thinning = "bottom") -> Spec:
    """Drop every other ReLU layer of the surviving stages."""
    return changed(spec, thinning=which)


def reshape(spec: Spec, width: float = 1.0, resolution: float = 1.0) -> Spec:
    """Shrink channels by `width` (alpha) and the image's sides by `resolution` (rho: 1, 1/2 or 1/4)."""
    stride = round(spec.stem_stride / resolution)
    if stride not in (1, 2, 4):
        raise UsageError(f"a resolution of {resolution:g} would need a stem of stride {stride}; 1, 2 and 4 are known")
    return changed(spec, width_scale=spec.width_scale * width, stem_stride=stride)
