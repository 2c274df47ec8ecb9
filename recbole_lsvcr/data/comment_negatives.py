"""Training lists of the comment task: one positive of a record and sampled comments of the same video."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.negatives import distinct_positions
from recbole_lsvcr.data.segments import offsets_of, padded, rank_in_group
from recbole_lsvcr.data.splits import TRAIN
from recbole_lsvcr.errors import ConfigError

Choice = Literal["uniform", "popular", "hard"]
CHOICES: tuple[Choice, ...] = get_args(Choice)

POOL = 8  # `hard` looks at so many times the comments it takes
_ROUNDS = 3  # `popular` draws so many times the comments it takes
_CELLS = 1 << 20  # vector entries of `hard` held at once

Vectors = Callable[[np.ndarray], np.ndarray]


class TrainingLists:
    """Draws `[positive, negatives…]` for comment instances.

    Negatives are those of `CommentTimeline`, without repetition: all of them if there are no more than `count`. An
    instance whose video has none gets random comments of other videos that somebody commented on, posted by then. The
    cost of a draw depends on `count`, not on how many comments a video has.
    """

    def __init__(
        self, data: JointData, *, count: int = 19, choice: str = "uniform", vectors: Vectors | None = None
    ) -> None:
        """`choice` of the `count` negatives: `uniform`; `popular`, in proportion to 1 + the number of training
        interactions; or `hard`, nearest to the positive by the cosine of text `vectors` (ids [n] -> float [n, H]) among
        `POOL * count` uniform ones, comments with the positive's very text left out.

        Raises:
            ConfigError: a choice that does not exist, `count` below 1, `hard` without vectors.
        """
        if choice not in CHOICES:
            raise ConfigError(f"train_negatives = {choice!r} is not accepted; accepted: {', '.join(CHOICES)}")
        if count < 1:
            raise ConfigError(f"train_negative_num = {count} is not accepted; accepted: an integer >= 1")
        if choice == "hard" and vectors is None:
            raise ConfigError("train_negatives = hard needs text vectors")
        self.data, self.count, self.choice, self.vectors = data, count, choice, vectors
        self.timeline = data.comment_timeline

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Lists int32[B, 1 + count] of the comment instances `rows`: a random positive of each first, 0-padded."""
        data = self.data
        record = data.comments.record[rows]
        begin, end = data.records.offsets[record], data.records.offsets[record + 1]
        lists = np.zeros((len(rows), 1 + self.count), np.int32)
        lists[:, 0] = data.records.comments[begin + rng.integers(0, end - begin)]
        if not len(self.timeline.comments):
            return lists
        lists[:, 1:] = self._of_video(rows, lists[:, 0], rng)
        alone = np.flatnonzero(lists[:, 1] == 0)
        if len(alone):
            lists[alone, 1:] = self._of_corpus(rows[alone], lists[alone, 0], rng)
        return lists

    def _of_video(self, rows: np.ndarray, positives: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Negatives int32[B, count], 0-padded."""
        begin, end = self.timeline.span(rows)
        touched = self.timeline.touched(rows, end)
        free = end - begin - (touched < end[:, None]).sum(axis=1)
        positions = distinct_positions(free, self.count * (POOL if self.choice == "hard" else 1), rng)
        places = begin[:, None] + positions
        for column in touched.T:  # ascending: step over what is no negative
            places += places >= column[:, None]
        drawn = positions >= 0
        comments = np.where(drawn, self.timeline.comments[np.where(drawn, places, 0)], 0)
        if self.choice == "hard":
            return self._nearest(positives, comments)
        if self.choice == "popular":
            return self._popular_first(begin, end, touched, comments, rng)
        return comments

    def _popular_first(
        self, begin: np.ndarray, end: np.ndarray, touched: np.ndarray, spare: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Different comments of independent draws by weight; the uniform `spare` ones where these repeat too often."""
        low, high = self._weight_sums[begin], self._weight_sums[end]
        at = low[:, None] + rng.random((len(begin), _ROUNDS * self.count)) * (high - low)[:, None]
        places = np.searchsorted(self._weight_sums, at, side="right") - 1
        places = np.clip(places, begin[:, None], np.maximum(end - 1, begin)[:, None])  # a sum may be rounded
        fits = (end > begin)[:, None] & ~(places[:, :, None] == touched[:, None, :]).any(axis=2)
        weighted = np.where(fits, self.timeline.comments[np.where(fits, places, 0)], 0)
        return _first_distinct(np.concatenate([weighted, spare], axis=1), self.count)

    @cached_property
    def _weight_sums(self) -> np.ndarray:
        """float64[M + 1]: sums of 1 + training interactions over the timeline's comments."""
        data = self.data
        training = data.comments.phase[data.records.event_record] == TRAIN
        counts = np.bincount(data.tables.cinter_comment[training], minlength=data.n_comments)
        return np.concatenate([[0.0], np.cumsum(1.0 + counts[self.timeline.comments])])

    def _nearest(self, positives: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """The `count` comments of each row of `pool` [B, P] whose text is nearest to the positive's, nearest first."""
        assert self.vectors is not None
        result = np.zeros((len(pool), self.count), np.int32)
        size = self.vectors(positives[:1]).shape[1]
        step = max(_CELLS // (size * pool.shape[1]), 1)
        for first in range(0, len(pool), step):
            some = slice(first, first + step)
            ids, inverse = np.unique(np.column_stack([positives[some], pool[some]]), return_inverse=True)
            vectors = self.vectors(ids).astype(np.float32)
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            inverse = inverse.reshape(-1, pool.shape[1] + 1)
            near = np.einsum("bph,bh->bp", vectors[inverse[:, 1:]], vectors[inverse[:, 0]])
            same = self._text[pool[some]] == self._text[positives[some]][:, None]
            near[(pool[some] == 0) | same] = -np.inf
            order = np.argsort(-near, axis=1, kind="stable")[:, : self.count]
            kept = np.isfinite(np.take_along_axis(near, order, axis=1))
            result[some] = np.where(kept, np.take_along_axis(pool[some], order, axis=1), 0)
        return result

    @cached_property
    def _text(self) -> np.ndarray:
        """uint64[n_comments]: equal for equal texts."""
        return self.data.tables.contents.hash().to_numpy()

    def _of_corpus(self, rows: np.ndarray, positives: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Random comments int32[B, count] of videos that somebody commented on that exist at each instance's time and
        that its user never interacted with, 0-padded: of other videos, since those of its own are no negatives."""
        instances, (order, times, ranks, offsets) = self.data.comments, self._by_time
        if not len(order):
            return np.zeros((len(rows), self.count), np.int32)
        existing = np.searchsorted(times, instances.time[rows], side="right")
        user = instances.user[rows]
        touched = padded(ranks, offsets[user], offsets[user + 1], len(order))
        touched[touched >= existing[:, None]] = len(order)
        positions = distinct_positions(existing - (touched < len(order)).sum(axis=1), self.count, rng)
        drawn = positions >= 0
        for column in touched.T:
            positions += positions >= column[:, None]
        comments = self.timeline.comments[order[np.where(drawn, positions, 0)]]
        if self.choice == "hard":
            drawn &= self._text[comments] != self._text[positives][:, None]
        return _first_distinct(np.where(drawn, comments, 0), self.count)

    @cached_property
    def _by_time(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The timeline's places int32[N] under the videos that somebody commented on, by time, and these times; and
        where in this order the comments stand that each user interacted with, ascending, int64[T], with offsets
        int64[n_users + 1]."""
        data, timeline = self.data, self.timeline
        watched = np.zeros(data.n_items, bool)
        watched[data.comments.item] = True
        places = np.flatnonzero(np.repeat(watched, np.diff(timeline.offsets))).astype(np.int32)
        order = places[np.argsort(timeline.times[places], kind="stable")]
        rank = np.empty(len(timeline.comments), np.int32)
        rank[order] = np.arange(len(order))
        user, ranks = timeline.touched_users, rank[timeline.touched_places].astype(np.int64)
        by_user = np.lexsort((ranks, user))
        return order, timeline.times[order], ranks[by_user], offsets_of(user[by_user], data.n_users)


def _first_distinct(ids: np.ndarray, count: int) -> np.ndarray:
    """The first `count` different ids of each row of `ids` int[B, M] (0: none), in their order, 0-padded."""
    order = np.argsort(ids, axis=1, kind="stable")
    ranked = np.take_along_axis(ids, order, axis=1)
    first = np.ones(ids.shape, bool)
    np.put_along_axis(first, order[:, 1:], ranked[:, 1:] != ranked[:, :-1], axis=1)
    kept = first & (ids > 0)
    kept &= np.cumsum(kept, axis=1) <= count
    result = np.zeros((len(ids), count), np.int32)
    row, column = np.nonzero(kept)
    result[row, rank_in_group(row)] = ids[row, column]
    return result
