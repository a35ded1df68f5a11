"""Golden counts: every ReLU and MAC figure that the published networks are known by."""

from __future__ import annotations

from functools import cache
from math import ceil, prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pibench.library import find_documents
from pibench.lowering.lower import lower
from pibench.networks.activations import MaskedReLU
from pibench.networks.build import build, replace, site_shapes, sites, skeleton, stage_of
from pibench.networks.card import load_card
from pibench.networks.census import Census, census
from pibench.networks.spec import AnyNetwork, ResNetSpec, VggSpec


@cache
def of_card(name: str) -> Census:
    return of_spec(load_card(name).network)


def of_spec(spec: AnyNetwork) -> Census:
    return census(lower(skeleton(spec), spec.input_shape, stage_of)[0])


def resnet(**fields: Any) -> ResNetSpec:
    return ResNetSpec.model_validate({"family": "resnet", "classes": 100, "input": [3, 32, 32], **fields})


@pytest.mark.parametrize("path", find_documents("networks"), ids=lambda path: path.stem)
def test_each_card_states_its_own_count(path: Path) -> None:
    card = load_card(path)
    module = skeleton(card.network)
    shapes = site_shapes(module, card.network.input_shape)
    relus = {name for name, site in sites(module).items() if isinstance(site, nn.ReLU)}
    if card.network.activation != "masked":
        assert sum(prod(shapes[name]) for name in relus) == card.relu_count


