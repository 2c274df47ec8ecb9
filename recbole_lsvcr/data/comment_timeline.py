"""The comments under each video in order of posting: what an instance may rank is a prefix of them, but for a few."""

from __future__ import annotations

import numpy as np

from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.segments import offsets_of, padded, search_segments


class CommentTimeline:
    """The comments of the videos that somebody commented on, by video and, within one, oldest first.

    A NEGATIVE of a comment instance is a comment of its video that is no reply, was posted at or before its time (an
    unknown posting time counts as before) and with which its user never interacted. These are the places
    `begin … end - 1` of `span` without the few of `touched`, so that counting and drawing them does not depend on how
    many comments a video has.
    """

    def __init__(self, data: JointData) -> None:
        self.data = data
        tables = data.tables
        watched = np.zeros(data.n_items, bool)
        watched[data.comments.item] = True
        ids = np.flatnonzero(~tables.comment_is_reply & watched[tables.comment_item])
        ids = ids[ids > 0]
        time = tables.comment_time[ids]
        order = np.lexsort((ids, time, tables.comment_item[ids]))
        self.comments = ids[order].astype(np.int32)  # [M]
        self.times = time[order]  # [M]
        self.offsets = offsets_of(tables.comment_item[self.comments], data.n_items)  # [n_items + 1]
        place = np.full(data.n_comments, -1, np.int64)
        place[self.comments] = np.arange(len(ids))
        place = place[tables.cinter_comment]
        pair = tables.cinter_user.astype(np.int64) * data.n_items + tables.cinter_item
        pairs = np.unique(np.stack([pair, place])[:, place >= 0], axis=1)
        self._pairs, self.touched_places = pairs[0], pairs[1]  # sorted (user, video), what they interacted with there

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
        instances = self.data.comments
        pair = instances.user[rows].astype(np.int64) * self.data.n_items + instances.item[rows]
        begin, after = (np.searchsorted(self._pairs, pair, side) for side in ("left", "right"))
        places = padded(self.touched_places, begin, after, len(self.comments))
        places[places >= end[:, None]] = len(self.comments)
        return places

    @property
    def touched_users(self) -> np.ndarray:
        """int64[T], non-decreasing: whose interactions `touched_places` [T] are of."""
        return self._pairs // self.data.n_items

    def negatives(self, rows: np.ndarray) -> np.ndarray:
        """int64[B]: how many negatives each of the instances has."""
        begin, end = self.span(rows)
        return end - begin - (self.touched(rows, end) < end[:, None]).sum(axis=1)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """int64[B]: the length of each instance's whole list, its positives and all its negatives."""
        record, offsets = self.data.comments.record[rows], self.data.records.offsets
        return self.negatives(rows) + offsets[record + 1] - offsets[record]
