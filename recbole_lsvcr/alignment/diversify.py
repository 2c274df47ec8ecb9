"""Comment diversification: the language model and the SR model read different comments of one history (Section 3.3.1).

Pure NumPy over all steps of a batch at once. Functions take the random numbers they use, `Draws` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_lsvcr.alignment.prompts import MAX_COMMENTS
from recbole_lsvcr.errors import ConfigError

Ids = NDArray[np.int32]
Flags = NDArray[np.bool_]
Uniform = NDArray[np.float64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_WORD = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class DiversifyConfig:
    """What is diversified, and how often; a value that cannot be used raises ConfigError.

    videos, records: switches; both False is the ablation without comment diversification.
    *_instance, *_step: probability that an instance is diversified at all, and then each of its steps.
    video_top: a step shows one of so many most popular comments of its video (1: always the most popular one).
    record_top: virtual comments are drawn from so many most popular ones.
    record_comments: a record shows at most so many of its comments, up to what an instruction has room for.
    """

    videos: bool = True
    records: bool = True
    video_instance: float = 0.5
    video_step: float = 0.3
    record_instance: float = 0.5
    record_step: float = 0.3
    video_top: int = 3
    record_top: int = 10
    record_comments: int = MAX_COMMENTS

    def __post_init__(self) -> None:
        for name in ("videos", "records"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}={getattr(self, name)!r} is not accepted: give true or false.")
        for name in ("video_instance", "video_step", "record_instance", "record_step"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= 1:
                raise ConfigError(f"{name}={value!r} is not accepted: give a probability from 0 to 1.")
        for name in ("video_top", "record_top", "record_comments"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name}={value!r} is not accepted: give a whole number of at least 1.")
        if self.record_comments > MAX_COMMENTS:
            raise ConfigError(
                f"record_comments={self.record_comments} is not accepted: an entry of an instruction has room for "
                f"{MAX_COMMENTS}; give at most that."
            )

    def held_out(self) -> DiversifyConfig:
        """What held-out instances are read with: nothing is diversified and every video shows its top comment."""
        return replace(self, videos=False, records=False, video_top=1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Use(IntEnum):
    """What a random number is drawn for; each use has numbers of its own."""

    TARGET = 0
    SLOT_ORDER = 1
    VIDEO_INSTANCE = 2
    VIDEO_STEP = 3
    VIDEO_COMMENT = 4
    RECORD_INSTANCE = 5
    RECORD_STEP = 6
    RECORD_CUT = 7
    VIRTUAL = 8
    DEAL = 9


class Draws:
    """Random numbers of its own for every instance of a batch.

    A number is a function of (seed, step seed, instance, use, step, column), so that neither the other instances of the
    batch nor the processes that make batches decide it. Each index picks the number that SplitMix64 (Steele et al.
    2014), started at what the indices before it picked, gives in that place.
    """

    def __init__(self, seed: int, step_seed: int, *instance: np.ndarray) -> None:
        """`instance`: one or more integer arrays `[B]` that together name each instance."""
        state = _pick(_pick(np.zeros(len(instance[0]), np.uint64), seed & _WORD), step_seed & _WORD)
        for index in instance:
            state = _pick(state, index)
        self._state = state  # [B]

    def of_instances(self, use: Use, width: int = 1) -> Uniform:
        """Numbers in [0, 1) `[B, width]`."""
        return _numbers(_pick(self._state, use), width)

    def of_steps(self, use: Use, row: np.ndarray, step: np.ndarray, width: int = 1) -> Uniform:
        """Numbers in [0, 1) `[S, width]` for the steps `step` `[S]` of the instances `row` `[S]` of the batch."""
        return _numbers(_pick(_pick(self._state, use)[row], step), width)


def _pick(state: np.ndarray, index: np.ndarray | int) -> NDArray[np.uint64]:
    """The `index`-th numbers of the sequences started at `state`; the shapes broadcast."""
    mixed = state + (np.atleast_1d(np.asarray(index, np.uint64)) + 1) * _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FACTORS[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _FACTORS[1]
    return mixed ^ (mixed >> np.uint64(31))


def _numbers(state: np.ndarray, width: int) -> Uniform:
    return (_pick(state[:, None], np.arange(width)) >> np.uint64(11)) * 2.0**-53


class Sides(NamedTuple):
    """Comments of the same steps for the language model's text and for the SR model's input."""

    llm: Ids  # [S] or [S, R]
    sr: Ids


def chosen_videos(config: DiversifyConfig, draws: Draws, row: np.ndarray, step: np.ndarray) -> Flags:
    """Which steps `[S]` of the video histories are diversified."""
    chosen = _chosen(draws.of_instances(Use.VIDEO_INSTANCE), config.video_instance)[row]
    return chosen & _chosen(draws.of_steps(Use.VIDEO_STEP, row, step), config.video_step) & config.videos


def chosen_records(config: DiversifyConfig, draws: Draws, row: np.ndarray, step: np.ndarray) -> Flags:
    """Which steps `[S]` of the comment histories are diversified."""
    chosen = _chosen(draws.of_instances(Use.RECORD_INSTANCE), config.record_instance)[row]
    return chosen & _chosen(draws.of_steps(Use.RECORD_STEP, row, step), config.record_step) & config.records


def _chosen(numbers: Uniform, probability: float) -> Flags:
    return numbers[:, 0] < probability


def video_sides(top: Ids, diversified: Flags, numbers: Uniform) -> Sides:
    """One popular comment `[S]` for each side: two different ones of `top` where `diversified`, else the same.

    `top` `[S, n]`: a video's most popular comments, 0 behind the last; a single one is for both sides, and 0 stands for
    none. `numbers` `[S, 2]`.
    """
    steps, available = np.arange(len(top)), (top > 0).sum(axis=1)
    first = (numbers[:, 0] * available).astype(np.int64)
    further = 1 + (numbers[:, 1] * (available - 1)).astype(np.int64)
    second = np.where(diversified & (available > 1), (first + further) % np.maximum(available, 1), first)
    return Sides(top[steps, first], top[steps, second])


def cut_records(comments: Ids, limit: int, numbers: Uniform) -> Ids:
    """At most `limit` random comments `[S, limit]` of every record, in its order, 0 behind the last.

    `comments` `[S, K]`, 0 behind the last; `numbers` `[S, K]`.
    """
    kept = np.sort(_random_order(comments > 0, numbers)[:, :limit], axis=1)
    taken = np.take_along_axis(comments, kept, axis=1)
    # Where a record is short, the places behind its last comment were taken, too: in its order they stand last.
    return np.pad(taken, ((0, 0), (0, limit - taken.shape[1])))


def draw_virtual(popular: Ids, record: Ids, size: np.ndarray, width: int, numbers: Uniform) -> Ids:
    """`size` `[S]` virtual comments of every record, 0 behind the last: `[S, width]`.

    They are different ones of `popular` `[S, P]` (0 behind the last) that are not in `record` `[S, K]`; where there are
    too few they are repeated in turn, where there is none all are 0. `numbers` `[S, P]`.
    """
    usable = (popular > 0) & ~(popular[:, :, None] == record[:, None, :]).any(axis=2)
    available = usable.sum(axis=1)
    in_turn = np.arange(width) % np.maximum(available, 1)[:, None]
    drawn = np.take_along_axis(popular, np.take_along_axis(_random_order(usable, numbers), in_turn, axis=1), axis=1)
    return np.where((np.arange(width) < size[:, None]) & (available > 0)[:, None], drawn, 0)


def deal(real: Ids, virtual: Ids, numbers: Uniform) -> Sides:
    """Shuffles real and virtual comments `[S, R]`, as many of each, and deals them to the two sides in turn.

    `numbers` `[S, 2R]`. 0 is no comment and comes behind the last.
    """
    both = np.concatenate([real, virtual], axis=1)
    shuffled = np.take_along_axis(both, _random_order(both > 0, numbers), axis=1)
    return Sides(shuffled[:, 0::2], shuffled[:, 1::2])


def record_sides(
    config: DiversifyConfig,
    draws: Draws,
    row: np.ndarray,
    step: np.ndarray,
    comments: Ids,
    diversified: Flags,
    popular: Ids,
) -> Sides:
    """Comments `[S, record_comments]` of every record for each side, 0 behind the last.

    `comments` `[S, K]` are the records' own. `popular` `[D, P]` belongs to the `D` steps that are `diversified` `[S]`;
    one whose video has no popular comment beyond the record's shows the same comments on both sides.
    """
    width = config.record_comments
    real = cut_records(comments, width, draws.of_steps(Use.RECORD_CUT, row, step, comments.shape[1]))
    at = np.flatnonzero(diversified)
    size = (real[at] > 0).sum(axis=1)
    numbers = draws.of_steps(Use.VIRTUAL, row[at], step[at], popular.shape[1])
    virtual = draw_virtual(popular, comments[at], size, width, numbers)
    found = virtual[:, 0] > 0
    at, virtual = at[found], virtual[found]
    dealt = deal(real[at], virtual, draws.of_steps(Use.DEAL, row[at], step[at], 2 * width))
    llm, sr = real.copy(), real.copy()
    llm[at], sr[at] = dealt
    return Sides(llm, sr)


def _random_order(usable: Flags, numbers: Uniform) -> NDArray[np.int64]:
    """Columns `[S, n]` in random order, the usable ones first and the others as they stand."""
    return np.argsort(np.where(usable, numbers, 2.0), axis=1, kind="stable")
