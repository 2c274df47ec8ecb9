"""What the joint data set holds and hands out: instances, and their inputs batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_lsvcr.data.layouts import Timeline

Kind = Literal["video", "comment"]
KINDS: tuple[Kind, ...] = ("video", "comment")


class Moments(NamedTuple):
    """Users and videos at times `[B]`, and where the users' histories end then."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    time: NDArray[np.float64]
    history_end: NDArray[np.integer[Any]]  # the video history ends before this event of the timeline
    record_end: NDArray[np.integer[Any]]  # the comment history ends before this record


@dataclass(frozen=True)
class VideoInstances:
    """A target video each: every video interaction with a strictly earlier one of its user; by user, then time.

    What is known of an instance stands in the timeline; a column of all instances is made when it is asked for.
    """

    timeline: Timeline
    event: NDArray[np.int32]  # [V] the target's place in the timeline
    phase: NDArray[np.int8]
    record_end: NDArray[np.int32]  # [I] the comment history of every event of the timeline ends before this record

    def __len__(self) -> int:
        return len(self.event)

    def at(self, rows: np.ndarray) -> Moments:
        """When and for whom the instances `rows` `[B]` are."""
        line, event = self.timeline, self.event[rows]
        ends = line.before_events(event), self.record_end[event]
        return Moments(line.user[event], line.item[event], line.time[event], *ends)

    @cached_property
    def user(self) -> NDArray[np.int32]:
        return self.timeline.user[self.event]

    @cached_property
    def item(self) -> NDArray[np.int32]:
        return self.timeline.item[self.event]

    @cached_property
    def time(self) -> NDArray[np.float64]:
        return self.timeline.time[self.event]


@dataclass(frozen=True)
class CommentInstances:
    """A target record each, in the order of the records; `time` is its start and `item` the video being watched."""

    user: NDArray[np.int32]  # [C]
    item: NDArray[np.int32]
    time: NDArray[np.float64]
    phase: NDArray[np.int8]
    history_end: NDArray[np.int64]  # the video history ends before this event of the timeline
    record_end: NDArray[np.int64]  # the comment history ends before this record
    record: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.record)

    def at(self, rows: np.ndarray) -> Moments:
        """When and for whom the instances `rows` `[B]` are."""
        columns = self.user, self.item, self.time, self.history_end, self.record_end
        return Moments(*(column[rows] for column in columns))


@dataclass(frozen=True)
class InstanceBatch:
    """The inputs and targets of `B` instances; sequences stand on the left, oldest first, 0 is padding.

    `Lv` and `Lc` are `max_videos` and `max_records`; `K` and `Kt` the most comments of a record in the batch, or 1.
    """

    user: NDArray[np.int32]  # [B]
    item: NDArray[np.int32]  # [B] the target video; for a target record the video being watched
    time: NDArray[np.float64]  # [B]
    video_items: NDArray[np.int32]  # [B, Lv]
    video_comments: NDArray[np.int32]  # [B, Lv] one popular comment each, 0 for none
    video_len: NDArray[np.int32]  # [B]
    record_items: NDArray[np.int32]  # [B, Lc]
    record_comments: NDArray[np.int32]  # [B, Lc, K]
    record_len: NDArray[np.int32]  # [B]
    target_comments: NDArray[np.int32]  # [B, Kt] the positives of a target record, [B, 1] zeros for videos

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class TimedBatch(InstanceBatch):
    """A batch that says when the steps of both histories were, for models that merge them; 0 is padding."""

    video_times: NDArray[np.float64]  # [B, Lv]
    record_times: NDArray[np.float64]  # [B, Lc] each record's last interaction before the instance's time
