"""The parts of reduction that need no training: criticality, steps, equalization, families, frontier."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from pibench.errors import UsageError
from pibench.lowering.lower import lower
from pibench.networks.build import skeleton, stage_of
from pibench.networks.card import load_card
from pibench.networks.census import Census, census
from pibench.networks.spec import AnyNetwork, MiniOnnSpec, ResNetSpec, VggSpec, WideResNetSpec
from pibench.reduction import equalize, families, steps
from pibench.reduction.counting import stage_relus
from pibench.reduction.criticality import criticality, order
from pibench.reduction.pareto import best_within, frontier

RESNET18 = ResNetSpec(family="resnet", classes=100, input=[3, 32, 32])
RESNET56 = ResNetSpec(
    family="resnet", base_width=16, multipliers=[2, 2], blocks=[9, 9, 9], shortcut="pad", classes=100, input=[3, 32, 32]
)
RESNET34_ANSWERS = """11,3,2 8,3,3 6,3,4 5,3,5 4,3,6 4,3,7 9,4,2 6,4,3 5,4,4 4,4,5 7,5,2 5,5,3 4,5,4 6,6,2 4,6,3 5,7,2
4,7,3 5,8,2 4,9,2 4,10,2"""


def count(spec: AnyNetwork) -> Census:
    """Count a network without weights."""
    return census(lower(skeleton(spec), spec.input_shape, stage_of)[0])


def test_criticality_is_zero_for_the_worst_stage_and_falls_with_the_count() -> None:
    scores = criticality({1: 60.0, 2: 70.0, 3: 70.0}, {1: 327680, 2: 131072, 3: 65536})
    assert scores[1] == 0
    assert scores[3] > scores[2] > 0
    assert scores[2] == pytest.approx(10 / 131072**0.07)


def test_exponent_and_reference_are_parameters() -> None:
    scores = criticality({1: 60.0, 2: 70.0}, {1: 100, 2: 10}, exponent=1.0, reference=50.0)
    assert scores == {1: pytest.approx(0.1), 2: pytest.approx(2.0)}


def test_order_puts_the_larger_of_two_equal_stages_last() -> None:
    assert order({1: 0.0, 2: 0.0, 3: 1.0}, {1: 10, 2: 20, 3: 5}) == [3, 1, 2]


def test_solver_gives_the_four_names_of_the_paper() -> None:
    assert set(equalize.solve((3, 2, 4, 1), (2, 2, 2, 2))) == {(5, 5, 3), (5, 7, 2), (6, 6, 2), (7, 5, 2)}


def test_solver_gives_every_answer_for_resnet34() -> None:
    answers = {tuple(int(n) for n in word.split(",")) for word in RESNET34_ANSWERS.split()}
    assert set(equalize.solve((3, 2, 4, 1), (3, 4, 6, 3))) == answers


def aligned(order: Sequence[int], blocks: Sequence[int], multipliers: Sequence[int]) -> bool:
    """Return whether the stages' counts fall strictly in the order of criticality."""
    counts = equalize.shares(blocks, multipliers)
    return all(counts[more - 1] > counts[less - 1] for more, less in pairwise(order))


@pytest.mark.parametrize("stages", [(3, 2, 4, 1), (4, 3, 2, 1), (1, 2, 3, 4), (2, 1, 3, 4), (2, 3, 1), (1, 2)])
def test_solutions_are_aligned_and_their_first_multiplier_is_the_smallest(stages: tuple[int, ...]) -> None:
    blocks = (2,) * len(stages)
    solutions = equalize.solve(stages, blocks, largest=6)
    tails = {solution[1:]: solution[0] for solution in solutions}
    assert len(tails) == len(solutions)
    for first in range(2, 40):
        for tail in [(a, b)[: len(stages) - 2] for a in range(2, 7) for b in range(2, 7)]:
            fits = aligned(stages, blocks, (first, *tail))
            assert not fits or tails[tail] <= first
            assert fits or tails.get(tail) != first


def test_solver_refuses_an_order_that_misses_a_stage() -> None:
    with pytest.raises(UsageError, match="does not name each of 4 stages"):
        equalize.solve((3, 2, 1), (2, 2, 2, 2))


@pytest.mark.parametrize(
    ("width", "relus", "macs"),
    [(16, 139_264, 35.1), (32, 278_528, 139.3), (64, 557_056, 555.5), (128, 1_114_112, 2218), (256, 2_228_224, 8866)],
)
def test_basech_counts(width: int, relus: int, macs: float) -> None:
    found = count(families.basech(RESNET18, width))
    assert found.relu_count == relus
    assert found.macs / 1e6 == pytest.approx(macs, rel=2e-3)


@pytest.mark.parametrize(
    ("multiplier", "relus", "macs"),
    [(3, 195_584, 159), (4, 278_528, 660), (5, 394_240, 2211), (6, 548_864, 6165), (8, 999_424, 32_358)],
)
def test_stagech_counts(multiplier: int, relus: int, macs: float) -> None:
    found = count(families.stagech(RESNET18, multiplier))
    assert found.relu_count == relus
    assert found.macs / 1e6 == pytest.approx(macs, rel=4e-3)


