"""How many interactions comments have had by a time: the popularity a service would know at that moment."""

from __future__ import annotations

import numpy as np

from recbole_lsvcr.data.segments import offsets_of, search_segments
from recbole_lsvcr.data.tables import Tables


class CommentCounts:
    """Counts the interactions with comments before times, from events sorted by comment and time."""

    def __init__(self, tables: Tables) -> None:
        comment, time = tables.cinter_comment, tables.cinter_time
        order = np.lexsort((time, comment))
        self._times = time[order]
        self._offsets = offsets_of(comment[order], tables.n_comments)
        self._n_comments = tables.n_comments
        own = tables.cinter_user.astype(np.int64) * tables.n_comments + comment
        order = np.lexsort((time, own))
        self._own, self._own_times = own[order], time[order]

    def before(self, comments: np.ndarray, users: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Interactions int64[B, C] with `comments` int[B, C] strictly before `times` float64[B], of all users but
        `users` int[B]; 0 for padding."""
        flat, when = comments.ravel(), np.repeat(times, comments.shape[1])
        begin = self._offsets[flat]
        count = search_segments(self._times, begin, self._offsets[flat + 1], when) - begin
        key = (users.astype(np.int64)[:, None] * self._n_comments + comments).ravel()
        begin = np.searchsorted(self._own, key, "left")
        count -= search_segments(self._own_times, begin, np.searchsorted(self._own, key, "right"), when) - begin
        return np.where(flat > 0, count, 0).reshape(comments.shape)
