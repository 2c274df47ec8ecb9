"""The events of a data set in the two orders that joint data need; no setting changes them, so the cache keeps them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbole_lsvcr.data.segments import offsets_from_sizes, search_segments, stable_order


@dataclass(frozen=True)
class Timeline:
    """All video interactions, user by user in (time, file order)."""

    user: NDArray[np.int32]  # [I]
    item: NDArray[np.int32]
    time: NDArray[np.float64]
    offsets: NDArray[np.int64]  # [n_users + 1]

    @classmethod
    def of(cls, user: np.ndarray, item: np.ndarray, time: np.ndarray, n_users: int) -> Timeline:
        """Of events `[I]` in order of time."""
        order = stable_order(user)
        by_user = user[order]
        offsets = np.searchsorted(by_user, np.arange(n_users + 1, dtype=by_user.dtype))
        return cls(by_user, item[order], time[order], offsets)

    def before(self, users: np.ndarray, times: np.ndarray) -> NDArray[np.int64]:
        """One past the last event of each user strictly before the user's time."""
        return search_segments(self.time, self.offsets[users], self.offsets[users + 1], times)

    def before_events(self, events: np.ndarray) -> NDArray[np.int64]:
        """`before` for the users and times of events that are not their user's first; nearly all are the event's."""
        end = np.array(events, np.int64)
        tied = np.flatnonzero((self.time[end - 1] == self.time[end]) & (self.user[end - 1] == self.user[end]))
        if len(tied):
            end[tied] = self.before(self.user[end[tied]], self.time[end[tied]])
        return end

    def ended_before(self, users: np.ndarray, times: np.ndarray) -> NDArray[np.int32]:
        """`[I]` one past the last of the entries `(user, time)`, sorted so, of each event's user strictly before it.

        One search per entry, not per event, of which there are many more.
        """
        place = search_segments(self.time, self.offsets[users], self.offsets[users + 1], times, side="right")
        return np.repeat(np.arange(len(place) + 1, dtype=np.int32), np.diff(place, prepend=0, append=len(self.time)))

    def first_end(self) -> NDArray[np.int64]:
        """`[n_users]` one past each user's first event and those at the same time: these have none before them."""
        begin, end = self.offsets[:-1], self.offsets[1:]
        first = self.time[np.minimum(begin, len(self.time) - 1)]  # whatever it is of a user without events
        return search_segments(self.time, begin, end, first, side="right")


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
    def of(cls, item: np.ndarray, time: np.ndarray, is_reply: np.ndarray, n_items: int) -> Pool:
        """Of comments `[n_comments]`, padding included."""
        position = np.full(len(item), -1, np.int32)
        item, time = item[1:], time[1:]
        comment: np.ndarray | None = None  # all of them as they come, if None
        if is_reply.any():
            comment = np.flatnonzero(~is_reply[1:])
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
        position[comment] = np.arange(len(comment), dtype=np.int32)
        return cls(comment, time, offsets_from_sizes(np.bincount(item, minlength=n_items)), position)

    def sizes(self, items: np.ndarray) -> NDArray[np.int64]:
        """How many comments of each video there are."""
        return self.offsets[items + 1] - self.offsets[items]

    def is_late(self, positions: np.ndarray, times: np.ndarray) -> NDArray[np.bool_]:
        """Which comments were posted after the times; position -1 was not. The shapes broadcast."""
        if not len(self.time):
            return np.zeros(positions.shape, bool)
        return (self.time[positions] > times) & (positions >= 0)
