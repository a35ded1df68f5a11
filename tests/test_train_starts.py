"""A narrower network's weights to start from: the same answers at first, copies that learn, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import QUICK, make_card, make_data
from torch import Tensor, nn

from pibench.errors import DataError
from pibench.networks.build import build
from pibench.networks.spec import AnyNetwork, MobileNetSpec, ResNetSpec, VggSpec
from pibench.training.checkpoint import read_metadata, save_checkpoint
from pibench.training.plan import Plan
from pibench.training.runs import run_plan
from pibench.training.starts import widen_into

SMALL: dict[str, Any] = {"classes": 5, "input": [3, 32, 32]}
RESNET = SMALL | {"family": "resnet", "multipliers": [2, 3], "blocks": [2, 1, 1]}
DIGITS = {"family": "resnet", "multipliers": [2], "blocks": [1, 1], "classes": 3, "input": [1, 8, 8], "base_width": 2}


def trained(module: nn.Module) -> nn.Module:
    """Give a network statistics of its own, so that an evaluation tells channels apart."""
    torch.manual_seed(3)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and value.dim() == 1:
            value.copy_(torch.rand_like(value) + (0.5 if "var" in name or "weight" in name else -0.5))
    return module.eval()


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (ResNetSpec(**RESNET, base_width=4), ResNetSpec(**RESNET, base_width=8)),
        (ResNetSpec(**RESNET, base_width=4, shortcut="pad"), ResNetSpec(**RESNET, base_width=12, shortcut="pad")),
        (
            ResNetSpec(**RESNET, base_width=8, culled=[1], thinning="bottom", width_scale=0.5, stem_relu=False),
            ResNetSpec(**RESNET, base_width=8, culled=[1], thinning="bottom", stem_relu=False),
        ),
        (MobileNetSpec(**SMALL, family="mobilenet", width_scale=0.25), MobileNetSpec(**SMALL, family="mobilenet")),
        (VggSpec(**SMALL, family="vgg", width_scale=0.125), VggSpec(**SMALL, family="vgg", width_scale=0.25)),
    ],
)
def test_a_wider_network_begins_with_the_narrower_ones_answers(narrow: AnyNetwork, wide: AnyNetwork) -> None:
    source, target = trained(build(narrow)), build(wide).eval()
    widen_into(target, source.state_dict(), 1)
    images = torch.randn(4, 3, 32, 32)
    want = source(images)
    assert float(want.detach().std()) > 0.01
    assert torch.allclose(target(images), want, rtol=1e-3, atol=1e-4)


def test_counters_that_a_shipped_file_lacks_are_not_missed() -> None:
    source, target = trained(build(ResNetSpec(**RESNET, base_width=4))), build(ResNetSpec(**RESNET, base_width=8))
    shipped = {name: value for name, value in source.state_dict().items() if "num_batches" not in name}
    widen_into(target.eval(), shipped, 1)
    images = torch.randn(4, 3, 32, 32)
    assert torch.allclose(target(images), source(images), rtol=1e-3, atol=1e-4)


def test_copies_learn_different_things() -> None:
    source, target = trained(build(ResNetSpec(**RESNET, base_width=4))), build(ResNetSpec(**RESNET, base_width=8))
    widen_into(target, source.state_dict(), 1)
    (target(torch.randn(8, 3, 32, 32)) ** 2).sum().backward()
    gradient = dict(target.named_parameters())["layer1.0.conv1.weight"].grad
    assert gradient is not None
    assert not torch.allclose(gradient[::2], gradient[1::2], rtol=0.1)


def test_widths_that_are_no_multiples_are_refused() -> None:
    source, target = build(ResNetSpec(**RESNET, base_width=4)), build(ResNetSpec(**RESNET, base_width=6))
    with pytest.raises(DataError, match=r"conv1.weight of \(6, 3, 3, 3\) is \(4, 3, 3, 3\) in it"):
        widen_into(target, source.state_dict(), 1)


def test_layers_that_are_not_there_are_refused() -> None:
    deeper = ResNetSpec(**RESNET | {"blocks": [2, 2, 1]}, base_width=8)
    with pytest.raises(DataError, match="not there in it"):
        widen_into(build(deeper), build(ResNetSpec(**RESNET, base_width=4)).state_dict(), 1)


def test_a_plans_round_starts_wider_and_says_so(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pibench.training.runs.load_dataset", lambda _: make_data())
    began: list[torch.Size] = []

    def noted(module: nn.Module, state: dict[str, Tensor], seed: int) -> None:
        began.append(state["conv1.weight"].shape)
        widen_into(module, state, seed)

    monkeypatch.setattr("pibench.training.train.widen_into", noted)
    card = make_card(in_tmp)  # of four channels
    state = in_tmp / "state"
    narrow = build(ResNetSpec.model_validate(DIGITS))
    save_checkpoint(state / "narrow.safetensors", narrow.state_dict(), {"epochs": 5})
    plan = Plan.model_validate(
        {"rounds": [{"card": str(card.path), "start": "narrow", "widen": True, "recipe": QUICK | {"epochs": 1}}]}
    )
    (made,) = run_plan(lambda: plan, state)
    assert began == [torch.Size((2, 1, 3, 3))]
    meta = read_metadata(made)
    assert meta["start"]["widened"] is True
    assert meta["epochs_before"] == 5
