"""The comments an instance's positives are ranked against: those of the watched video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.segments import expand, offsets_of, rank_in_group

_CELLS = 1 << 22  # (instance, comment) pairs looked at in one go


class CommentLists(NamedTuple):
    """The candidates of B instances as flat arrays, one entry per (instance, comment), grouped by instance."""

    row: np.ndarray  # int64[M], 0 … B-1, non-decreasing
    comment: np.ndarray  # int32[M]
    positive: np.ndarray  # bool[M]


class CommentIndex:
    """The comments by video, and which of them an instance may rank.

    The candidates of a comment instance are its positives and the comments of the watched video that are no replies,
    were posted at or before its time (an unknown posting time counts as before) and with which its user never
    interacted: what the user liked at another time is no negative.
    """

    def __init__(self, data: JointData) -> None:
        self.data = data
        tables = data.tables
        # A reply can be somebody's positive in foreign data; it is then ranked for that instance only.
        kept = ~tables.comment_is_reply
        kept[tables.cinter_comment] = True
        kept[0] = False
        ids = np.flatnonzero(kept)
        ids = ids[np.argsort(tables.comment_item[ids], kind="stable")]
        self.comments = ids.astype(np.int32)  # [M] by video
        self.offsets = offsets_of(tables.comment_item[ids], data.n_items)  # [n_items + 1]
        self.place = np.zeros(data.n_comments, np.int64)  # [n_comments] inverse of `comments`
        self.place[ids] = np.arange(len(ids))
        pair = tables.cinter_user.astype(np.int64) * data.n_items + tables.cinter_item
        order = np.argsort(pair, kind="stable")
        self.pairs = pair[order]  # [J] sorted (user, video) of the comment interactions
        self.pair_comments = tables.cinter_comment[order]

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """int64[B]: comments looked at per instance, an upper bound of its list's length."""
        items = self.data.comments.item[rows]
        return self.offsets[items + 1] - self.offsets[items]

    def lists(self, rows: np.ndarray) -> CommentLists:
        """All candidates of the comment instances `rows` [B]; the full ranking of the video's comments."""
        data, tables = self.data, self.data.tables
        user, item, time = (getattr(data.comments, name)[rows] for name in ("user", "item", "time"))
        row, place = expand(self.offsets[item], self.offsets[item + 1])
        comment = self.comments[place]
        candidate = ~tables.comment_is_reply[comment] & (tables.comment_time[comment] <= time[row])
        shift = np.cumsum(self.sizes(rows)) - self.offsets[item + 1]  # flat position of a comment = place + shift
        pair = user.astype(np.int64) * data.n_items + item
        touched_row, touched = expand(
            np.searchsorted(self.pairs, pair, "left"), np.searchsorted(self.pairs, pair, "right")
        )
        candidate[self.place[self.pair_comments[touched]] + shift[touched_row]] = False
        records = data.records
        record = data.comments.record[rows]
        own_row, own = expand(records.offsets[record], records.offsets[record + 1])
        positive = np.zeros(len(row), bool)
        positive[self.place[records.comments[own]] + shift[own_row]] = True
        kept = candidate | positive
        return CommentLists(row[kept], comment[kept], positive[kept])

    def blocks(self, rows: np.ndarray, cells: int = _CELLS) -> Iterator[np.ndarray]:
        """`rows` in consecutive parts whose lists together look at no more than about `cells` comments."""
        part = np.cumsum(self.sizes(rows)) // cells
        yield from np.split(rows, np.flatnonzero(np.diff(part)) + 1)

    def sampled(self, rows: np.ndarray, negatives: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Every positive and random other candidates, `negatives + 1` comments in all (all candidates if fewer).

        Returns:
            comments int32[B, C] in random order, 0-padded on the right, and bool[B, C]: which are positive.
        """
        parts = [self._draw(block, negatives, rng) for block in self.blocks(rows)]
        width = max([negatives + 1, *(part[0].shape[1] for part in parts)])
        comments, positive = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), bool)
        first = 0
        for some, flags in parts:
            comments[first : first + len(some), : some.shape[1]] = some
            positive[first : first + len(some), : some.shape[1]] = flags
            first += len(some)
        return comments, positive

    def _draw(self, rows: np.ndarray, negatives: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        row, comment, positive = self.lists(rows)
        wanted = np.maximum(negatives + 1 - np.bincount(row[positive], minlength=len(rows)), 0)
        keys = rng.random(len(row))
        kept = positive | _smallest(keys, row, ~positive, wanted)
        row, comment, positive, keys = row[kept], comment[kept], positive[kept], keys[kept]
        order = np.lexsort((keys, positive, row))  # negatives before positives, in random order
        row, comment, positive = row[order], comment[order], positive[order]
        kept = positive | (rank_in_group(row) < wanted[row])
        row, comment, positive = row[kept], comment[kept], positive[kept]
        return pad_lists(CommentLists(row, comment, positive), len(rows), rng)


def _smallest(keys: np.ndarray, row: np.ndarray, among: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """bool[M]: of the random `keys` [M] of each row marked in `among`, the `wanted` [B] smallest and some more, so that
    few have to be sorted; all of a row with fewer."""
    size = np.bincount(row[among], minlength=len(wanted))
    # Eight standard deviations: hardly a row has fewer keys below its bound, and then all of it is kept.
    bound = (wanted + 8 * np.sqrt(wanted) + 8) / np.maximum(size, 1)
    kept = among & (keys < bound[row])
    short = np.bincount(row[kept], minlength=len(wanted)) < np.minimum(wanted, size)
    return kept | (among & short[row])


def pad_lists(
    lists: CommentLists, n_rows: int, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Flat lists as comments int32[B, C], 0-padded on the right, and positive bool[B, C]; `rng` shuffles each list."""
    row, comment, positive = lists
    if rng is not None:
        order = np.lexsort((rng.random(len(row)), row))
        row, comment, positive = row[order], comment[order], positive[order]
    column = rank_in_group(row)
    width = int(column.max(initial=0)) + 1
    comments, flags = np.zeros((n_rows, width), np.int32), np.zeros((n_rows, width), bool)
    comments[row, column], flags[row, column] = comment, positive
    return comments, flags
