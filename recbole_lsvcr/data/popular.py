"""The popular comments of a video as they may be shown at a time: by training interactions of the days before.

For every video and every day after one with training interactions under it, a SNAPSHOT holds the video's best comments.
A query looks up the snapshot of its day, strikes out what may not be shown, takes the user's own interactions out of
the counts, and is answered from the snapshot if that provably suffices (nearly always), else by counting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recbole_lsvcr.data.layouts import Pool
from recbole_lsvcr.data.segments import expand, rank_in_group
from recbole_lsvcr.data.snapshots import (
    NO_KEY,
    WINDOW,
    DailyEvents,
    Snapshots,
    day_of,
    key_of,
    position_of,
)
from recbole_lsvcr.data.tables import Tables

_CHUNK = 1 << 21  # (query, comment) pairs counted at once
_ASKED = 1 << 16  # pairs of user and video looked up at once
_SLOT_BITS = 22
_ONE = 1 << 32  # one interaction, in a key


@dataclass(frozen=True)
class _Queries:
    """What is asked: `[Q]` arrays, and pairs of a query and a position that it must not be given."""

    item: np.ndarray
    time: np.ndarray
    day: np.ndarray
    own: np.ndarray  # group of the user's own interactions, -1 without
    struck_row: np.ndarray  # [X]
    struck: np.ndarray  # [X] positions

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: np.ndarray) -> _Queries:
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        struck_row = place[self.struck_row]
        kept = struck_row >= 0
        return replace(
            self,
            item=self.item[rows],
            time=self.time[rows],
            day=self.day[rows],
            own=self.own[rows],
            struck_row=struck_row[kept],
            struck=self.struck[kept],
        )


class PopularComments:
    """Ranks the comments of videos at times, as shown to users.

    By training interactions before the start of the time's UTC day, the user's own left out; ties by earlier posting
    time (unknown is earliest), then file order. Comments nobody interacted with qualify; comments posted later and
    replies do not.
    """

    def __init__(self, tables: Tables, train_events: np.ndarray) -> None:
        """`train_events` `[J]` bool: which rows of `.cinter` count."""
        self._n_items = tables.n_items
        self._pool: Pool = tables.pool
        position = self._pool.position[tables.cinter_comment]
        counted = np.flatnonzero(train_events & (position >= 0))
        item = tables.cinter_item[counted].astype(np.int64)
        position, day = position[counted], day_of(tables.cinter_time[counted])
        self._events = DailyEvents.of(item, position, day, tables.n_items)
        self._own_keys, group = np.unique(self._own_key(tables.cinter_user[counted], item), return_inverse=True)
        self._taken = np.zeros(1 << _SLOT_BITS, bool)  # the slots of the keys
        self._taken[_slot(self._own_keys)] = True
        self._own_events = DailyEvents.of(group, position, day, len(self._own_keys))
        self._snapshots = Snapshots.of(self._pool, self._events)

    @property
    def pool(self) -> Pool:
        """The comments that can be popular, by video and, within one, oldest first."""
        return self._pool

    def own_groups(self, users: np.ndarray, items: np.ndarray) -> NDArray[np.int32]:
        """For each (user, video) where the user's own counted interactions under it are found, -1 if there are none."""
        found = np.full(len(users), -1, np.int32)
        if not len(self._own_keys):
            return found
        for first in range(0, len(users), _ASKED):
            some = slice(first, first + _ASKED)
            keys = self._own_key(users[some], items[some])
            row = np.flatnonzero(self._taken[_slot(keys)])  # most pairs are none, and searching is slow
            keys = keys[row]
            at = np.minimum(np.searchsorted(self._own_keys, keys), len(self._own_keys) - 1)
            found[first + row] = np.where(self._own_keys[at] == keys, at, -1)
        return found

    def top(
        self,
        items: np.ndarray,
        times: np.ndarray,
        own: np.ndarray,
        n: int,
        exclude: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> NDArray[np.int32]:
        """Comment ids `[Q, n]`, best first, 0 where there are no more.

        `items` `[Q]`; `times` `[Q]` Unix seconds; `own` `[Q]` from `own_groups`; `exclude` pairs of a query's row and
        the id of a comment that it must not be given.
        """
        row, comment = exclude if exclude is not None else (np.zeros(0, np.int64), np.zeros(0, np.int64))
        queries = _Queries(items, times, day_of(times), own, row, self._pool.position[comment])
        rows = self._snapshots.find(items, queries.day)
        found = np.full((len(items), n), -1, np.int64)
        found[:, :WINDOW] = self._snapshots.positions[rows, : min(n, WINDOW)]
        # The snapshot is right as it stands unless something has to be left out of it, or it is too small.
        check = (own >= 0) | self._pool.is_late(found, times[:, None]).any(axis=1)
        check[row] = True
        if n > WINDOW:
            check[:] = True
        again = np.flatnonzero(check)
        if len(again):
            found[again] = self._correct(queries.take(again), rows[again], n)
        return (
            np.where(found >= 0, self._pool.comment[found], 0)
            if len(self._pool.comment)
            else np.zeros_like(found, np.int32)
        )

    def memory(self) -> dict[str, int]:
        """Bytes by part."""
        parts = {
            "popular_pool": self._pool,
            "popular_events": self._events,
            "popular_own_events": self._own_events,
            "popular_snapshots": self._snapshots,
        }
        sizes = {name: sum(array.nbytes for array in vars(part).values()) for name, part in parts.items()}
        sizes["popular_own_events"] += self._own_keys.nbytes + self._taken.nbytes
        return sizes

    def _own_key(self, users: np.ndarray, items: np.ndarray) -> NDArray[np.int64]:
        return users.astype(np.int64) * self._n_items + items

    def _correct(self, queries: _Queries, rows: np.ndarray, n: int) -> NDArray[np.int64]:
        """Positions `[Q, n]` from whole snapshots, after own interactions, late and excluded comments are taken out."""
        position, count = self._snapshots.positions[rows].astype(np.int64), self._snapshots.counts[rows]  # [Q, WINDOW]
        key = key_of(position, count)
        late = self._pool.is_late(position, queries.time[:, None])
        # What the snapshot leaves out ranks behind its last comment, and its count can only fall; and behind a last
        # comment that has no interactions and is still to be posted, all the others are still to be posted, too.
        complete = (self._pool.sizes(queries.item) <= WINDOW) | (late[:, -1] & (count[:, -1] == 0))
        limit = np.where(complete, NO_KEY, key[:, -1])

        row, own_position = self._own_before(queries)
        at, column = np.nonzero(position[row] == own_position[:, None])
        np.add.at(key, (row[at], column), _ONE)
        key[late] = NO_KEY
        at, column = np.nonzero(position[queries.struck_row] == queries.struck[:, None])
        key[queries.struck_row[at], column] = NO_KEY

        key.sort(axis=1)
        found = np.full((len(queries), n), -1, np.int64)
        found[:, :WINDOW] = position_of(np.where(key <= limit[:, None], key, NO_KEY))[:, :n]
        doubtful = np.flatnonzero(~complete & (found[:, -1] < 0))
        if len(doubtful):
            found[doubtful] = self._count(queries.take(doubtful), n)
        return found

    def _count(self, queries: _Queries, n: int) -> NDArray[np.int64]:
        """Positions `[Q, n]` by counting the interactions of every comment of the videos asked for, in chunks."""
        found = np.full((len(queries), n), -1, np.int64)
        chunks = np.cumsum(self._pool.sizes(queries.item)) // _CHUNK
        for chunk in np.unique(chunks):
            at = np.flatnonzero(chunks == chunk)
            found[at] = self._count_chunk(queries.take(at), n)
        return found

    def _count_chunk(self, queries: _Queries, n: int) -> NDArray[np.int64]:
        begin, size = self._pool.offsets[queries.item], self._pool.sizes(queries.item)
        row, position = expand(begin, begin + size)  # [T] every comment of every query
        shift = np.cumsum(size) - size - begin  # a query's position + shift is its place among them
        all_row, all_position = self._events.before(queries.item, queries.day)
        own_row, own_position = self._own_before(queries)
        count = np.bincount(all_position + shift[all_row], minlength=len(row))
        count -= np.bincount(own_position + shift[own_row], minlength=len(row))
        shown = ~self._pool.is_late(position, queries.time[row])
        under = (queries.struck >= begin[queries.struck_row]) & (queries.struck < (begin + size)[queries.struck_row])
        shown[queries.struck[under] + shift[queries.struck_row[under]]] = False

        row, position, count = row[shown], position[shown], count[shown]
        order = np.lexsort((key_of(position, count), row))
        row, position = row[order], position[order]
        rank = rank_in_group(row)
        found = np.full((len(queries), n), -1, np.int64)
        found[row[rank < n], rank[rank < n]] = position[rank < n]
        return found

    def _own_before(self, queries: _Queries) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`(row, position)` of the users' own interactions that the counts of the queries include."""
        mine = np.flatnonzero(queries.own >= 0)
        row, position = self._own_events.before(queries.own[mine], queries.day[mine])
        return mine[row], position


def _slot(keys: np.ndarray) -> NDArray[np.uint64]:
    """A number in `[0, 2**_SLOT_BITS)` for each whole number; different ones rarely have the same."""
    return (keys.astype(np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)) >> np.uint64(64 - _SLOT_BITS)
