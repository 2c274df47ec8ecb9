"""The most popular comments of every video, day by day: built once, in rounds over all videos together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbole_lsvcr.data.segments import expand, offsets_of, rank_in_group, search_segments, stable_order
from recbole_lsvcr.data.splits import DAY
from recbole_lsvcr.data.tables import Tables

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
class Pool:
    """The comments that can be popular (replies cannot), video by video in order of posting time, then file order.

    A POSITION in this order stands for a comment; among a video's comments the smaller one was posted earlier.
    """

    comment: NDArray[np.int32]  # [P] comment id by position
    time: NDArray[np.float64]  # [P] posting time by position
    offsets: NDArray[np.int64]  # [n_items + 1] positions of each video
    position: NDArray[np.int32]  # [n_comments] position by comment id, -1 for replies and padding

    @classmethod
    def of(cls, tables: Tables) -> Pool:
        item, time = tables.comment_item[1:], tables.comment_time[1:]
        comment: np.ndarray | None = None  # all of them as they come, if None
        if tables.comment_is_reply.any():
            comment = np.flatnonzero(~tables.comment_is_reply[1:])
            item, time = item[comment], time[comment]
        # Many sources know no posting times, and sorting millions takes seconds.
        timed = bool((time[1:] != time[:-1]).any())
        if timed and (time[1:] < time[:-1]).any():
            by_time = np.argsort(time, kind="stable")
            comment = by_time if comment is None else comment[by_time]
            item, time = item[by_time], time[by_time]
        order = stable_order(item)
        time = time[order] if timed else time
        comment = (order if comment is None else comment[order]).astype(np.int32)
        comment += 1
        position = np.full(tables.n_comments, -1, np.int32)
        position[comment] = np.arange(len(comment), dtype=np.int32)
        sizes = np.bincount(item, minlength=tables.n_items)
        return cls(comment, time, np.concatenate([[0], np.cumsum(sizes)]), position)

    def sizes(self, items: np.ndarray) -> NDArray[np.int64]:
        """How many comments of each video there are."""
        return self.offsets[items + 1] - self.offsets[items]

    def is_late(self, positions: np.ndarray, times: np.ndarray) -> NDArray[np.bool_]:
        """Which comments were posted after the times; position -1 was not. The shapes broadcast."""
        if not len(self.time):
            return np.zeros(positions.shape, bool)
        return (self.time[positions] > times) & (positions >= 0)


@dataclass(frozen=True)
class DailyEvents:
    """Interactions with comments of the pool in groups (all of a video, or a user's under a video), sorted by day."""

    position: NDArray[np.int32]  # [E]
    day: NDArray[np.int32]
    offsets: NDArray[np.int64]  # [groups + 1]

    @classmethod
    def of(cls, group: np.ndarray, position: np.ndarray, day: np.ndarray, n_groups: int) -> DailyEvents:
        order = np.lexsort((day, group))
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
    per_item = np.bincount(changes.item, minlength=n_items) + (pool.sizes(np.arange(n_items)) > 0)
    offsets = np.append(0, np.cumsum(per_item))
    n_rows = int(offsets[-1])
    positions = np.full((n_rows + 1, WINDOW), -1, np.int32)
    counts = np.zeros((n_rows + 1, WINDOW), np.int32)
    day = np.full(n_rows, _BEGINNING, np.int32)

    commented = np.flatnonzero(per_item)
    first = pool.offsets[commented][:, None] + np.arange(WINDOW)
    top = np.full((n_items, WINDOW), -1, np.int64)  # the best comments of each video so far
    top[commented] = np.where(first < pool.offsets[commented + 1][:, None], first, -1)
    positions[offsets[commented]] = top[commented]
    row = offsets[changes.item] + 1 + changes.round
    day[row] = changes.day + 1

    count = np.zeros(len(pool.comment), np.int32)
    is_top = np.zeros(len(pool.comment), bool)
    is_top[top[top >= 0]] = True
    for round_ in range(len(changes.round_offsets) - 1):
        begin, end = changes.round_offsets[round_ : round_ + 2]
        items = changes.item[begin:end]
        slot, at = expand(changes.offsets[begin:end], changes.offsets[begin + 1 : end + 1])
        updated = changes.position[at]
        count[updated] += changes.added[at]
        old = top[items]
        new = _best(old, slot, updated, count, is_top)
        is_top[old[old >= 0]] = False
        is_top[new[new >= 0]] = True
        top[items] = new
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
