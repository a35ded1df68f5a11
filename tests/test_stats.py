"""Statistics of sessions, held against exhaustive counting, closed forms and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pibench.records import power, stats
from pibench.records import warmup as samples
from pibench.records.prices import fit_price


def noisy(seed: int, sessions: int, n: int, centre: float = 1.0, between: float = 0.02) -> list[list[float]]:
    """Return sessions whose medians spread by `between`, and whose inferences spread by a quarter of it."""
    rng = np.random.default_rng(seed)
    return [list(centre * np.exp(rng.normal(rng.normal(0, between), between / 4, n))) for _ in range(sessions)]


def brute_force_mann_whitney(a: list[float], b: list[float]) -> float:
    """Return p by listing every way to deal the ranks."""
    ranks = stats.doubled_ranks([*a, *b])
    centre = len(a) * (len(a) + len(b) + 1)
    observed = abs(sum(ranks[: len(a)]) - centre)
    deals = list(itertools.combinations(range(len(ranks)), len(a)))
    return sum(abs(sum(ranks[i] for i in deal) - centre) >= observed for deal in deals) / len(deals)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]),
        ([1.0, 2.0, 2.0, 5.0], [2.0, 3.0, 9.0]),
        ([3.0], [1.0, 2.0]),
        ([1.0] * 3, [1.0] * 4),
    ],
)
def test_mann_whitney_counts_every_deal(a: list[float], b: list[float]) -> None:
    assert stats.mann_whitney_exact(a, b).p == pytest.approx(brute_force_mann_whitney(a, b))


def test_mann_whitney_agrees_with_scipy_where_scipy_is_exact() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    for n, m in ((5, 5), (8, 11), (20, 17)):
        a, b = list(rng.normal(0, 1, n)), list(rng.normal(0.7, 1, m))
        assert stats.mann_whitney_exact(a, b).p == pytest.approx(scipy_stats.mannwhitneyu(a, b, method="exact").pvalue)


def test_large_samples_take_the_normal_approximation_where_it_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    a, b = list(np.round(rng.normal(0, 1, 40), 1)), list(np.round(rng.normal(0.6, 1, 45), 1))
    exact = stats.mann_whitney_exact(a, b).p
    monkeypatch.setattr(stats, "EXACT_UP_TO", 10)
    assert stats.mann_whitney_exact(a, b).p == pytest.approx(exact, rel=0.1)
    assert stats.smallest_p_mann_whitney(5000, 5000) < 1e-200


def test_signed_rank_counts_every_sign() -> None:
    differences = [0.5, -0.25, 1.0, 2.0, 0.5, 3.0]
    ranks = stats.doubled_ranks(np.abs(differences))
    total, observed = int(ranks.sum()), sum(r for r, d in zip(ranks, differences, strict=True) if d > 0)
    sums = [sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=6)]
    p = sum(abs(s - total / 2) >= abs(observed - total / 2) for s in sums) / len(sums)
    assert stats.signed_rank_exact(differences).p == pytest.approx(p)


@pytest.mark.parametrize(("n", "p"), [(3, 0.10), (4, 0.0286), (5, 0.0079), (6, 0.0022), (8, 1.554e-4)])
def test_smallest_p_is_the_one_of_complete_separation(n: int, p: float) -> None:
    test = stats.mann_whitney_exact([float(i) for i in range(n)], [100.0 + i for i in range(n)])
    assert test.p == pytest.approx(test.smallest_p)
    assert test.smallest_p == pytest.approx(p, rel=0.02)


def test_holm_steps_down_and_never_decreases() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []
    assert stats.holm([0.9, 0.9]) == [1.0, 1.0]


def test_interval_is_reproducible_and_follows_sessions_not_inferences() -> None:
    sessions = noisy(1, sessions=8, n=20)
    first = stats.median_interval(sessions, seed=5)
    assert first == stats.median_interval(sessions, seed=5)
    assert first.low < first.point < first.high
    assert (first.n_sessions, first.n) == (8, 160)
    pooled = stats.median_interval([[x] for s in sessions for x in s], seed=5)  # the mistake: inferences as units
    assert pooled.high - pooled.low < (first.high - first.low) / 2


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(60):
        estimate = stats.median_interval(noisy(seed, sessions=15, n=5), seed=seed)
        hits += estimate.low <= 1.0 <= estimate.high
    assert 52 <= hits <= 60


def test_interval_of_nothing_is_not_a_number() -> None:
    empty = stats.median_interval([[], []])
    assert math.isnan(empty.point)
    assert empty.n == 0
    assert math.isnan(stats.ratio_of_medians([], [[1.0]]).point)


def test_ratio_finds_a_planted_slowdown() -> None:
    base, head = noisy(1, 12, 10), noisy(2, 12, 10, centre=1.10)
    ratio = stats.ratio_of_medians(base, head, seed=0)
    assert ratio.low < 1.10 < ratio.high
    assert ratio.low > 1.0


def test_price_of_1000_relus_and_its_interval() -> None:
    relus = [10_000.0, 20_000.0, 40_000.0, 80_000.0]
    fit = fit_price(relus, [0.5 + 0.002 * r / 1000 for r in relus])
    assert (fit.intercept_s, fit.slope_s, fit.r2) == pytest.approx((0.5, 0.002, 1.0))
    rough = fit_price(relus, [0.5, 0.58, 0.55, 0.70])
    assert rough.slope_interval[0] < rough.slope_s < rough.slope_interval[1]
    assert rough.r2 < 1.0


def test_price_agrees_with_scipy() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    relus, seconds = [1e4, 2e4, 4e4, 8e4, 9e4], [0.5, 0.58, 0.55, 0.70, 0.66]
    fit, line = fit_price(relus, seconds), scipy_stats.linregress(np.array(relus) / 1000, seconds)
    t = scipy_stats.t.ppf(0.975, 3)
    assert (fit.slope_s, fit.intercept_s, fit.r2) == pytest.approx((line.slope, line.intercept, line.rvalue**2))
    assert fit.slope_interval[1] - fit.slope_s == pytest.approx(t * line.stderr)
    assert fit.intercept_interval[1] - fit.intercept_s == pytest.approx(t * line.intercept_stderr)


def test_price_needs_two_budgets() -> None:
    assert math.isnan(fit_price([1000.0, 1000.0], [1.0, 2.0]).slope_s)
    assert math.isnan(fit_price([1000.0, 2000.0], [1.0, 2.0]).slope_interval[0])


def test_warmup_is_found_in_all_sessions_and_said() -> None:
    sessions = [[s[0] * 1.5, s[1] * 1.2, *s[2:]] for s in noisy(4, 5, 12)]
    assert samples.warmup_length(sessions) == 2
    kept, word = samples.without_warmup(sessions)
    assert [len(s) for s in kept] == [10] * 5
    assert word == "warm-up: first 2 inferences of every session excluded"


def test_steady_sessions_have_no_warmup() -> None:
    assert all(samples.warmup_length(noisy(seed, 5, 12)) == 0 for seed in range(40))
    assert samples.warmup_length([[9.0, 1.0, 1.0]]) == 0  # too short to tell


def test_one_slow_start_is_no_warmup() -> None:
    sessions = noisy(4, 5, 12)
    sessions[0][0] *= 3
    assert samples.warmup_length(sessions) == 0
    assert samples.outliers(sessions).high_severe == 1
    assert "1 far above" in samples.outliers(sessions).sentence()
    assert samples.outliers([[1.0] * 9]).sentence() == ""


def test_a_sample_too_small_to_fail_says_so() -> None:
    seen = power.power_of(0.01, 4, target=0.05, rule=power.Rule(), paired=False)
    assert math.isinf(seen.sees)  # 4 + 4: p cannot go below 0.029
    assert "no slowdown of any size" in seen.sentence()
    assert seen.sessions_needed >= 5


def test_power_is_what_a_simulation_finds() -> None:
    rule, n, spread, found = power.Rule(), 12, 0.03, 0
    effect = power.sees(spread, n, rule, rule.alpha, paired=False)
    for seed in range(60):
        base, head = noisy(seed, n, 5, between=spread), noisy(1000 + seed, n, 5, 1 + effect, between=spread)
        p = stats.mann_whitney_exact(list(stats.session_medians(base)), list(stats.session_medians(head))).p
        found += p < rule.alpha and stats.ratio_of_medians(base, head, seed).low > 1 + rule.tolerance
    assert 46 <= found <= 60  # promised: 54


def test_needed_sessions_grow_with_noise_and_with_tests() -> None:
    rule = power.Rule()
    quiet = power.power_of(0.01, 10, 0.05, rule, paired=True).sessions_needed
    loud = power.power_of(0.05, 10, 0.05, rule, paired=True).sessions_needed
    many = power.power_of(0.05, 10, 0.05, rule, paired=True, tests=5000).sessions_needed
    assert quiet < loud < many
