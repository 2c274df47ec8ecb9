"""What the differences of two arms are worth: means over seeds, intervals and tests clustered by user, Holm.

A user's instances are no independent observations, so everything here is by user. Both the interval and the test speak
of other users drawn as these were; they say nothing of other seeds, which are averaged away first and whose spread
stands beside them (`mean_std`). Whoever picks the best of several baselines by the test data it is then compared on
has made as many comparisons as there are baselines: `holm` over all of them is what corrects for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from recbole_lsvcr.errors import EvaluationError
from recbole_lsvcr.evaluation.slices import ALL

RESAMPLES = 10_000
FEW_USERS = 10  # drawing fewer of them reaches no further than they do
MANY_USERS = 10_000  # drawing more of them so often takes minutes and finds what a formula says
ROUNDING = 1e-14  # metrics are at most 1: smaller means and standard errors are the rounding of sums
_AT_ONCE = 500  # resamples held in memory
_KEYS = ("row", "user")


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (ddof 1) of an arm's figures by seed; no deviation of fewer than two."""
    if not len(values):
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class ByUser:
    """A quantity of instances as its sums by user, all that the interval and the test need.

    Attributes:
        sums: float64[U], over the instances of each user. counts: int64[U], how many these are, at least 1.
    """

    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, users: np.ndarray) -> ByUser:
        """Of `values` float[I] and the user of each, `users` [I] of any sortable type."""
        _, user = np.unique(users, return_inverse=True)
        return cls(np.bincount(user, values), np.bincount(user))

    @property
    def mean(self) -> float:
        """Over instances, so that a user counts as often as he has instances."""
        return float(self.sums.sum() / self.counts.sum())


def clustered_intervals(
    parts: Sequence[ByUser], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[tuple[float, float]]:
    """The 95 % interval of each mean by drawing users anew, with replacement: quantiles of the resamples (`_tail`); of
    fewer than `FEW_USERS`, and of more than `MANY_USERS` (the same then), that of `clustered_p`'s t. One user has none:
    both bounds are his mean.

    How often each user is drawn follows from `seed` and the number of users alone: it is drawn once for all parts of as
    many users, which makes hundreds of comparisons cost little more than one.
    """
    found: list[tuple[float, float]] = [(0.0, 0.0)] * len(parts)
    by_users: dict[int, list[int]] = {}
    for place, part in enumerate(parts):
        users = len(part.counts)
        if users == 1:
            found[place] = part.mean, part.mean
        elif FEW_USERS <= users <= MANY_USERS:
            by_users.setdefault(users, []).append(place)
        else:
            reach = float(stats.t.ppf(0.975, users - 1)) * _standard_error(part)
            found[place] = part.mean - reach, part.mean + reach
    for users, places in by_users.items():
        means = _resampled([parts[place] for place in places], resamples, seed)
        bounds = np.quantile(means, [_tail(users), 1 - _tail(users)], axis=0)
        for place, low, high in zip(places, *bounds, strict=True):
            found[place] = (float(low), float(high))
    return found


def _tail(users: int) -> float:
    """The share of the resamples left out on each side: 2.5 % of many users' means, less of few users', whose resamples
    spread too little ("expanded percentile interval", Hesterberg, The American Statistician 69(4), 2015)."""
    return float(stats.norm.cdf(np.sqrt(users / (users - 1)) * stats.t.ppf(0.025, users - 1)))


def _resampled(parts: Sequence[ByUser], resamples: int, seed: int) -> np.ndarray:
    """float64[resamples, parts]: means of the parts, all of U users, in the resamples."""
    distinct: dict[bytes, int] = {}  # the comparisons of a protocol and slice have their counts in common
    column = [distinct.setdefault(part.counts.tobytes(), len(distinct)) for part in parts]
    sums = np.stack([part.sums for part in parts], axis=1)  # [U, parts]
    counts = np.stack([np.frombuffer(kept, parts[0].counts.dtype) for kept in distinct], axis=1).astype(float)
    rng, n = np.random.default_rng(seed), len(sums)
    means = []
    for start in range(0, resamples, _AT_ONCE):
        size = min(_AT_ONCE, resamples - start)
        times = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(float)  # [size, U] how often each is drawn
        means.append((times @ sums) / (times @ counts)[:, column])
    return np.concatenate(means)


def clustered_interval(
    values: np.ndarray, clusters: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """`clustered_intervals` of the mean of `values` float[I], whose users (or other clusters) are `clusters` [I]."""
    return clustered_intervals([ByUser.of(values, clusters)], resamples=resamples, seed=seed)[0]


def clustered_p(part: ByUser) -> float | None:
    """Two-sided p of "the mean over instances is 0", by the cluster-robust t: residuals are summed by user, the
    variance has the small-sample factor of CR1 (U / (U - 1) where only a mean is estimated), t has U - 1
    degrees of freedom.

    None for one user, of whom nothing follows for others. Where users do not differ at all, 1.0 for a mean of 0 and
    0.0 for any other.
    """
    users, mean = len(part.counts), part.mean
    if users < 2:
        return None
    error = _standard_error(part)
    if error <= ROUNDING:
        return 1.0 if abs(mean) <= ROUNDING else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, users - 1))


