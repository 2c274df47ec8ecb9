"""The instances that alignment learns from: those of both tasks together, in a seeded order, with their texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_lsvcr.data.instances import KINDS, InstanceBatch, Kind
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import PHASES, TRAIN
from recbole_lsvcr.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_HELD_OUT = 1  # the validation phase; nothing in alignment looks at test instances


@dataclass(frozen=True)
class Inputs:
    """What `B` instances of both tasks are made of; histories stand on the left, oldest first, 0 is padding.

    Each width is what the batch needs, and at least 1.
    """

    is_video: NDArray[np.bool_]  # [B]
    user: NDArray[np.int32]  # [B]
    item: NDArray[np.int32]  # [B] the target video, or the video being watched
    time: NDArray[np.float64]  # [B]
    video_items: NDArray[np.int32]  # [B, n]
    video_len: NDArray[np.int32]  # [B]
    record_items: NDArray[np.int32]  # [B, m]
    record_comments: NDArray[np.int32]  # [B, m, K] all of a record's
    record_len: NDArray[np.int32]  # [B]
    positives: NDArray[np.int32]  # [B, Kt] of a target record; zeros for videos


class AlignmentInstances:
    """The union of the video and comment instances of a phase of `data`, those whose target has a text.

    A position in the union is a row. `left_out` says by task how many instances have a target without any text.
    """

    def __init__(self, data: JointData, *, tasks: Sequence[Kind] = KINDS, phase: int = TRAIN, seed: int = 2026) -> None:
        """`phase` 0 is training, 1 (validation) gives held-out instances. `seed` decides the order of every epoch.

        Raises:
            ConfigError: unknown, repeated or no tasks; another phase. DataError: no instance at all.
        """
        if not tasks or len(set(tasks)) < len(tasks) or not set(tasks) <= set(KINDS):
            raise ConfigError(f"tasks = {list(tasks)!r}: give one or both of {', '.join(KINDS)}")
        if phase not in (TRAIN, _HELD_OUT):
            raise ConfigError(f"phase = {phase!r}: alignment reads phase 0 (train) or 1 (valid) only")
        self.data, self.phase, self.seed = data, phase, seed
        self.tasks = tuple(kind for kind in KINDS if kind in tasks)
        self._has_text = _comments_with_text(data)
        rows = {kind: data.rows(kind, phase) for kind in self.tasks}
        aligned = {kind: found[self._target_has_text(kind, found)] for kind, found in rows.items()}
        self.left_out = {kind: len(rows[kind]) - len(aligned[kind]) for kind in self.tasks}
        self._row = np.concatenate([aligned[kind] for kind in self.tasks])
        self._is_video = np.repeat([kind == "video" for kind in self.tasks], [len(aligned[k]) for k in self.tasks])
        for kind, count in self.left_out.items():
            if count:
                logger.info("%d %s instances of phase %s have a target without text", count, kind, PHASES[phase])
        if not len(self):
            raise DataError(
                f"data set {data.tables.name!r} has no {PHASES[phase]} instance of {' or '.join(self.tasks)} with a "
                "target that has a text; choose other tasks or another split"
            )

    def __len__(self) -> int:
        return len(self._row)

    @property
    def data_rows(self) -> NDArray[np.int64]:
        """Where each row stands among `data.videos` or `data.comments` `[len]`."""
        return self._row

    @property
    def is_video(self) -> NDArray[np.bool_]:
        """Which rows are video instances `[len]`."""
        return self._is_video

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All rows, shuffled by (seed, epoch)."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self))

    def inputs(self, rows: np.ndarray | Sequence[int], max_history: int) -> Inputs:
        """What the instances `rows` `[B]` are made of, histories cut to their newest `max_history` steps."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} of {len(self)} alignment instances")
        is_video = self._is_video[rows]
        parts = []
        for kind in self.tasks:
            at = np.flatnonzero(is_video == (kind == "video"))
            parts.append((at, self.data.gather(kind, self._row[rows[at]], training=False)))
        merged = {f.name: _merged([(at, getattr(batch, f.name)) for at, batch in parts]) for f in fields(InstanceBatch)}
        videos, records = merged["video_len"], merged["record_len"]
        return Inputs(
            is_video=is_video,
            user=merged["user"],
            item=merged["item"],
            time=merged["time"],
            video_items=_newest(merged["video_items"], videos, max_history),
            video_len=np.minimum(videos, max_history),
            record_items=_newest(merged["record_items"], records, max_history),
            record_comments=_newest(merged["record_comments"], records, max_history),
            record_len=np.minimum(records, max_history),
            positives=merged["target_comments"],
        )

    def popular(self, inputs: Inputs, row: np.ndarray, items: np.ndarray, top: int) -> NDArray[np.int32]:
        """The `top` most popular comments `[S, top]` of videos `items` `[S]` as the instances `row` `[S]` of `inputs`
        may show them, best first, 0 for none; never a positive of the target.
        """
        # Positives are comments of the video being watched: other videos cannot show them.
        positives = np.where((items == inputs.item[row])[:, None], inputs.positives[row], 0)
        return self.data.popular(items, inputs.time[row], inputs.user[row], top=top, exclude=positives)

    def draw_positives(self, inputs: Inputs, numbers: np.ndarray) -> NDArray[np.int32]:
        """One positive `[B]` of every target record that has a text, by a number in [0, 1) each `[B]`; 0 for videos."""
        usable = self._has_text[inputs.positives]  # [B, Kt]
        drawn = (numbers * usable.sum(axis=1)).astype(np.int64)
        column = (usable.cumsum(axis=1) <= drawn[:, None]).sum(axis=1)
        column = np.where(inputs.is_video, 0, column)
        return np.take_along_axis(inputs.positives, column[:, None], axis=1)[:, 0]

    def titles(self, items: np.ndarray) -> list[str]:
        """The titles of item ids."""
        return self.data.tables.titles.gather(items).to_list()

    def comments(self, comments: np.ndarray) -> list[str]:
        """The texts of comment ids."""
        return self.data.tables.contents.gather(comments).to_list()

    def _target_has_text(self, kind: Kind, rows: np.ndarray) -> NDArray[np.bool_]:
        if kind == "video":
            return _has_text(self.data.tables.titles)[self.data.videos.item[rows]]
        records = self.data.records
        texts = np.append(0, np.cumsum(self._has_text[records.comments]))  # of the comments before each
        of_record = texts[records.offsets[1:]] - texts[records.offsets[:-1]]
        return of_record[self.data.comments.record[rows]] > 0


