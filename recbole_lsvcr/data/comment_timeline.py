"""The comments under each video in order of posting: what an instance may rank is a prefix of them, but for a few."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recbole_lsvcr.data.segments import padded, search_segments

if TYPE_CHECKING:
    from recbole_lsvcr.data.joint import JointData


class CommentTimeline:
    """The comments that are no replies, by video and, within one, oldest first: those of `JointData.comment_pool`.

    A NEGATIVE of a comment instance is a comment of its video that is no reply, was posted at or before its time (an
    unknown posting time counts as before) and with which its user never interacted. These are the places
    `begin … end - 1` of `span` without the few of `touched`, so that counting and drawing them does not depend on how
    many comments a video has.
    """

    def __init__(self, data: JointData) -> None:
        self.data = data
        tables, pool = data.tables, data.comment_pool
        self.comments, self.times, self.offsets = pool.comment, pool.time, pool.offsets  # [M], [M], [n_items + 1]
        place = pool.position[tables.cinter_comment].astype(np.int64)
        size = max(len(self.comments), 1)
        touched = np.unique((tables.cinter_user.astype(np.int64) * size + place)[place >= 0])
        # What each user interacted with, by user and place, which is by video: int64[T] each.
        self.touched_users, self.touched_places = np.divmod(touched, size)
        self._pairs = self.touched_users * data.n_items + tables.comment_item[self.comments[self.touched_places]]

    def span(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places `(begin, end)`, int64[B] each: the comments that exist for the comment instances `rows`."""
        instances = self.data.comments
        item = instances.item[rows]
        begin = self.offsets[item]
        return begin, search_segments(self.times, begin, self.offsets[item + 1], instances.time[rows], "right")

    def touched(self, rows: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Places int64[B, X] before `end`, ascending, of the comments with which each user ever interacted under the
        video; padded with M, a place that does not exist.
        """
        places = padded(self.touched_places, *self._touched_range(rows), len(self.comments))
        places[places >= end[:, None]] = len(self.comments)
        return places

    def _touched_range(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in `touched_places` each user's comments under the video stand, in ascending order: int64[B] each."""
        instances = self.data.comments
        pair = instances.user[rows].astype(np.int64) * self.data.n_items + instances.item[rows]
        return np.searchsorted(self._pairs, pair, "left"), np.searchsorted(self._pairs, pair, "right")

    def negatives(self, rows: np.ndarray) -> np.ndarray:
        """int64[B]: how many negatives each of the instances has."""
        begin, end = self.span(rows)
        first, last = self._touched_range(rows)
        return end - begin - (search_segments(self.touched_places, first, last, end) - first)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """int64[B]: the length of each instance's whole list, its positives and all its negatives."""
        record, offsets = self.data.comments.record[rows], self.data.records.offsets
        return self.negatives(rows) + offsets[record + 1] - offsets[record]
