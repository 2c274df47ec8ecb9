"""What the joint data set holds and hands out: instances, and their inputs batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["video", "comment"]
KINDS: tuple[Kind, ...] = ("video", "comment")


@dataclass(frozen=True)
class VideoInstances:
    """A target video each: every video interaction with a strictly earlier one of its user; by user, then time."""

    user: NDArray[np.int32]  # [V]
    item: NDArray[np.int32]
    time: NDArray[np.float64]
    phase: NDArray[np.int8]
    history_end: NDArray[np.int64]  # the video history ends before this video event (user-major)
    record_end: NDArray[np.int64]  # the comment history ends before this record

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class CommentInstances(VideoInstances):
    """A target record each, in the order of the records; `time` is its start and `item` the video being watched."""

    record: NDArray[np.int64]  # [C]


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