def _standard_error(part: ByUser) -> float:
    """That of the mean, by the formula that `clustered_p` tells."""
    users, residuals = len(part.counts), part.sums - part.mean * part.counts
    return float(np.sqrt(users / (users - 1) * np.sum(residuals**2)) / part.counts.sum())


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of a family's p values, in their order.

    The chance that any true hypothesis of the family is rejected at 5 % is at most 5 %, however the comparisons hang
    together, so it also holds for the one picked because it looked best. None (no test was possible) stays None and
    does not count.
    """
    known = sorted((value, place) for place, value in enumerate(values) if value is not None)
    found: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        found[place] = highest
    return found


@dataclass(frozen=True)
class Instances:
    """An arm's instances under one protocol, its metrics averaged over its seeds.

    Attributes:
        keys: `row` and `user` of each, in that order, no two alike. users: int64[I], the users numbered.
        metrics: name -> float64[I]. slices: name -> bool[I]. seeds: the seeds averaged.
    """

    keys: pl.DataFrame
    users: np.ndarray
    metrics: Mapping[str, np.ndarray]
    slices: Mapping[str, np.ndarray]
    seeds: tuple[int, ...]

    def inside(self, part: str) -> np.ndarray:
        """bool[I]: the instances of a slice, none of a slice that is not known."""
        every = np.ones(self.keys.height, bool)
        return every if part == ALL else self.slices.get(part, ~every)


def average_seeds(frames: Mapping[int, pl.DataFrame], metrics: Iterable[str], slices: Iterable[str] = ()) -> Instances:
    """The instances of an arm under one protocol, seed -> frame with columns `row`, `user`, metrics and slices.

    Raises:
        EvaluationError: two seeds have not the same instances or slices, or an instance stands there twice.
    """
    metrics, slices, seeds = tuple(metrics), tuple(slices), sorted(frames)
    ordered = [frames[seed].select(*_KEYS, *slices, *metrics).sort(_KEYS) for seed in seeds]
    same = ordered[0].select(*_KEYS, *slices)
    if same.select(_KEYS).is_duplicated().any():
        raise EvaluationError(
            f"an instance of seed {seeds[0]} is ranked twice under one protocol: compute its cell again"
        )
    for seed, frame in zip(seeds, ordered, strict=True):
        if not frame.select(same.columns).equals(same):
            raise EvaluationError(
                f"seeds {seeds[0]} and {seed} of an arm rank different instances ({same.height:,} and "
                f"{frame.height:,}): compute its cells anew, on one data set and split"
            )
    return Instances(
        keys=same.select(_KEYS),
        users=same["user"].rank("dense").to_numpy().astype(np.int64) - 1,
        metrics={name: np.mean([frame[name].to_numpy() for frame in ordered], axis=0) for name in metrics},
        slices={name: same[name].to_numpy() for name in slices},
        seeds=tuple(seeds),
    )


@dataclass(frozen=True)
class Pair:
    """Two arms on the same instances: the differences by user, the baseline's mean, how many seeds each averages."""

    difference: ByUser
    baseline: float
    seeds: tuple[int, int]


def pair(arm: Instances, baseline: Instances, metric: str, part: str = ALL) -> Pair:
    """`metric(arm) - metric(baseline)` of every instance of a slice; the arms may have different numbers of seeds.

    Raises:
        EvaluationError: the arms do not rank the same instances, or the slice has none.
    """
    inside = arm.inside(part)
    if not (arm.keys.equals(baseline.keys) and np.array_equal(inside, baseline.inside(part))):
        same = arm.keys.join(baseline.keys, on=_KEYS).height
        raise EvaluationError(
            f"two arms rank different instances ({arm.keys.height:,} and {baseline.keys.height:,}, {same:,} of them "
            f"the same, slice {part}): compare cells of one data set and split"
        )
    if not inside.any():
        raise EvaluationError(f"slice {part} has no instances: compare one that has")
    values = baseline.metrics[metric][inside]
    difference = ByUser.of(arm.metrics[metric][inside] - values, arm.users[inside])
    return Pair(difference, float(values.mean()), (len(arm.seeds), len(baseline.seeds)))


@dataclass(frozen=True)
class Compared:
    """The mean difference of a pair, its 95 % interval and p, clustered by user (None where there is one user).

    `relative`: the difference as a part of the baseline's mean, None where that is 0. `seeds`: of arm and baseline.
    """

    mean: float
    low: float | None
    high: float | None
    relative: float | None
    p: float | None
    instances: int
    users: int
    seeds: tuple[int, int]


def compare_pairs(pairs: Sequence[Pair], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Compared]:
    """Every pair with its interval and test; give all of them at once, for they share the bootstrap's draws."""
    bounds = clustered_intervals([one.difference for one in pairs], resamples=resamples, seed=seed)
    return [_compared(one, *bound) for one, bound in zip(pairs, bounds, strict=True)]


def _compared(one: Pair, low: float, high: float) -> Compared:
    mean, counts = one.difference.mean, one.difference.counts
    several = len(counts) > 1  # the bootstrap of one user is that user again: no interval
    return Compared(
        mean=mean,
        low=low if several else None,
        high=high if several else None,
        relative=mean / one.baseline if one.baseline else None,
        p=clustered_p(one.difference),
        instances=int(counts.sum()),
        users=len(counts),
        seeds=one.seeds,
    )
