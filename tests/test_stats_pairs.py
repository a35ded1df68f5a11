"""Statistics of pairs, held against exhaustive counting and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pibench.records import pairs, power, stats
from pibench.run.ab import SESSIONS


def side_by_side(
    seed: int, sessions: int, ratio: float = 1.0, between: float = 0.0, within: float = 0.1, n: int = 23
) -> tuple[list[list[float]], list[list[float]]]:
    """Return both sides of pairs whose ratios scatter by `between`, under a machine that drifts by 30 %."""
    rng = np.random.default_rng(seed)
    base, head = [], []
    for drift in np.exp(rng.normal(0, 0.3, sessions)):
        base.append(list(drift * np.exp(rng.normal(0, within / math.sqrt(2), n))))
        own = ratio * drift * math.exp(rng.normal(0, between))
        head.append(list(own * np.exp(rng.normal(0, within / math.sqrt(2), n))))
    return base, head


def test_pairs_see_through_drift_that_hides_a_slowdown_from_independent_samples() -> None:
    base, head = side_by_side(0, 12, 1.03, within=0.014, n=10)
    paired, independent = pairs.paired_ratio(base, head), stats.ratio_of_medians(base, head)
    assert 1.015 < paired.low < 1.03 < paired.high < 1.045
    assert independent.low < 1.0 < independent.high
    assert stats.signed_rank_exact(list(pairs.log_ratios(base, head))).p == pytest.approx(2 / 2**12)


@pytest.mark.parametrize("n", [6, 8, 11])
def test_the_interval_holds_the_shifts_that_the_test_does_not_refuse(n: int) -> None:
    values = np.random.default_rng(n).normal(0.02, 0.02, n)
    sessions = [[1.0]] * n, [[math.exp(v)] for v in values]
    found = pairs.paired_ratio(*sessions)
    grid = [shift for shift in np.linspace(-0.1, 0.15, 2501) if stats.signed_rank_exact(list(values - shift)).p > 0.05]
    assert math.log(found.low) == pytest.approx(min(grid), abs=2e-4)
    assert math.log(found.high) == pytest.approx(max(grid), abs=2e-4)
    by_hand = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2)]
    assert math.log(found.point) == pytest.approx(float(np.median(by_hand)))


def test_a_stopped_process_or_a_lost_pair_moves_little() -> None:
    base, head = side_by_side(1, 24, within=0.02)
    before = pairs.paired_ratio(base, head)
    head[3] = [10 * value for value in head[3]]
    for session in base:
        session[5] *= 100
    after = pairs.paired_ratio(base, head)
    assert after.point == pytest.approx(before.point, abs=0.004)


def test_few_pairs_have_an_interval_that_rests_on_their_inferences() -> None:
    base, head = side_by_side(2, 3, 1.1)
    found = pairs.paired_ratio(base, head)
    assert found.n_sessions == 3
    assert 1.0 < found.low < found.point < found.high < 1.2
    assert found == pairs.paired_ratio(base, head)


def test_nothing_is_not_a_number() -> None:
    assert math.isnan(pairs.paired_ratio([[]], [[1.0]]).point)


def test_the_middle_mean_is_a_median_of_few_and_a_mean_of_many() -> None:
    assert pairs.middle_mean(np.array([5.0])) == 5.0
    assert pairs.middle_mean(np.array([1.0, 2.0])) == 1.5
    assert pairs.middle_mean(np.array([9.0, 1.0, 2.0])) == 2.0
    assert pairs.middle_mean(np.array([1.0, 2.0, 4.0, 99.0])) == 3.0
    assert pairs.middle_mean(np.arange(10.0)) == 4.5


def called_slower(base: list[list[float]], head: list[list[float]], rule: power.Rule) -> bool:
    """Whether the rule calls it a regression."""
    p = stats.signed_rank_exact(list(pairs.log_ratios(base, head))).p
    return p < rule.alpha and pairs.paired_ratio(base, head).low > 1 + rule.tolerance


@pytest.mark.parametrize(("ratio", "low", "high"), [(1.0, 0, 1), (1.03, 97, 100)])
def test_the_default_number_of_pairs_finds_3_percent_and_invents_nothing(ratio: float, low: int, high: int) -> None:
    """Noise as measured on a busy machine: 10 % between neighbouring inferences, 25 of them a session."""
    found = sum(called_slower(*side_by_side(seed, SESSIONS, ratio), power.Rule()) for seed in range(100))
    assert low <= found <= high


def test_power_of_pairs_is_what_a_simulation_finds() -> None:
    rule, n, spread, found = power.Rule(), 12, 0.03, 0
    effect = power.sees(spread, n, rule, rule.alpha, paired=True)
    for seed in range(100):
        base, head = side_by_side(seed, n, 1 + effect, between=spread, within=1e-6, n=3)
        found += called_slower(base, head, rule)
    assert 80 <= found <= 99  # promised: 90