@pytest.mark.parametrize(
    ("card", "relus", "rounds", "by_stage"),
    [
        ("resnet18-c100", 557_056, 17, [65_536, 262_144, 131_072, 65_536, 32_768, 0]),
        ("resnet18-tiny", 2_228_224, 17, [262_144, 1_048_576, 524_288, 262_144, 131_072, 0]),
        ("resnet18-c100-nostem", 491_520, 16, [0, 262_144, 131_072, 65_536, 32_768, 0]),
        ("resnet18-tiny-nostem", 1_966_080, 16, None),
        ("resnet18-tiny-stride2", 557_056, 17, None),
        ("resnet9-c100", 311_296, 9, [65_536, 131_072, 65_536, 32_768, 16_384, 0]),
        ("shallow-4-c100", 122_880, 4, [0, 65_536, 32_768, 16_384, 8_192, 0]),
        ("shallow-3-c100", 57_344, 3, [0, 0, 32_768, 16_384, 8_192, 0]),
        ("shallow-3-half-c100", 28_672, 3, [0, 0, 16_384, 8_192, 4_096, 0]),
        ("resnet34-c100", 966_656, 33, None),
        ("resnet50-imagenet", 9_608_704, 49, [802_816, 3_612_672, 2_709_504, 1_956_864, 526_848, 0]),
        ("resnet20-c10", 188_416, 19, None),
        ("resnet32-c100", 303_104, 31, [16_384, 163_840, 81_920, 40_960, 0]),
        ("resnet56-c100", 532_480, 55, [16_384, 294_912, 147_456, 73_728, 0]),
        ("drd-resnet56-c10-221k", 221_184, 36, [0, 0, 147_456, 73_728, 0]),
        ("drd-resnet56-c10-147k", 147_456, 18, [0, 0, 147_456, 0, 0]),
        ("drd-c100-230k", 229_376, 12, [0, 0, 131_072, 65_536, 32_768, 0]),
        ("drd-c100-197k", 196_608, 8, [0, 0, 131_072, 65_536, 0, 0]),
        ("drd-c100-115k", 114_688, 6, [0, 0, 65_536, 32_768, 16_384, 0]),
        ("drd-c100-57k", 57_344, 6, [0, 0, 32_768, 16_384, 8_192, 0]),
        ("drd-c100-49k", 49_152, 4, [0, 0, 32_768, 16_384, 0, 0]),
        ("drd-c100-29k", 28_672, 6, [0, 0, 16_384, 8_192, 4_096, 0]),
        ("drd-c100-14k", 14_336, 6, [0, 0, 8_192, 4_096, 2_048, 0]),
        ("drd-c100-12k", 12_288, 4, [0, 0, 8_192, 4_096, 0, 0]),
        ("drd-c100-7k", 7_168, 3, [0, 0, 4_096, 2_048, 1_024, 0]),
        ("drd-tiny-918k", 917_504, 12, [0, 0, 524_288, 262_144, 131_072, 0]),
        ("drd-tiny-459k", 458_752, 6, [0, 0, 262_144, 131_072, 65_536, 0]),
        ("drd-tiny-393k", 393_216, 8, [0, 0, 0, 262_144, 131_072, 0]),
        ("drd-tiny-229k", 229_376, 6, [0, 0, 131_072, 65_536, 32_768, 0]),
        ("drd-tiny-197k", 196_608, 4, [0, 0, 0, 131_072, 65_536, 0]),
        ("drd-tiny-115k", 114_688, 6, [0, 0, 65_536, 32_768, 16_384, 0]),
        ("drd-tiny-98k", 98_304, 4, [0, 0, 0, 65_536, 32_768, 0]),
        ("drd-tiny-57k", 57_344, 6, [0, 0, 32_768, 16_384, 8_192, 0]),
        ("drd-tiny-49k", 49_152, 4, [0, 0, 0, 32_768, 16_384, 0]),
        ("drd-tiny-25k", 24_576, 4, [0, 0, 0, 16_384, 8_192, 0]),
        ("vgg16-c100", 276_480, 13, [131_072, 65_536, 49_152, 24_576, 6_144, 0]),
        ("vgg16-c100-fc4096", 284_672, 15, [131_072, 65_536, 49_152, 24_576, 6_144, 8_192]),
        ("mobilenet-c100", 411_648, 27, [32_768, 98_304, 114_688, 57_344, 94_208, 14_336, 0]),
        ("wrn22-8-c100", 1_359_872, 18, [0, 671_744, 458_752, 229_376, 0]),
        ("wrn22-8-c100-final", 1_392_640, 19, [0, 671_744, 458_752, 229_376, 32_768]),
        ("minionn-c10", 173_056, 7, None),
        ("hrn-553-c100", 343_040, 17, [16_384, 65_536, 81_920, 102_400, 76_800, 0]),
        ("hrn-572-c100", 378_880, 17, [16_384, 65_536, 81_920, 143_360, 71_680, 0]),
        ("hrn-662-c100", 401_408, 17, [16_384, 65_536, 98_304, 147_456, 73_728, 0]),
        ("hrn-752-c100", 411_648, 17, [16_384, 65_536, 114_688, 143_360, 71_680, 0]),
        ("hrn-453-c100", 290_816, 17, [16_384, 65_536, 65_536, 81_920, 61_440, 0]),
        ("hrn-353-c100", 238_592, 17, [16_384, 65_536, 49_152, 61_440, 46_080, 0]),
        ("hrn-253-m16-c100", 186_368, 17, [16_384, 65_536, 32_768, 40_960, 30_720, 0]),
        ("hrn-253-c100", 372_736, 17, [32_768, 131_072, 65_536, 81_920, 61_440, 0]),
        ("hrn-262-c100", 376_832, 17, [32_768, 131_072, 65_536, 98_304, 49_152, 0]),
        ("hrn-272-c100", 401_408, 17, [32_768, 131_072, 65_536, 114_688, 57_344, 0]),
        ("hrn-553-m8-c100", 171_520, 17, None),
        ("hrn-572-m8-c100", 189_440, 17, None),
        ("hrn-662-m8-c100", 200_704, 17, None),
        ("hrn-752-m8-c100", 205_824, 17, None),
        ("hrn-553-culled-c100", 261_120, 12, None),
        ("hrn-553-thinned-c100", 130_560, 6, None),
        ("hrn-572-culled-c100", 296_960, 12, None),
        ("hrn-572-thinned-c100", 148_480, 6, None),
        ("hrn-662-culled-c100", 319_488, 12, None),
        ("hrn-662-thinned-c100", 159_744, 6, None),
        ("hrn-752-culled-c100", 329_728, 12, [0, 0, 114_688, 143_360, 71_680, 0]),
        ("hrn-752-thinned-c100", 164_864, 6, None),
        ("hrn-453-culled-c100", 208_896, 12, None),
        ("hrn-453-thinned-c100", 104_448, 6, None),
        ("hrn-253-culled-c100", 208_896, 12, None),
        ("hrn-253-thinned-c100", 104_448, 6, None),
        ("hrn-553-tiny", 4 * 343_040, 17, None),
        ("hrn-572-tiny", 4 * 378_880, 17, None),
        ("hrn-662-tiny", 4 * 401_408, 17, None),
        ("hrn-752-tiny", 4 * 411_648, 17, None),
        ("hrn-253-tiny", 4 * 372_736, 17, None),
        ("basech-16-c100", 139_264, 17, None),
        ("basech-32-c100", 278_528, 17, None),
        ("basech-128-c100", 1_114_112, 17, None),
        ("basech-256-c100", 2_228_224, 17, None),
        ("stagech-3-c100", 195_584, 17, None),
        ("stagech-4-c100", 278_528, 17, None),
        ("stagech-5-c100", 394_240, 17, None),
        ("stagech-6-c100", 548_864, 17, None),
        ("stagech-7-c100", 748_544, 17, None),
        ("stagech-8-c100", 999_424, 17, None),
        ("vgg16-tiny", 1_105_920, 13, None),
        ("vgg16-tiny-fc4096", 1_114_112, 15, None),
        ("resnet110-c10", 1_048_576, 109, None),
        ("mobilenet-tiny", 1_646_592, 27, None),
        ("resnet34-tiny", 3_866_624, 33, None),
        ("wrn22-8-tiny", 5_439_488, 18, None),
        ("wrn22-8-tiny-final", 5_570_560, 19, None),
    ],
)
def test_relus_by_stage_and_rounds(card: str, relus: int, rounds: int, by_stage: list[int] | None) -> None:
    found = of_card(card)
    assert (found.relu_count, found.relu_rounds) == (relus, rounds)
    if by_stage is not None:
        assert list(found.relus_by_stage.values()) == by_stage


