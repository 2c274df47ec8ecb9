"""What a portrait holds: every number of a data set, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HOUR, DAY = 3_600, 86_400
# A person does not have so many interactions of one kind within so many seconds …
FAST = ((30, 60), (300, HOUR))
# … nor `FAR_TIMES` as many as all but the busiest thousandth have (at least one is left out), if more than `FAR_LEAST`.
FAR_SHARE, FAR_TIMES, FAR_LEAST = 0.999, 10, 1_000
LONG_ID = 16  # digits; double precision keeps the first 15


@dataclass(frozen=True)
class Spectrum:
    """How many of the things counted have each value: `numbers[k]` have `values[k]`; the values ascend."""

    values: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many things there are."""
        return sum(self.numbers)

    @property
    def mean(self) -> float:
        total = sum(value * number for value, number in zip(self.values, self.numbers, strict=True))
        return total / self.size if self.size else 0.0

    def quantile(self, share: float) -> int:
        """The least value that `share` of the things do not exceed; 0 where there is nothing."""
        if not self.values:
            return 0
        return self.values[int(np.searchsorted(np.cumsum(self.numbers), round(share * self.size, 6)))]

    def up_to(self, value: int) -> float:
        """The share of the things with this value or less."""
        few = sum(number for some, number in zip(self.values, self.numbers, strict=True) if some <= value)
        return few / self.size if self.size else 0.0

    def lorenz(self) -> tuple[list[float], list[float]]:
        """Shares of the things, largest first, and what share of the total these have; both from 0 to 1."""
        numbers = np.array(self.numbers[::-1], np.float64)
        sums = numbers * np.array(self.values[::-1], np.float64)
        if not sums.sum():
            return [0.0, 1.0], [0.0, 1.0]
        things, held = (np.concatenate([[0.0], part.cumsum() / part.sum()]) for part in (numbers, sums))
        return things.tolist(), held.tolist()

    def share_of_top(self, share: float) -> float:
        """The share of the total that the largest `share` of the things have."""
        return float(np.interp(share, *self.lorenz()))

    @property
    def gini(self) -> float:
        """0: all have the same value; near 1: one thing has all."""
        things, held = (np.array(part) for part in self.lorenz())
        return float((np.diff(things) * (held[1:] + held[:-1])).sum() - 1)


@dataclass(frozen=True)
class Times:
    """When something happened. Days and hours are those of UTC."""

    first: float  # Unix seconds
    last: float
    step: int  # seconds of which every time is a multiple: 86,400, 3,600, 60, or 1 for none of these
    inter_by_day: tuple[int, ...]  # from the day of the first event on
    cinter_by_day: tuple[int, ...]
    inter_by_hour: tuple[int, ...]  # [24]
    cinter_by_hour: tuple[int, ...]
    empty_days: int  # between the first and the last event
    longest_gap: int  # most days without an event in a row
    gap_start: float  # the first of these, Unix seconds; 0 if there is none
    before_gap: float  # share of the events


@dataclass(frozen=True)
class Part:
    """One part of the split by time."""

    inter: int
    instances: int  # interactions with an earlier one of their user
    unseen_targets: int  # of these: the video has no training interaction
    users: int  # who have an instance
    unseen_users: int  # of these: without a training interaction
    records: int
    lonely_records: int  # of these: no other comment to rank against


@dataclass(frozen=True)
class Texts:
    """Titles, or the contents of comments."""

    number: int
    empty: int
    repeats: int  # equal to one counted before, and not empty
    repeats_nearby: int  # equal to one of the same video
    lengths: Spectrum  # characters
    scripts: dict[str, int]  # of `scripts.count_scripts`

    @property
    def written(self) -> int:
        """How many are not empty."""
        return self.number - self.empty


@dataclass(frozen=True)
class Ids:
    """Ids of one kind, and how many look as if they had been floating-point numbers."""

    number: int
    floats: int  # written like 1.2e+05 or 17.0
    long: int  # whole numbers of `LONG_ID` digits or more
    rounded: int  # of these: ending in 0000
    example: str


@dataclass(frozen=True)
class FastUsers:
    """Users who act faster or more than a person can (`FAST`, `FAR_…`)."""

    number: int
    share: float  # of the interactions of both kinds
    limit: int  # interactions of one kind above which the number alone is enough
    examples: tuple[tuple[str, int], ...]  # the busiest, with their interactions


@dataclass(frozen=True)
class Portrait:
    """Everything that is counted about a data set."""

    name: str
    source: str
    synthetic: bool
    rows: dict[str, int]  # by file
    other_rows: dict[str, int]  # by file, where the meta file gives another number
    users: int
    users_with_inter: int
    users_with_both: int
    videos: int
    videos_without_inter: int
    inter: int
    inter_repeats: int  # with a (user, video) counted before
    density: float  # share of the pairs of a user with an interaction and any video
    cinter: int
    cinter_repeats: int  # with a (user, comment) counted before
    records: int
    comments: int
    replies: int
    untimed_comments: int
    inter_per_user: Spectrum  # of users with one
    inter_per_video: Spectrum  # of all videos
    comments_per_video: Spectrum  # of all videos, without replies
    records_per_user: Spectrum  # of users with one
    fast_users: FastUsers
    times: Times
    boundaries: tuple[float, float]  # where validation and test start, Unix seconds
    split: dict[str, Part]
    titles: Texts
    contents: Texts
    ids: dict[str, Ids]
