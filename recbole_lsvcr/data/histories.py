"""Cutting histories out of flat arrays, for a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_lsvcr.data.instances import InstanceBatch, Kind, TimedBatch
from recbole_lsvcr.data.layouts import Timeline
from recbole_lsvcr.data.popular import PopularComments
from recbole_lsvcr.data.records import Records
from recbole_lsvcr.data.segments import expand, rank_in_group

# Under one video, records that end within `record_gap` of each other are cut by a split boundary, and there are two.
_RECENT_RECORDS = 3


@dataclass(frozen=True)
class Targets:
    """What inputs are gathered for: `B` users at a time with a target video or a video being watched."""

    kind: Kind
    user: NDArray[np.int32]  # [B]
    item: NDArray[np.int32]
    time: NDArray[np.float64]
    history_end: NDArray[np.integer[Any]]  # as in `Moments`
    record_end: NDArray[np.integer[Any]]
    positives: NDArray[np.int32]  # [B, Kt] 0-padded

    def __len__(self) -> int:
        return len(self.user)


class VideoSteps(NamedTuple):
    """The video histories of a batch, one after the other, oldest first."""

    row: NDArray[np.int64]  # [S] of the batch
    event: NDArray[np.int64]  # [S] of the timeline


class RecordSteps(NamedTuple):
    """The comment histories of a batch, one after the other, oldest first."""

    row: NDArray[np.int64]  # [S] of the batch
    record: NDArray[np.int64]
    size: NDArray[np.int64]  # comments of the record so far
    end: NDArray[np.float64]  # its last interaction so far

    def take(self, index: np.ndarray) -> RecordSteps:
        return RecordSteps(*(values[index] for values in self))


@dataclass(frozen=True)
class Histories:
    """Gathers the inputs of targets; see `JointData` for what they may hold."""

    timeline: Timeline
    records: Records
    popular: PopularComments
    own: NDArray[np.int32]  # [I] `PopularComments.own_groups` of every event of the timeline
    max_videos: int
    max_records: int
    record_gap: float
    popular_top: int
    times: bool = False  # gather `TimedBatch`es

    def assemble(self, targets: Targets, rng: np.random.Generator | None) -> InstanceBatch:
        """The batch of `targets`; popular comments are drawn from the top ones with `rng`, or the first without."""
        steps = self.video_steps(targets)
        video_column = rank_in_group(steps.row)
        top = self.popular_of(targets, steps, 1 if rng is None else self.popular_top)
        video_items, video_comments = np.zeros((2, len(targets), self.max_videos), np.int32)
        video_items[steps.row, video_column] = self.timeline.item[steps.event]
        video_comments[steps.row, video_column] = _pick(top, rng)
        records = self.record_steps(targets)
        record_items = np.zeros((len(targets), self.max_records), np.int32)
        column = rank_in_group(records.row)
        record_items[records.row, column] = self.records.item[records.record]
        batch = InstanceBatch(
            user=targets.user,
            item=targets.item,
            time=targets.time,
            video_items=video_items,
            video_comments=video_comments,
            video_len=_lengths(steps.row, len(targets)),
            record_items=record_items,
            record_comments=self._record_comments(records, column, len(targets)),
            record_len=_lengths(records.row, len(targets)),
            target_comments=targets.positives,
        )
        if not self.times:
            return batch
        video_times, record_times = np.zeros(video_items.shape), np.zeros(record_items.shape)
        video_times[steps.row, video_column] = self.timeline.time[steps.event]
        record_times[records.row, column] = records.end
        return TimedBatch(**vars(batch), video_times=video_times, record_times=record_times)

    def video_steps(self, targets: Targets) -> VideoSteps:
        """The last `max_videos` events before each target."""
        begin = np.maximum(self.timeline.offsets[targets.user], targets.history_end - self.max_videos)
        return VideoSteps(*expand(begin, targets.history_end))

    def popular_of(self, targets: Targets, steps: VideoSteps, n: int) -> NDArray[np.int32]:
        """The `n` most popular comments `[S, n]` of every step, never a positive of its target."""
        items = self.timeline.item[steps.event]
        exclude = None
        # Positives are comments of the target's video, so only its own occurrences in the history can show them.
        watched = np.flatnonzero(items == targets.item[steps.row])
        if targets.positives.any() and len(watched):
            at, column = np.nonzero(targets.positives[steps.row[watched]])
            exclude = watched[at], targets.positives[steps.row[watched[at]], column]
        return self.popular.top(items, targets.time[steps.row], self.own[steps.event], n, exclude)

    def record_steps(self, targets: Targets) -> RecordSteps:
        """The last `max_records` records of each target's user as they are known strictly before its time.

        For a target video, records under it that are younger than `record_gap` are left out: writing under a video says
        that it was watched.
        """
        records = self.records
        spare = _RECENT_RECORDS if targets.kind == "video" else 0
        begin = np.maximum(records.user_offsets[targets.user], targets.record_end - self.max_records - spare)
        row, record = expand(begin, targets.record_end)
        steps = RecordSteps(row, record, records.offsets[record + 1] - records.offsets[record], records.end[record])
        steps = self._with_growing_records(targets, steps)
        if targets.kind == "video":
            recent = targets.time[steps.row] - steps.end < self.record_gap
            steps = steps.take(np.flatnonzero(~recent | (records.item[steps.record] != targets.item[steps.row])))
        left = np.bincount(steps.row, minlength=len(targets))[steps.row] - rank_in_group(steps.row)
        return steps.take(np.flatnonzero(left <= self.max_records))

    def _with_growing_records(self, targets: Targets, steps: RecordSteps) -> RecordSteps:
        """Add the early forms of the records that go on at a target's time or later."""
        records = self.records
        row, form = expand(*records.early_range(targets.user, targets.time, self.record_gap))
        growing = records.early_next[form] >= targets.time[row]
        row, form = row[growing], form[growing]
        if not len(row):
            return steps
        early = RecordSteps(row, records.early_record[form], records.early_size[form], records.early_end[form])
        both = RecordSteps(*(np.concatenate(pair) for pair in zip(steps, early, strict=True)))
        tie_breakers = records.item[both.record], records.start[both.record]
        return both.take(np.lexsort((*tie_breakers, both.end, both.row)))

    def _record_comments(self, steps: RecordSteps, column: np.ndarray, n_rows: int) -> NDArray[np.int32]:
        """`[B, Lc, K]` the comments of every record of the histories."""
        begin = self.records.offsets[steps.record]
        step, at = expand(begin, begin + steps.size)
        comments = np.zeros((n_rows, self.max_records, int(steps.size.max(initial=1))), np.int32)
        comments[steps.row[step], column[step], at - begin[step]] = self.records.comments[at]
        return comments


def _pick(top: np.ndarray, rng: np.random.Generator | None) -> NDArray[np.int32]:
    """One comment of each row of `top` `[S, n]` (0 behind the last): a random one, or the first without `rng`."""
    if rng is None:
        return top[:, 0]
    available = (top > 0).sum(axis=1)
    drawn = (rng.random(len(top)) * available).astype(np.int64)
    return top[np.arange(len(top)), drawn]


def _lengths(rows: np.ndarray, n: int) -> NDArray[np.int32]:
    return np.bincount(rows, minlength=n).astype(np.int32)