@pytest.mark.parametrize(
    ("card", "millions", "digits"),
    [
        ("drd-c100-230k", 555.5, 1),
        ("drd-c100-197k", 555.5, 1),
        ("drd-c100-115k", 555.5, 1),
        ("drd-c100-57k", 139.3, 1),
        ("drd-c100-49k", 139.3, 1),
        ("drd-c100-29k", 138.9, 1),
        ("drd-c100-14k", 34.8, 1),
        ("drd-c100-12k", 34.8, 1),
        ("drd-c100-7k", 20.7, 1),
        ("drd-tiny-918k", 2221.8, 1),
        ("drd-tiny-459k", 2221.8, 1),
        ("drd-tiny-393k", 2221.8, 1),
        ("drd-tiny-229k", 557.2, 1),
        ("drd-tiny-197k", 2221.8, 1),
        ("drd-tiny-115k", 555.5, 1),
        ("drd-tiny-98k", 557.2, 1),
        ("drd-tiny-57k", 139.3, 1),
        ("drd-tiny-49k", 555.5, 1),
        ("drd-tiny-25k", 139.3, 1),
        ("mobilenet-c100", 46.4, 1),
        ("resnet9-c100", 253.5, 1),
        ("wrn22-8-c100", 2454, 0),
        ("hrn-553-c100", 1053, 0),
        ("hrn-572-c100", 1270, 0),
        ("hrn-662-c100", 1366, 0),
        ("hrn-752-c100", 1326, 0),
        ("hrn-453-c100", 678, 0),
        ("hrn-353-c100", 386, 0),
        ("hrn-253-m16-c100", 178, 0),
        ("hrn-253-c100", 710, 0),
        ("hrn-262-c100", 645, 0),
        ("hrn-572-m8-c100", 318, 0),
        ("hrn-662-m8-c100", 342, 0),
        ("hrn-752-m8-c100", 332, 0),
        ("basech-16-c100", 35.1, 1),
        ("basech-32-c100", 139.3, 1),
        ("basech-128-c100", 2218, 0),
        ("basech-256-c100", 8866, 0),
        ("stagech-3-c100", 159, 0),
        ("stagech-4-c100", 660, 0),
        ("stagech-5-c100", 2211, 0),
        ("stagech-6-c100", 6165, 0),
        ("stagech-8-c100", 32_358, 0),
    ],
)
def test_macs_as_lowered(card: str, millions: float, digits: int) -> None:
    assert round(of_card(card).macs / 1e6, digits) == millions


@pytest.mark.parametrize(
    ("card", "macs", "quoted"),
    [
        ("hrn-272-c100", 848_485_888, 849),
        ("hrn-553-m8-c100", 263_478_880, 264),
        ("stagech-7-c100", 14_919_495_616, 14_920),
    ],
)
def test_macs_that_are_quoted_rounded_up(card: str, macs: int, quoted: int) -> None:
    assert of_card(card).macs == macs
    assert ceil(macs / 1e6) == quoted


@pytest.mark.parametrize(
    ("card", "millions", "digits"),
    [
        ("drd-c100-230k", 11.22, 2),
        ("drd-c100-57k", 2.82, 2),
        ("drd-c100-29k", 11.22, 2),
        ("drd-c100-12k", 2.82, 2),
        ("drd-c100-7k", 1.27, 2),
        ("hrn-553-c100", 48.7, 1),
        ("hrn-572-c100", 49.4, 1),
        ("hrn-662-c100", 52.4, 1),
        ("hrn-752-c100", 49.7, 1),
        ("hrn-453-c100", 31.2, 1),
        ("hrn-253-m16-c100", 7.8, 1),
        ("hrn-253-c100", 31.2, 1),
    ],
)
def test_parameters(card: str, millions: float, digits: int) -> None:
    batchnorms = sum(
        2 * m.num_features for m in skeleton(load_card(card).network).modules() if hasattr(m, "num_features")
    )
    biases = batchnorms // 2  # folding turns a factor and a shift a channel into one bias
    assert round((of_card(card).parameters - biases + batchnorms) / 1e6, digits) == millions


