"""Intervals and tests by user, against slow loops, textbook formulas and simulations without an effect."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recbole_lsvcr.benchmark import statistics
from recbole_lsvcr.benchmark.statistics import (
    ByUser,
    average_seeds,
    clustered_interval,
    clustered_intervals,
    clustered_p,
    compare_pairs,
    holm,
    mean_std,
    pair,
)
from recbole_lsvcr.errors import EvaluationError

P_VALUES = st.lists(st.none() | st.floats(0, 1), max_size=12)


def _clustered(seed: int, users: int = 25, between: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Values and users of 1 to 12 instances a user; a user's values share a part of deviation `between`; mean 0."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.integers(1, 13, users))
    return rng.normal(0, between, users)[user] + rng.normal(size=len(user)), user


def _frame(values: np.ndarray, users: np.ndarray, seed: int = 0) -> pl.DataFrame:
    order = np.random.default_rng(seed).permutation(len(values))
    columns = {"row": np.arange(len(values)), "user": [f"u{user}" for user in users], "ndcg@10": values}
    return pl.DataFrame(columns).with_columns(odd=pl.col("row") % 2 == 1)[order]


def test_mean_and_deviation_over_seeds() -> None:
    assert mean_std([]) == (None, None)
    assert mean_std([0.25]) == (0.25, None)
    assert mean_std([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, np.sqrt(7 / 3)))


def test_the_bootstrap_is_a_loop_over_the_same_draws() -> None:
    values, users = _clustered(1)
    rng, resamples, means = np.random.default_rng(5), 700, []
    for size in (500, 200):
        for times in rng.multinomial(25, np.full(25, 1 / 25), size=size):
            drawn = [values[users == user] for user in range(25) for _ in range(times[user])]
            means.append(np.concatenate(drawn).mean())
    tail = stats.norm.cdf(stats.t.ppf(0.025, 24) / np.sqrt(24 / 25))
    assert 0.015 < tail < 0.020
    slow = np.quantile(means, [tail, 1 - tail])
    np.testing.assert_allclose(clustered_interval(values, users, resamples=resamples, seed=5), slow, atol=1e-12)


def test_the_interval_of_many_users_is_that_of_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(1500), rng.integers(1, 13, 1500))
    values = (rng.lognormal(size=1500) - 1)[users] * (
        rng.random(len(users)) < 0.2
    )  # most 0, the others far to one side
    part = ByUser.of(values, users)
    drawn = clustered_intervals([part])[0]
    monkeypatch.setattr(statistics, "MANY_USERS", 1499)
    monkeypatch.setattr(statistics, "_resampled", None)
    np.testing.assert_allclose(clustered_intervals([part])[0], drawn, atol=0.04 * (drawn[1] - drawn[0]))


def test_intervals_made_together_are_those_made_alone() -> None:
    parts = [ByUser.of(*_clustered(seed, users)) for seed, users in ((1, 25), (2, 7), (3, 25), (4, 1), (5, 7))]
    parts.append(ByUser(parts[0].sums * 2, parts[0].counts))  # the counts in common, as those of a protocol's metrics
    alone = [clustered_intervals([part], resamples=900)[0] for part in parts]
    np.testing.assert_allclose(clustered_intervals(parts, resamples=900), alone, atol=1e-12)
    assert clustered_intervals([]) == []


def test_t_is_the_textbook_formula() -> None:
    values, users = _clustered(2)
    n, groups = len(values), sorted(set(users))
    mean = sum(values) / n
    meat = 0.0
    for group in groups:
        residuals = [value - mean for value, user in zip(values, users, strict=True) if user == group]
        meat += sum(a * b for a, b in itertools.product(residuals, residuals))
    factor = len(groups) / (len(groups) - 1) * (n - 1) / (n - 1)  # CR1: G/(G-1) (N-1)/(N-K), K = 1
    t = mean / np.sqrt(factor * meat / n**2)
    slow = 2 * stats.t.cdf(-abs(t), len(groups) - 1)
    assert clustered_p(ByUser.of(values, users)) == pytest.approx(slow, rel=1e-10)


@settings(deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=30).filter(lambda values: len(set(values)) > 1))
def test_t_of_one_instance_a_user_is_the_one_sample_t(values: list[int]) -> None:
    numbers = np.array(values) / 1000
    assert clustered_p(ByUser.of(numbers, np.arange(len(numbers)))) == pytest.approx(
        stats.ttest_1samp(numbers, 0).pvalue, rel=1e-8, abs=1e-300
    )


@pytest.mark.parametrize(
    ("values", "users", "p"),
    [
        ([0.1, 0.4], [0, 0], None),  # one user
        ([0.0, 0.0, 0.0], [0, 0, 1], 1.0),  # nowhere a difference
        ([0.1] * 4, [0, 0, 0, 1], 0.0),  # everywhere the same, but 0.1 + 0.1 + 0.1 is not 0.3
        ([0.3, -0.2, -0.1] * 5 + [0.6, -0.4, -0.2], list(np.repeat(range(6), 3)), 1.0),  # sums of 0 that are 3e-17
        ([0.5, -0.5], [0, 1], 1.0),
    ],
)
def test_degenerate_tests(values: list[float], users: list[int], p: float | None) -> None:
    assert clustered_p(ByUser.of(np.array(values), np.array(users))) == p


def test_p_is_near_that_of_flipping_the_signs_of_whole_users() -> None:
    """Under no difference a user's differences are as likely with the opposite sign: a test without the t's formula."""
    for seed, shift in ((1, 0.0), (2, 0.3), (3, 0.6), (4, 0.8)):
        values, users = _clustered(seed, users=60)
        part = ByUser.of(values + shift, users)
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (20_000, 60))
        flipped = abs(signs @ part.sums) >= abs(part.sums.sum()) - 1e-12
        assert clustered_p(part) == pytest.approx((flipped.sum() + 1) / 20_001, abs=0.02)


def test_interval_and_test_hold_their_level_where_instances_of_a_user_hang_together() -> None:
    simulations, missed, rejected, naive = 400, 0, 0, 0
    for seed in range(simulations):
        values, users = _clustered(1000 + seed, users=40)
        low, high = clustered_interval(values, users, resamples=500)
        missed += not low <= 0 <= high
        p = clustered_p(ByUser.of(values, users))
        assert p is not None
        rejected += p < 0.05
        naive += stats.ttest_1samp(values, 0).pvalue < 0.05
    assert 0.03 <= rejected / simulations <= 0.08
    assert 0.03 <= missed / simulations <= 0.08
    assert naive / simulations > 0.25  # as if every instance were another user


@pytest.mark.parametrize("users", [2, 4, 10, 20])
def test_the_interval_of_few_users_holds_its_level(users: int) -> None:
    assert 0.035 <= _missed(users) <= 0.065


def test_plain_quantiles_of_few_users_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_lsvcr.benchmark.statistics._tail", lambda users: 0.025)
    assert 0.065 < _missed(20) <= 0.085  # docs/decisions.md: 7 %


def _missed(users: int) -> float:
    """The share of 2000 samples of this many users whose interval leaves the truth out."""
    sums = np.random.default_rng(users).normal(size=(2000, users))
    bounds = np.array(clustered_intervals([ByUser(row, np.ones(users, int)) for row in sums], resamples=4000))
    return float(np.mean((bounds[:, 0] > 0) | (bounds[:, 1] < 0)))


@settings(deadline=None)
@given(P_VALUES)
def test_holm_is_the_procedure_step_by_step(values: list[float | None]) -> None:
    found = holm(values)
    known = [value for value in values if value is not None]
    assert [value is None for value in values] == [value is None for value in found]
    for level in (0.01, 0.05, 0.5):
        rejected: set[int] = set()
        rest = [place for place, value in enumerate(values) if value is not None]
        while rest:
            place = min(rest, key=lambda one: (values[one], one))
            if min(1.0, (len(known) - len(rejected)) * (values[place] or 0.0)) > level:
                break
            rejected.add(place)
            rest.remove(place)
        assert rejected == {place for place, value in enumerate(found) if value is not None and value <= level}


def test_holm_by_a_known_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([0.0, 0.05]) == [0.0, 0.05]


def test_holm_over_all_corrects_for_picking_the_best() -> None:
    picked, corrected = 0, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        ours = rng.normal(size=50)
        values = [clustered_p(ByUser.of(ours - rng.normal(size=50), np.arange(50))) for _ in range(10)]
        known = [value for value in values if value is not None]
        picked += min(known) < 0.05
        corrected += min(value for value in holm(known) if value is not None) < 0.05
    assert picked / 300 > 0.15 and corrected / 300 <= 0.07


def test_arms_of_different_numbers_of_seeds_in_any_order() -> None:
    users = np.repeat([0, 1, 2], [5, 3, 4])
    rng = np.random.default_rng(0)
    ours, rule = rng.random((3, 12)), rng.random(12)
    found = []
    for order in (1, 2):
        arm = average_seeds({seed: _frame(ours[seed], users, order + seed) for seed in (2, 0, 1)}, ["ndcg@10"], ["odd"])
        other = average_seeds({2020: _frame(rule, users, order)}, ["ndcg@10"], ["odd"])
        found.append(compare_pairs([pair(arm, other, "ndcg@10"), pair(arm, other, "ndcg@10", "odd")]))
    assert found[0] == found[1]
    every, odd = found[0]
    assert every.mean == pytest.approx((ours.mean(axis=0) - rule).mean())
    assert every.relative == pytest.approx(every.mean / rule.mean())
    assert (every.instances, every.users, every.seeds) == (12, 3, (3, 1))
    assert (odd.instances, odd.mean) == (6, pytest.approx((ours.mean(axis=0) - rule)[1::2].mean()))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_swapping_the_arms_turns_the_sign(seed: int, users: int) -> None:
    values, user = _clustered(seed, users)
    arms = [average_seeds({1: _frame(one, user)}, ["ndcg@10"]) for one in (values, values[::-1].copy())]
    one, other = compare_pairs([pair(*arms, "ndcg@10"), pair(*arms[::-1], "ndcg@10")], resamples=200)
    assert one.mean == pytest.approx(-other.mean) and one.p == pytest.approx(other.p)
    assert (one.low, one.high) == (pytest.approx(-(other.high or 0)), pytest.approx(-(other.low or 0)))


def test_one_user_has_a_difference_and_no_interval() -> None:
    arms = [average_seeds({1: _frame(np.full(3, value), np.zeros(3, int))}, ["ndcg@10"]) for value in (0.5, 0.0)]
    (found,) = compare_pairs([pair(*arms, "ndcg@10")])
    assert (found.mean, found.low, found.high, found.p, found.relative) == (0.5, None, None, None, None)


def test_different_instances_are_refused() -> None:
    users = np.arange(4) // 2
    base = _frame(np.zeros(4), users)
    arm = average_seeds({1: base}, ["ndcg@10"], ["odd"])
    others = [base[:3], base.with_columns(row=pl.col("row") + 1), base.with_columns(user=pl.lit("u0"))]
    for frame in others:
        with pytest.raises(EvaluationError, match="rank different instances"):
            pair(arm, average_seeds({1: frame}, ["ndcg@10"], ["odd"]), "ndcg@10")
        with pytest.raises(EvaluationError, match="seeds 1 and 2 of an arm rank different instances"):
            average_seeds({2: frame, 1: base}, ["ndcg@10"], ["odd"])
    elsewhere = average_seeds({1: base.with_columns(odd=~pl.col("odd"))}, ["ndcg@10"], ["odd"])
    with pytest.raises(EvaluationError, match="slice odd"):
        pair(arm, elsewhere, "ndcg@10", "odd")
    with pytest.raises(EvaluationError, match="slice unknown has no instances"):
        pair(arm, arm, "ndcg@10", "unknown")
    with pytest.raises(EvaluationError, match="ranked twice"):
        average_seeds({1: pl.concat([base, base])}, ["ndcg@10"])
