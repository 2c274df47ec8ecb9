"""The most popular comments of every video, day by day: built once, in rounds over all videos together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbole_lsvcr.data.layouts import Pool
from recbole_lsvcr.data.segments import (
    expand,
    offsets_from_sizes,
    offsets_of,
    rank_in_group,
    search_segments,
    stable_order,
)
from recbole_lsvcr.data.splits import DAY

WINDOW = 16  # comments of a snapshot
NO_KEY = np.iinfo(np.int64).max  # the key of no comment: behind all others
_BEGINNING = np.iinfo(np.int32).min  # the day a video's first snapshot begins


def day_of(times: np.ndarray) -> NDArray[np.int32]:
    """The UTC day of Unix seconds, counted from 1970-01-01."""
    return (times // DAY).astype(np.int32)


def key_of(position: np.ndarray, count: np.ndarray) -> NDArray[np.int64]:
    """One number to rank a video's comments by: most interactions, then earliest position; -1 is no comment."""
    return np.where(position >= 0, position - (count.astype(np.int64) << 32), NO_KEY)


def position_of(key: np.ndarray) -> NDArray[np.int64]:
    """The position that `key_of` put into a key."""
    return np.where(key != NO_KEY, key & 0xFFFFFFFF, -1)


@dataclass(frozen=True)
class DailyEvents:
    """Interactions with comments of the pool in groups (all of a video, or a user's under a video), sorted by day."""

    position: NDArray[np.int32]  # [E]
    day: NDArray[np.int32]
    offsets: NDArray[np.int64]  # [groups + 1]

    @classmethod
    def of(cls, group: np.ndarray, position: np.ndarray, day: np.ndarray, n_groups: int) -> DailyEvents:
        """Of events `[E]` in order of time."""
        order = stable_order(group)
        return cls(position[order], day[order], offsets_of(group[order], n_groups))

    def before(self, groups: np.ndarray, days: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`(row, position)` of every event of group `groups[row]` before day `days[row]`."""
        begin = self.offsets[groups]
        rows, index = expand(begin, search_segments(self.day, begin, self.offsets[groups + 1], days))
        return rows, self.position[index].astype(np.int64)


@dataclass(frozen=True)
class Snapshots:
    """The best `WINDOW` comments of every video from some day on, one row per video and day that changed them.

    The last row shows nothing; it stands for the videos without comments.
    """

    positions: NDArray[np.int32]  # [S + 1, WINDOW] best first, -1 behind a video's last comment
    counts: NDArray[np.int32]  # [S + 1, WINDOW] interactions before the day
    day: NDArray[np.int32]  # [S] the day a row begins
    offsets: NDArray[np.int64]  # [n_items + 1] rows of each video

    @classmethod
    def of(cls, pool: Pool, events: DailyEvents) -> Snapshots:
        """`events` are grouped by video."""
        return _build(pool, events)

    def find(self, items: np.ndarray, days: np.ndarray) -> NDArray[np.int64]:
        """The row that holds on each day for each video."""
        begin, end = self.offsets[items], self.offsets[items + 1]
        rows = search_segments(self.day, begin, end, days, side="right") - 1
        return np.where(end > begin, rows, len(self.day))


def _build(pool: Pool, events: DailyEvents) -> Snapshots:
    changes = _Changes.of(pool, events)
    n_items = len(pool.offsets) - 1
    sizes = np.diff(pool.offsets)
    per_item = np.bincount(changes.item, minlength=n_items) + (sizes > 0)
    offsets = offsets_from_sizes(per_item)
    n_rows = int(offsets[-1])
    positions = np.full((n_rows + 1, WINDOW), -1, np.int32)
    counts = np.zeros((n_rows + 1, WINDOW), np.int32)
    day = np.full(n_rows, _BEGINNING, np.int32)

    # Before the first interaction the oldest comments of a video are its best.
    rank = np.arange(len(pool.comment), dtype=np.int32) - np.repeat(pool.offsets[:-1].astype(np.int32), sizes)
    is_top = rank < WINDOW
    positions[np.repeat(offsets[:-1], np.minimum(sizes, WINDOW)), rank[is_top]] = np.flatnonzero(is_top)
    row = offsets[changes.item] + 1 + changes.round
    day[row] = changes.day + 1

    count = np.zeros(len(pool.comment), np.int32)
    for round_ in range(len(changes.round_offsets) - 1):
        begin, end = changes.round_offsets[round_ : round_ + 2]
        slot, at = expand(changes.offsets[begin:end], changes.offsets[begin + 1 : end + 1])
        updated = changes.position[at]
        count[updated] += changes.added[at]
        old = positions[row[begin:end] - 1]  # a video's rows stand in order of their rounds
        new = _best(old, slot, updated, count, is_top)
        is_top[old[old >= 0]] = False
        is_top[new[new >= 0]] = True
        positions[row[begin:end]] = new
        counts[row[begin:end]] = np.where(new >= 0, count[new], 0)
    return Snapshots(positions, counts, day, offsets)


def _best(
    old: np.ndarray, slot: np.ndarray, updated: np.ndarray, count: np.ndarray, is_top: np.ndarray
) -> NDArray[np.int64]:
    """The new best positions `[G, WINDOW]` of the videos of a round; `slot` `[U]` says whose an updated comment is.

    Counts only grow, so nothing but an old best or an updated comment can be among them.
    """
    rising = ~is_top[updated]
    slot, updated = slot[rising], updated[rising]
    key = key_of(updated, count[updated])
    order = np.lexsort((key, slot))
    slot, key = slot[order], key[order]
    rank = rank_in_group(slot)
    kept = rank < WINDOW
    fresh = np.full((len(old), int(rank[kept].max(initial=-1)) + 1), NO_KEY)
    fresh[slot[kept], rank[kept]] = key[kept]
    keys = np.concatenate([key_of(old, count[old]), fresh], axis=1)
    keys.sort(axis=1)
    return position_of(keys[:, :WINDOW])


@dataclass(frozen=True)
class _Changes:
    """The (video, day) pairs with interactions, by ROUND: round r holds the r-th such day of every video."""

    item: NDArray[np.int64]  # [G]
    day: NDArray[np.int32]
    round: NDArray[np.int64]
    round_offsets: NDArray[np.int64]  # [rounds + 1] into the pairs
    offsets: NDArray[np.int64]  # [G + 1] into the updates of a pair
    position: NDArray[np.int64]  # [U] the updated comment
    added: NDArray[np.int32]  # [U] its interactions of the day

    @classmethod
    def of(cls, pool: Pool, events: DailyEvents) -> _Changes:
        n_items = len(pool.offsets) - 1
        item = np.repeat(np.arange(n_items), np.diff(events.offsets))  # [E]
        new = np.ones(len(item), bool)
        new[1:] = (item[1:] != item[:-1]) | (events.day[1:] != events.day[:-1])
        starts = np.flatnonzero(new)
        round_ = rank_in_group(item[starts])
        order = np.argsort(round_, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        # One number per (pair, comment), so that a comment's interactions of a day are added up.
        packed = place[np.cumsum(new) - 1] * len(pool.comment) + events.position
        packed, added = np.unique(packed, return_counts=True)
        pair, position = np.divmod(packed, max(len(pool.comment), 1))
        return cls(
            item=item[starts][order],
            day=events.day[starts][order],
            round=round_[order],
            round_offsets=offsets_of(round_[order], int(round_.max(initial=-1)) + 1),
            offsets=offsets_of(pair, len(starts)),
            position=position,
            added=added.astype(np.int32),
        )