def test_macs_of_resnet18_exactly() -> None:
    found = of_card("resnet18-c100")
    assert found.macs == found.macs_merged == 555_468_800
    assert round(found.parameters / 1e6, 2) == 11.22


def test_merged_macs_are_those_of_the_poster() -> None:
    """DeepReDuce's comparison with channel pruning quotes 87.7M and 66.5M FLOPs."""
    assert of_card("resnet56-c100").macs == 125_491_456
    assert of_card("drd-resnet56-c100-221k").macs == 125_491_456
    assert of_card("drd-resnet56-c100-221k").macs_merged == 125_491_456 - 16 * 2_359_296  # 87.74M
    assert of_card("drd-resnet56-c100-147k").macs_merged == 125_491_456 - 25 * 2_359_296  # 66.51M
    assert f"{of_card('drd-resnet56-c10-221k').macs_merged / 1e6:.1f}" == "87.7"
    assert f"{of_card('drd-resnet56-c10-147k').macs_merged / 1e6:.1f}" == "66.5"


def test_merging_folds_the_shortcut_of_a_culled_block() -> None:
    found = of_card("drd-c100-197k")  # S4 culled: its first block has a 1x1 convolution in the shortcut
    away = {layer.site for layer in found.layers if layer.merged and layer.stage == "S4"}
    assert away == {"layer4.0.conv2", "layer4.0.shortcut.0", "layer4.1.conv2"}


def test_thinned_blocks_merge_only_without_a_relu_between() -> None:
    assert of_spec(resnet(thinning="bottom")).macs_merged == 555_468_800
    top = of_spec(resnet(thinning="top"))
    assert {layer.site for layer in top.layers if layer.merged} >= {"layer1.0.conv2", "layer2.0.shortcut.0"}


def test_depthwise_convolutions_are_not_merged() -> None:
    found = of_spec(load_card("mobilenet-c100").network.model_copy(update={"culled": [1, 2, 3, 4, 5]}))
    assert found.relu_count == 32_768
    assert found.macs_merged == found.macs


def test_torchvision_stem_shrinks_the_count() -> None:
    found = of_spec(resnet(stem_kernel=7, stem_stride=2, stem_pool=True))
    assert found.relu_count == 47_104
    assert found.maxpool_comparisons == 64 * 8 * 8 * 8


def test_max_pools_are_listed_and_not_counted() -> None:
    spec = VggSpec.model_validate({"family": "vgg", "classes": 10, "input": [3, 32, 32], "pool": "max"})
    found = of_spec(spec)
    assert found.relu_count == 276_480
    assert found.maxpool_comparisons == 3 * (64 * 256 + 128 * 64 + 256 * 16 + 512 * 4 + 512)


def test_masked_sites_count_what_they_keep() -> None:
    spec = resnet(base_width=8, blocks=[1, 1], multipliers=[2], input=[1, 8, 8], classes=10)
    module = build(spec)
    mask = MaskedReLU((8, 8, 8))
    mask.mask[1:] = False
    replace(module, "layer1.0.relu1", mask)
    found = census(lower(module, (1, 8, 8), stage_of)[0])
    assert found.relu_count == 512 + 64 + 512 + 256 + 256
    assert next(site for site in found.sites if site.site == "layer1.0.relu1").elements == 512


def test_polynomials_are_counted_apart() -> None:
    found = of_card("minionn-c10-poly")
    assert (found.relu_count, found.poly_count) == (0, 173_056)


def test_parts_add_up_and_travel_as_json() -> None:
    found = of_card("drd-c100-12k")
    data = found.to_json()
    assert sum(data["relus_by_stage"].values()) == data["relu_count"] == 12_288
    assert sum(data["macs_by_stage"].values()) == data["macs"]
    assert sum(data["macs_merged_by_stage"].values()) == data["macs_merged"]
    assert found.stages == ["stem", "S1", "S2", "S3", "S4", "head"]


def test_counting_needs_no_weights() -> None:
    module = skeleton(load_card("stagech-8-c100").network)
    assert all(tensor.is_meta for tensor in module.parameters())
    assert torch.empty(0).device.type == "cpu"
