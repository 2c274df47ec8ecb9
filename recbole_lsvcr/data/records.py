"""Comment records: the sets of comments a user interacted with under one video in one run of interactions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbole_lsvcr.data.segments import offsets_of, search_segments, stable_order
from recbole_lsvcr.data.tables import Tables


@dataclass(frozen=True)
class Records:
    """Every comment record, sorted by (user, end, start, item), in flat arrays.

    A record is a maximal run of one user's comment interactions under one video whose consecutive gaps are at most
    `record_gap` seconds; a boundary of a split by time ends it too. Its comments are distinct, in order of their first
    interaction.

    A record that is still growing at some time is known by what has happened so far. Its EARLY FORMS are that: one for
    every time of it but the last, valid after that time until the next one, and holding the comments up to then. What
    they show at `t` is what the record would be if the data ended before `t`, so the future decides nothing.
    """

    user: NDArray[np.int32]  # [R]
    item: NDArray[np.int32]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    offsets: NDArray[np.int64]  # [R + 1] into comments
    comments: NDArray[np.int32]
    user_offsets: NDArray[np.int64]  # [n_users + 1] into the records

    early_record: NDArray[np.int64]  # [F] the record this is an early form of; sorted by (user, early_end)
    early_end: NDArray[np.float64]  # its last interaction so far
    early_next: NDArray[np.float64]  # the record's next interaction
    early_size: NDArray[np.int64]  # the first so many comments of the record
    early_offsets: NDArray[np.int64]  # [n_users + 1] into the early forms

    event_record: NDArray[np.int64]  # [J] the record of every row of `.cinter`

    def __len__(self) -> int:
        return len(self.user)

    def visible_end(self, users: np.ndarray, times: np.ndarray) -> NDArray[np.int64]:
        """One past the last record of each user that ended strictly before the user's time."""
        return search_segments(self.end, self.user_offsets[users], self.user_offsets[users + 1], times)

    def early_range(
        self, users: np.ndarray, times: np.ndarray, record_gap: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each user's early forms that end at most `record_gap` before `time`; those valid at `time` are among them.

        (One second more is allowed for, since the difference of two times is not exact.)
        """
        begin, end = self.early_offsets[users], self.early_offsets[users + 1]
        return (
            search_segments(self.early_end, begin, end, times - (record_gap + 1.0)),
            search_segments(self.early_end, begin, end, times),
        )


def build_records(tables: Tables, record_gap: float, boundaries: np.ndarray) -> Records:
    """All records of a data set; `boundaries` (sorted Unix seconds) end a record like a long gap does."""
    user, item, comment, time = tables.cinter_user, tables.cinter_item, tables.cinter_comment, tables.cinter_time
    order = stable_order(user, item)  # and by time, then file order, as they stand
    user, item, comment, time = user[order], item[order], comment[order], time[order]
    side = np.searchsorted(boundaries, time, side="right")
    first = np.ones(len(order), bool)
    first[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1]) | (side[1:] != side[:-1])
    first[1:] |= time[1:] - time[:-1] > record_gap

    starts = np.flatnonzero(first)
    last = np.append(starts[1:], len(order))[: len(starts)] - 1
    by_end = np.lexsort((item[starts], time[starts], time[last], user[starts]))
    new_id = np.empty(len(starts), np.int64)
    new_id[by_end] = np.arange(len(starts))
    record = new_id[np.cumsum(first) - 1]  # [J] of the sorted events

    fresh = _first_of_its_comment(record, comment)
    kept = np.flatnonzero(fresh)
    kept = kept[stable_order(record[kept])]
    event_record = np.empty(len(order), np.int64)
    event_record[order] = record
    starts, last = starts[by_end], last[by_end]
    return Records(
        user=user[starts],
        item=item[starts],
        start=time[starts],
        end=time[last],
        offsets=offsets_of(record[kept], len(starts)),
        comments=comment[kept],
        user_offsets=offsets_of(user[starts], tables.n_users),
        event_record=event_record,
        **_early_forms(user, time, record, fresh, starts, tables.n_users),
    )


def _first_of_its_comment(record: np.ndarray, comment: np.ndarray) -> NDArray[np.bool_]:
    """Whether an event is its record's first with its comment; events of a record are in order of time."""
    order = stable_order(record, comment)
    fresh = np.ones(len(order), bool)
    fresh[order[1:]] = (record[order[1:]] != record[order[:-1]]) | (comment[order[1:]] != comment[order[:-1]])
    return fresh


def _early_forms(
    user: np.ndarray, time: np.ndarray, record: np.ndarray, fresh: np.ndarray, starts: np.ndarray, n_users: int
) -> dict[str, np.ndarray]:
    """The early forms of all records, from the events sorted by (user, item, time) and each record's first event."""
    seen = np.cumsum(fresh)
    at = np.flatnonzero((record[1:] == record[:-1]) & (time[1:] > time[:-1]))
    at = at[np.lexsort((record[at], time[at], user[at]))]
    return {
        "early_record": record[at],
        "early_end": time[at],
        "early_next": time[at + 1],
        "early_size": seen[at] - seen[starts[record[at]]] + 1,
        "early_offsets": offsets_of(user[at], n_users),
    }
