"""Channel pruning and polynomials: exact where they must be, within budgets, refused where they cannot be."""

from __future__ import annotations

import pytest
import torch
from reduction_fakes import little, noise
from torch import nn

from pibench.errors import UsageError
from pibench.networks.build import build, sites
from pibench.networks.spec import MiniOnnSpec, ResNetSpec
from pibench.reduction.counting import count
from pibench.reduction.polynomial import choose_sites, fit, start_coefficients
from pibench.reduction.pruning import Budget, load_cut, prune

RESNET56 = ResNetSpec(
    family="resnet", base_width=16, multipliers=[2, 2], blocks=[9, 9, 9], shortcut="pad", classes=10, input=[3, 32, 32]
)


def varied(spec: ResNetSpec) -> nn.Module:
    """Return a network whose BatchNorm scales all differ."""
    torch.manual_seed(11)
    module = build(spec)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.uniform_(child.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
    return module.eval()


def test_channels_without_scale_go_first_and_nothing_changes() -> None:
    spec = little()
    module = varied(spec)
    for name in ("layer1.0.bn1", "layer2.0.bn1"):
        norm = module.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        with torch.no_grad():
            norm.weight[1::2] = 0.0
            norm.bias[1::2] = 0.0
    half = count(spec).relu_count - 2 * 64 - 4 * 16
    narrow, cut = prune(spec, module.state_dict(), Budget(relus=half))
    pruned = build(narrow)
    load_cut(pruned, cut)
    x = torch.rand(3, 1, 8, 8)
    assert narrow.inner_widths == [[2], [4]]
    assert torch.allclose(pruned.eval()(x), module(x), atol=1e-5)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3, 0.1])
def test_relu_budgets_are_met(share: float) -> None:
    spec = little(base_width=16, multipliers=[2, 2], blocks=[2, 2, 1])
    budget = int(share * count(spec).relu_count)
    narrow, cut = prune(spec, varied(spec).state_dict(), Budget(relus=budget))
    load_cut(build(narrow), cut)
    assert 0.6 * budget < count(narrow).relu_count <= budget


def test_mac_budgets_are_met() -> None:
    spec = little(base_width=16)
    budget = count(spec).macs // 3
    narrow, _ = prune(spec, varied(spec).state_dict(), Budget(macs=budget))
    assert 0.6 * budget < count(narrow).macs <= budget


def test_the_posters_pruned_resnet56_is_in_reach() -> None:
    narrow, _ = prune(RESNET56, varied(RESNET56).state_dict(), Budget(relus=311_700))
    assert 311_000 < count(narrow).relu_count <= 311_700
    assert narrow.widths == [16, 32, 64]


def test_budgets_out_of_reach_and_other_families_are_refused() -> None:
    with pytest.raises(UsageError, match="parameter-free shortcuts"):
        prune(RESNET56, varied(RESNET56).state_dict(), Budget(relus=100_000))
    with pytest.raises(UsageError, match="minionn"):
        prune(MiniOnnSpec(family="minionn", classes=10, input=[3, 32, 32]), {}, Budget(relus=1))


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (0.7, 0.5), (-1.2, 2.0)])
def test_the_parabola_is_the_least_squares_fit(mean: float, spread: float) -> None:
    x = torch.linspace(mean - 8 * spread, mean + 8 * spread, 20_001, dtype=torch.float64)
    root = torch.exp(-(((x - mean) / spread) ** 2) / 4)[:, None]  # square root of the density
    powers = torch.stack([x * x, x, torch.ones_like(x)], 1)
    best = torch.linalg.lstsq(powers * root, x.relu()[:, None] * root).solution[:, 0]
    found = torch.stack(fit(torch.tensor(mean, dtype=torch.float64), torch.tensor(spread, dtype=torch.float64)))
    assert torch.allclose(found, best, atol=1e-6)


def test_sites_go_in_order_of_sensitivity_until_the_budget_is_met() -> None:
    sizes, sensitivity = {"a": 100, "b": 50, "c": 30}, {"a": 0.5, "b": 0.1, "c": 0.9}
    assert choose_sites(sizes, sensitivity, 180) == []
    assert choose_sites(sizes, sensitivity, 140) == ["b"]
    assert choose_sites(sizes, sensitivity, 30) == ["b", "a"]
    assert choose_sites(sizes, sensitivity, 0) == ["b", "a", "c"]


def test_polynomials_start_near_the_relus_that_they_replace() -> None:
    source = varied(little())
    target = build(little(quadratic_sites=["layer1.0.relu1"]))
    target.load_state_dict({**target.state_dict(), **source.state_dict()})
    untouched = [target.state_dict()[f"layer1.0.relu1.c{power}"].clone() for power in range(3)]
    start_coefficients(source, target, noise())
    assert not any(torch.equal(target.state_dict()[f"layer1.0.relu1.c{p}"], untouched[p]) for p in range(3))
    assert {name: type(site).__name__ for name, site in sites(target).items()}["layer1.0.relu1"] == "Quadratic"


def test_reuse_divides_the_count_and_keeps_three_parts() -> None:
    spec = little(base_width=8)
    assert count(little(base_width=8, reuse=4)).relu_count == count(spec).relu_count // 4
    site = build(little(base_width=8, reuse=4)).get_submodule("relu")
    x = torch.randn(2, 8, 8, 8)
    y = site(x)
    assert torch.equal(y[:, :2], x[:, :2].relu())
    assert torch.equal(y[:, 2:4], x[:, 2:4] + x[:, :2].relu())
    assert torch.equal(y[:, 4:], x[:, 4:])