@pytest.mark.parametrize(
    ("multipliers", "width", "relus", "macs"),
    [
        ((5, 5, 3), 16, 343_040, 1053),
        ((5, 7, 2), 16, 378_880, 1270),
        ((6, 6, 2), 16, 401_408, 1366),
        ((7, 5, 2), 16, 411_648, 1326),
        ((4, 5, 3), 16, 290_816, 678),
        ((3, 5, 3), 16, 238_592, 386),
        ((2, 5, 3), 16, 186_368, 178),
        ((2, 5, 3), 32, 372_736, 710),
        ((2, 6, 2), 32, 376_832, 645),
        ((2, 7, 2), 32, 401_408, 849),
        ((5, 5, 3), 8, 171_520, 264),
        ((7, 5, 2), 8, 205_824, 332),
    ],
)
def test_hybrenet_counts(multipliers: tuple[int, ...], width: int, relus: int, macs: float) -> None:
    found = count(families.hybrenet(RESNET18, multipliers, width))
    assert found.relu_count == relus
    assert found.macs / 1e6 == pytest.approx(macs, rel=3e-3)


@pytest.mark.parametrize(
    ("multipliers", "width", "culled", "thinned"),
    [((5, 5, 3), 16, 261_120, 130_560), ((7, 5, 2), 16, 329_728, 164_864), ((2, 5, 3), 32, 208_896, 104_448)],
)
def test_coarse_steps_on_hybrenets(multipliers: tuple[int, ...], width: int, culled: int, thinned: int) -> None:
    spec = steps.cull(families.hybrenet(RESNET18, multipliers, width), [1])
    assert (count(spec).relu_count, count(steps.thin(spec)).relu_count) == (culled, thinned)


def test_the_deepreduce_ladder_follows_from_the_steps() -> None:
    culled = steps.cull(RESNET18, [1])
    thinned = steps.thin(culled)
    ladder = [culled, steps.cull(culled, [4]), thinned, steps.reshape(thinned, 0.5)]
    ladder += [steps.reshape(thinned, 1, 0.5), steps.reshape(steps.cull(thinned, [4]), 0.5, 0.5)]
    assert [count(spec).relu_count for spec in ladder] == [229_376, 196_608, 114_688, 57_344, 28_672, 12_288]
    assert ladder[-1] == load_card("drd-c100-12k").network


def test_culled_resnet56_of_the_poster() -> None:
    first, both = count(steps.cull(RESNET56, [1])), count(steps.cull(RESNET56, [1, 3]))
    assert (first.relu_count, both.relu_count) == (221_184, 147_456)
    assert (round(first.macs_merged / 1e6, 2), round(both.macs_merged / 1e6, 2)) == (87.74, 66.51)
    assert first.macs == both.macs == 125_491_456


def test_only_keeps_one_stage() -> None:
    kept = [{s: n for s, n in count(steps.only(RESNET18, k)).relus_by_stage.items() if n} for k in (1, 2)]
    assert kept == [{"stem": 65_536, "S1": 262_144}, {"S2": 131_072}]


def test_a_wide_network_loses_its_last_relu_with_its_last_stage() -> None:
    wide = WideResNetSpec(family="wideresnet", classes=100, input=[3, 32, 32])
    assert count(steps.cull(wide, [1, 2, 3])).relu_count == 0
    assert count(steps.only(wide, 3)).relus_by_stage["head"] > 0


def test_a_vggs_hidden_layers_are_culled_and_thinned_with_its_last_group() -> None:
    vgg = VggSpec.model_validate({"family": "vgg", "classes": 100, "input": [3, 32, 32], "hidden": [64, 32]})
    for stage, relus in stage_relus(vgg, 5).items():
        assert count(steps.only(vgg, stage)).relu_count == relus
    assert count(steps.cull(vgg, [5])).relus_by_stage.get("head", 0) == 0
    assert count(steps.thin(vgg, "bottom")).relus_by_stage["head"] == 64
    assert count(steps.thin(vgg, "top")).relus_by_stage["head"] == 32


def test_what_cannot_be_culled_is_refused() -> None:
    with pytest.raises(UsageError, match="minionn"):
        steps.reducible(MiniOnnSpec(family="minionn", classes=10, input=[3, 32, 32]))
    with pytest.raises(UsageError, match="stride 8"):
        steps.reshape(RESNET18, 1, 1 / 8)


def test_frontier_drops_dominated_points_and_twins() -> None:
    points = [(10, 90.0), (20, 89.0), (20, 91.0), (30, 91.0), (5, 50.0), (10, 90.0)]
    assert frontier(points, lambda p: p[0], lambda p: p[1]) == [(5, 50.0), (10, 90.0), (20, 91.0)]


def test_best_within_a_budget() -> None:
    points = [(10, 90.0), (20, 91.0), (15, 90.0)]
    assert best_within(points, 15, lambda p: p[0], lambda p: p[1]) == (10, 90.0)
    assert best_within(points, 5, lambda p: p[0], lambda p: p[1]) is None