def _comments_with_text(data: JointData) -> NDArray[np.bool_]:
    """Which comments `[n_comments]` of some record have a text; False for all others, which can be no target."""
    written = np.unique(data.records.comments)
    result = np.zeros(data.n_comments, bool)
    result[written] = _has_text(data.tables.contents.gather(written))
    return result


def _has_text(texts: pl.Series) -> NDArray[np.bool_]:
    return (texts.str.strip_chars() != "").to_numpy()


def _merged(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """One array of parts `(places, values)` that differ in their last width at most; 0 behind the shorter."""
    total, widths = sum(len(at) for at, _ in parts), [values.shape[1:] for _, values in parts]
    merged = np.zeros((total, *np.max(widths, axis=0).astype(int)), parts[0][1].dtype)
    for at, values in parts:
        merged[(at, *(slice(width) for width in values.shape[1:]))] = values
    return merged


def _newest(values: np.ndarray, length: np.ndarray, limit: int) -> np.ndarray:
    """The last `limit` steps of histories `[B, L, …]` that stand on the left, moved to the left: `[B, n, …]`."""
    width = max(int(np.minimum(length, limit).max(initial=1)), 1)
    column = np.maximum(length - limit, 0)[:, None] + np.arange(width)  # [B, n]
    inside = column < length[:, None]
    taken = values[np.arange(len(values))[:, None], np.minimum(column, values.shape[1] - 1)]
    return np.where(inside.reshape(*inside.shape, *[1] * (values.ndim - 2)), taken, 0)
