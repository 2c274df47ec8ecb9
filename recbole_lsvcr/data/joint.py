"""The joint data set: video and comment instances over flat arrays, their histories gathered batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from recbole_lsvcr.data.comment_timeline import CommentTimeline
from recbole_lsvcr.data.histories import Histories, Targets
from recbole_lsvcr.data.instances import KINDS, CommentInstances, InstanceBatch, Kind, Moments, VideoInstances
from recbole_lsvcr.data.layouts import Pool
from recbole_lsvcr.data.popular import PopularComments
from recbole_lsvcr.data.records import build_records
from recbole_lsvcr.data.segments import count_marked, expand, rank_in_group
from recbole_lsvcr.data.splits import PHASES, TRAIN, Split, parse_split
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import ConfigError

_CHUNK = 8192  # instances gathered at once by `reachable`


class JointData:
    """Instances of both tasks, and everything their inputs are made of.

    Histories hold what happened STRICTLY before an instance's time, whatever the split. Memory is a few numbers per
    interaction and does not depend on `max_videos` and `max_records`: a batch's histories are cut out of user-major
    arrays when the batch is made.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        split: Mapping[str, Any] | Split,
        max_videos: int = 50,
        max_records: int = 50,
        record_gap: float = 86_400.0,
        popular_top: int = 3,
        times: bool = False,
    ) -> None:
        """`split` is the value of `eval_args.split` (see `parse_split`), checked to leave no phase empty; a `Split` is
        taken as it is. `record_gap` in seconds; `times`: batches are `TimedBatch`es. Raises `ConfigError`.
        """
        for name, value in (("max_videos", max_videos), ("max_records", max_records), ("popular_top", popular_top)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} = {value!r}: expected a whole number of at least 1")
        if not isinstance(record_gap, int | float) or not 0 <= record_gap < math.inf:
            raise ConfigError(f"record_gap = {record_gap!r}: expected a number of seconds, 0 or more")
        self.tables = tables
        self.split = split if isinstance(split, Split) else parse_split(split, tables)
        self.max_videos, self.max_records, self.popular_top = max_videos, max_records, popular_top
        self.record_gap, self.times = float(record_gap), times
        self.n_users, self.n_items, self.n_comments = tables.n_users, tables.n_items, tables.n_comments

        with ThreadPoolExecutor(2) as beside:  # videos beside comments; NumPy computes most of it side by side
            pool = beside.submit(lambda: tables.pool)
            find_videos = beside.submit(self._video_events)
            self.records = build_records(tables, self.record_gap, self.split.boundaries)
            self.comments = self._comment_instances()
            train_events = self.comments.phase[self.records.event_record] == TRAIN
            pool.result()
            self._popular = PopularComments(tables, train_events)
            video_events, video_phases, train_videos = find_videos.result()
        self._timeline = line = tables.timeline
        record_ends = line.ended_before(self.records.user, self.records.end)
        self.videos = VideoInstances(line, video_events, video_phases, record_ends)
        if not isinstance(split, Split):
            self._check_phases(split)
        self.train_item_count = count_marked(line.item, train_videos, self.n_items)
        self.train_user_count = count_marked(line.user, train_videos, self.n_users)
        self._histories = Histories(
            timeline=line,
            records=self.records,
            popular=self._popular,
            own=self._popular.own_groups(line.user, line.item),
            max_videos=max_videos,
            max_records=max_records,
            record_gap=self.record_gap,
            popular_top=popular_top,
            times=times,
        )

    def rows(self, kind: Kind, phase: int) -> NDArray[np.int64]:
        """The instances of a phase (0 train, 1 valid, 2 test), as rows of `videos` or `comments`."""
        return np.flatnonzero(self._instances(kind).phase == phase)

    def gather(
        self, kind: Kind, rows: np.ndarray, *, training: bool, rng: np.random.Generator | None = None
    ) -> InstanceBatch:
        """The inputs of the instances `rows` `[B]`.

        In training the popular comment of every step is a random one of the video's top `popular_top`, drawn with
        `rng`; otherwise the top one.
        """
        return self._histories.assemble(self._targets(kind, np.asarray(rows, np.int64)), _generator(training, rng))

    def gather_at(
        self,
        kind: Kind,
        users: np.ndarray,
        items: np.ndarray,
        times: np.ndarray,
        *,
        positives: np.ndarray | None = None,
        training: bool = False,
        rng: np.random.Generator | None = None,
    ) -> InstanceBatch:
        """The inputs that instances of any users at any times would have; `gather` gives the same for its rows.

        `items` `[B]` are the target videos (0 if unknown) or the videos being watched, `positives` `[B, Kt]` comments
        that must not be shown as popular.
        """
        users, times = np.asarray(users, np.int32), np.asarray(times, np.float64)
        ends = self._timeline.before(users, times), self.records.visible_end(users, times)
        moments = Moments(users, np.asarray(items, np.int32), times, *ends)
        empty = np.zeros((len(users), 1), np.int32)
        targets = Targets(kind, *moments, empty if positives is None else np.asarray(positives, np.int32))
        return self._histories.assemble(targets, _generator(training, rng))

    def popular(
        self,
        items: np.ndarray,
        times: np.ndarray,
        users: np.ndarray,
        *,
        top: int,
        exclude: np.ndarray | None = None,
    ) -> NDArray[np.int32]:
        """The `top` most popular comments `[Q, top]` of videos as users may see them at times, best first, 0 for none.

        `exclude` `[Q, X]`: comments never to be shown, 0-padded.
        """
        items, users = np.asarray(items), np.asarray(users)
        pairs = None
        if exclude is not None:
            exclude = np.asarray(exclude)
            row, column = np.nonzero(exclude)
            pairs = row, exclude[row, column]
        own = self._popular.own_groups(users, items)
        return self._popular.top(items, np.asarray(times, np.float64), own, top, pairs)

    def reachable(self, kinds: Sequence[Kind] = ("video",)) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The items and comments (ids, ascending) whose text some instance of the kinds can show or rank.

        Items: all, since every one is a candidate. Comments: those of every history (in training all a step may draw);
        for kind "comment" also the positives and the candidates, all but the replies under the videos being watched.
        """
        shown = np.zeros(self.n_comments, bool)
        total = sum(len(self._instances(kind)) for kind in kinds)
        with tqdm(total=total, desc="reachable comments", unit="instance", disable=None) as bar:
            for kind in kinds:
                for phase in range(len(PHASES)):
                    rows = self.rows(kind, phase)
                    for begin in range(0, len(rows), _CHUNK):
                        chunk = rows[begin : begin + _CHUNK]
                        self._mark_shown(kind, chunk, self.popular_top if phase == TRAIN else 1, shown)
                        bar.update(len(chunk))
        if "comment" in kinds:
            watched = np.zeros(self.n_items, bool)
            watched[self.comments.item] = True
            shown |= watched[self.tables.comment_item] & ~self.tables.comment_is_reply
            shown[self.records.comments] = True
        shown[0] = False
        return np.arange(1, self.n_items), np.flatnonzero(shown)

    @property
    def comment_pool(self) -> Pool:
        """The comments that are no replies, by video and, within one, oldest first (then in file order)."""
        return self._popular.pool

    @cached_property
    def comment_timeline(self) -> CommentTimeline:
        """Where each comment instance's negatives stand."""
        return CommentTimeline(self)

    @property
    def item_available_from(self) -> NDArray[np.float64]:
        """The time `[n_items]` from which a video can be a candidate under `available`, -inf if unknown."""
        return self.tables.item_time

    def memory(self) -> dict[str, int]:
        """Bytes held beyond the tables, by part."""
        parts = {"videos": self.videos, "comments": self.comments, "records": self.records, "timeline": self._timeline}
        sizes = {
            name: sum(value.nbytes for value in vars(part).values() if isinstance(value, np.ndarray))
            for name, part in parts.items()
        }
        sizes["counts"] = self.train_item_count.nbytes + self.train_user_count.nbytes + self._histories.own.nbytes
        return {**sizes, **self._popular.memory()}

    def _instances(self, kind: Kind) -> VideoInstances | CommentInstances:
        if kind not in KINDS:
            raise ConfigError(f"instances of kind {kind!r} are not known; accepted are {', '.join(KINDS)}")
        return self.videos if kind == "video" else self.comments

    def _video_events(self) -> tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.bool_]]:
        """The events of the timeline `[V]` that are targets and their phases; which events `[I]` are for training."""
        line = self.tables.timeline
        target = np.ones(len(line.time), bool)
        target[expand(line.offsets[:-1], line.first_end())[1]] = False
        if self.split.kind == "time":  # the other instances decide nothing
            phase = self.split.phases(line.user, line.time)[target]
            training = line.time < self.split.valid_start
        else:
            phase = self.split.phases(line.user[target], line.time[target])
            training = np.ones(len(target), bool)
            training[target] = phase == TRAIN
        return np.arange(len(target), dtype=np.int32)[target], phase, training

    def _comment_instances(self) -> CommentInstances:
        records = self.records
        phase = np.empty(len(records), np.int8)
        # Split by user they have to be in order of their starts; they are in order of their ends.
        order = np.lexsort((records.start, records.user)) if self.split.kind != "time" else slice(None)
        phase[order] = self.split.phases(records.user[order], records.start[order])
        return CommentInstances(
            user=records.user,
            item=records.item,
            time=records.start,
            phase=phase,
            history_end=self.tables.timeline.before(records.user, records.start),
            record_end=records.visible_end(records.user, records.start),
            record=np.arange(len(records)),
        )

    def _check_phases(self, split: Mapping[str, Any]) -> None:
        empty = [PHASES[phase] for phase in self.split.wanted if not (self.videos.phase == phase).any()]
        if empty:
            raise ConfigError(
                f"split = {dict(split)!r}: no video interaction with an earlier one of its user is left for"
                f" {' and '.join(empty)}; choose another split"
            )

    def _target_comments(self, record: np.ndarray | None, n: int) -> NDArray[np.int32]:
        if record is None:
            return np.zeros((n, 1), np.int32)
        begin, end = self.records.offsets[record], self.records.offsets[record + 1]
        comments = np.zeros((n, int((end - begin).max(initial=1))), np.int32)
        row, at = expand(begin, end)
        comments[row, rank_in_group(row)] = self.records.comments[at]
        return comments

    def _mark_shown(self, kind: Kind, rows: np.ndarray, n: int, shown: np.ndarray) -> None:
        targets = self._targets(kind, rows)
        histories, records = self._histories, self.records
        shown[histories.popular_of(targets, histories.video_steps(targets), n)] = True
        steps = histories.record_steps(targets)
        begin = records.offsets[steps.record]
        shown[records.comments[expand(begin, begin + steps.size)[1]]] = True

    def _targets(self, kind: Kind, rows: np.ndarray) -> Targets:
        record = self.comments.record[rows] if kind == "comment" else None
        return Targets(kind, *self._instances(kind).at(rows), self._target_comments(record, len(rows)))


def _generator(training: bool, rng: np.random.Generator | None) -> np.random.Generator | None:
    if training and rng is None:
        raise ValueError("training draws popular comments at random and needs a generator: pass rng")
    return rng if training else None
