"""Networks: shapes, names, reductions and what may stand at a ReLU site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pibench.errors import UsageError
from pibench.networks.activations import MaskedQuadratic, MaskedReLU, Quadratic
from pibench.networks.build import build, masks_of, site_shapes, sites, stage_of
from pibench.networks.card import load_card
from pibench.networks.resnet import PadShortcut
from pibench.networks.spec import MiniOnnSpec, MobileNetSpec, ResNetSpec, VggSpec, WideResNetSpec
from pibench.reduction import arithmetic
from pibench.reduction.pruning import Budget, prune

SMALL = {"family": "resnet", "base_width": 8, "multipliers": [2, 2], "blocks": [2, 1, 1], "classes": 10}


def small(**fields: Any) -> ResNetSpec:
    return ResNetSpec.model_validate({**SMALL, "input": [1, 8, 8], **fields})


def kept(spec: ResNetSpec) -> list[str]:
    return sorted(sites(build(spec)))


VGG = {"family": "vgg", "classes": 7, "input": [3, 32, 32], "hidden": [16], "width_scale": 0.1}
MOBILENET = {"family": "mobilenet", "classes": 7, "input": [3, 32, 32], "width_scale": 0.25}
WIDE = {"family": "wideresnet", "depth": 10, "widen": 1, "classes": 7, "input": [3, 16, 16]}
MINIONN = {"family": "minionn", "width": 4, "classes": 7, "input": [3, 16, 16]}


@pytest.mark.parametrize(
    "spec",
    [
        small(),
        small(shortcut="pad"),
        small(width_scale=0.5, stem_stride=2),
        small(inner_widths=[[3, 5], [7], [9]]),
        small(bottleneck=True),
        VggSpec.model_validate(VGG),
        MobileNetSpec.model_validate(MOBILENET),
        WideResNetSpec.model_validate(WIDE),
        MiniOnnSpec.model_validate(MINIONN),
    ],
)
def test_each_family_gives_logits_and_gradients(spec: Any) -> None:
    module = build(spec)
    logits = module(torch.randn(2, *spec.input))
    assert logits.shape == (2, spec.classes)
    logits.sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_a_bottleneck_is_a_quarter_inside_and_has_its_stride_in_the_middle() -> None:
    module = build(small(bottleneck=True))
    shapes = site_shapes(module, (1, 8, 8))
    width = small().widths[1]
    assert shapes["layer2.0.relu1"] == (width, 8, 8)
    assert shapes["layer2.0.relu2"] == (width, 4, 4)
    assert shapes["layer2.0.relu3"] == (4 * width, 4, 4)
    with pytest.raises(ValueError, match="inner_widths is for basic blocks"):
        small(bottleneck=True, inner_widths=[[3, 5], [7], [9]])


def test_what_knows_basic_blocks_alone_refuses_bottlenecks() -> None:
    spec = small(bottleneck=True)
    with pytest.raises(ValueError, match="only networks of basic blocks"):
        arithmetic.relus(spec)
    with pytest.raises(UsageError, match="not of bottlenecks"):
        prune(spec, {}, Budget(1, None))


def test_inner_widths_change_only_the_inside_of_blocks() -> None:
    module = build(small(inner_widths=[[3, 5], [7], [9]]))
    shapes = site_shapes(module, (1, 8, 8))
    assert shapes["layer1.1.relu1"] == (5, 8, 8)
    assert shapes["layer1.1.relu2"] == (8, 8, 8)


def test_culling_thinning_and_the_stem() -> None:
    assert kept(small(stem_relu=False, culled=[1])) == [
        "layer2.0.relu1", "layer2.0.relu2", "layer3.0.relu1", "layer3.0.relu2",
    ]  # fmt: skip
    assert kept(small(thinning="bottom", culled=[1])) == ["layer2.0.relu1", "layer3.0.relu1", "relu"]
    assert kept(small(thinning="top", culled=[1], stem_relu=False)) == ["layer2.0.relu2", "layer3.0.relu2"]


def test_thinning_of_a_plain_chain_drops_every_other_relu() -> None:
    fields = {"family": "vgg", "classes": 10, "input": [3, 32, 32]}
    bottom = sites(build(VggSpec.model_validate({**fields, "thinning": "bottom"})))
    top = sites(build(VggSpec.model_validate({**fields, "thinning": "top"})))
    assert set(bottom) & set(top) == set()
    assert "layer3.2.relu" in bottom


def test_pad_shortcut_takes_every_second_pixel_and_pads_both_sides() -> None:
    x = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    y = PadShortcut(3, 8, 2)(x)
    assert y.shape == (2, 8, 2, 2)
    assert torch.equal(y[:, 2:5], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 5:].any()


def test_masked_relu_leaves_the_rest_alone() -> None:
    site = MaskedReLU((2, 2, 2))
    site.mask[0] = False
    x = torch.tensor([-1.0, 2.0]).repeat(4).reshape(1, 2, 2, 2)
    y = site(x)
    assert torch.equal(y[:, 0], x[:, 0])
    assert torch.equal(y[:, 1], x[:, 1].clamp(min=0))


def test_quadratic_starts_near_relu_and_has_coefficients_a_channel() -> None:
    site = Quadratic(3)
    x = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    error = (site(x) - x.relu()).pow(2).mean()
    assert error < 0.02
    with torch.no_grad():
        site.c2[1] = 0.0
        site.c1[1] = 1.0
        site.c0[1] = 0.0
    assert torch.equal(site(x)[:, 1], x[:, 1])


def test_masked_quadratic_chooses_by_element() -> None:
    site = MaskedQuadratic((1, 1, 2))
    site.mask[..., 1] = False
    x = torch.tensor([[[[-1.0, -1.0]]]])
    y = site(x)
    assert y[..., 0] == 0
    assert torch.allclose(y[..., 1], site.quadratic(x)[..., 1])


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"activation": "masked"}, MaskedReLU),
        ({"activation": "masked", "complement": "quadratic"}, MaskedQuadratic),
        ({"activation": "quadratic"}, Quadratic),
    ],
)
def test_activation_of_all_sites(fields: dict[str, Any], kind: type[nn.Module]) -> None:
    module = build(small(**fields))
    assert all(isinstance(site, kind) for site in sites(module).values())
    assert module(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    assert len(masks_of(module)) == (0 if kind is Quadratic else 9)


def test_single_sites_can_be_polynomial_or_linear() -> None:
    found = sites(build(small(quadratic_sites=["relu"], linear_sites=["layer1.0.relu1"])))
    assert isinstance(found["relu"], Quadratic)
    assert "layer1.0.relu1" not in found
    with pytest.raises(UsageError, match=r"no ReLU site layer9\.relu"):
        build(small(linear_sites=["layer9.relu"]))


def test_stages_by_name() -> None:
    names = {"conv1": "stem", "relu": "stem", "layer3.1.relu2": "S3", "linear": "head", "head.relu1": "head", "add": ""}
    assert {name: stage_of(name) for name in names} == names


@pytest.mark.parametrize(
    ("card", "file"), [("resnet32-c100", "resnet32-cifar100"), ("resnet20-c10", "resnet20-cifar10")]
)
def test_names_and_shapes_are_those_of_trained_networks(shared_data: Path, card: str, file: str) -> None:
    from safetensors.torch import load_file

    given: dict[str, Tensor] = load_file(shared_data / f"{file}.safetensors")
    own = build(load_card(card).network).state_dict()
    shapes = {name: tuple(t.shape) for name, t in own.items() if not name.endswith("num_batches_tracked")}
    assert shapes == {name: tuple(t.shape) for name, t in given.items() if not name.endswith("num_batches_tracked")}
