"""Batches of alignment: instances in, ids of their distinct short texts and the language model's tokens out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_lsvcr.alignment.diversify import (
    DiversifyConfig,
    Draws,
    Sides,
    Use,
    chosen_records,
    chosen_videos,
    record_sides,
    video_sides,
)
from recbole_lsvcr.alignment.instances import AlignmentInstances, Inputs
from recbole_lsvcr.alignment.prompts import Entry, InstructionInput, Instructions
from recbole_lsvcr.data.splits import TRAIN
from recbole_lsvcr.errors import ConfigError

IGNORED = -100  # the label of a position that L_LM leaves out


@dataclass(frozen=True)
class AlignmentBatch:
    """`B` instances of both tasks; tensors are int64 unless said. Steps stand on the left, oldest first.

    Text rows point into the embedded table of `texts`: row u + 1 is `texts[u]`, row 0 the empty text and padding.
    """

    is_video: Tensor  # bool [B]
    texts: list[str]  # [U] distinct, none empty
    video_titles: Tensor  # [B, n] text rows
    video_comments: Tensor  # [B, n] the SR side's popular comment, 0 for none
    video_len: Tensor  # [B]
    record_titles: Tensor  # [B, m]
    record_comments: Tensor  # [B, m, K] the SR side's, 0 behind the last
    record_counts: Tensor  # [B, m] of them, empty ones included
    record_len: Tensor  # [B]
    watched: Tensor  # [B] title of the video being watched, 0 for video instances
    target: Tensor  # [B] the next video's title, or the comment
    target_key: Tensor  # [B] equal for equal target texts, in every batch of every process
    input_ids: Tensor  # [B, T] instruction, target, EOS
    attention_mask: Tensor  # [B, T]
    labels: Tensor  # [B, T] token ids of target and EOS, by position; -100 elsewhere
    last_instruction: Tensor  # [B] position of the last token of the instruction

    def __len__(self) -> int:
        return len(self.is_video)

    def instructions_of(self, rows: Tensor) -> AlignmentBatch:
        """The batch with the instructions of `rows` `[R]` only, without the columns that are padding in all of them;
        everything else stays as it is.
        """
        used = self.attention_mask[rows].any(0).nonzero().squeeze(1)
        kept = slice(int(used[0]), int(used[-1]) + 1)
        return replace(
            self,
            input_ids=self.input_ids[rows, kept],
            attention_mask=self.attention_mask[rows, kept],
            labels=self.labels[rows, kept],
            last_instruction=self.last_instruction[rows] - kept.start,
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> AlignmentBatch:
        """The same on another device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class _Shown:
    """The comments an instance shows on both sides, and its target; ids, 0 for none."""

    videos: Sides  # [B, n] each
    records: Sides  # [B, m, R] each
    target: np.ndarray  # [B] the comment of a comment instance

    @property
    def in_table(self) -> np.ndarray:
        """Ids that are encoded as short texts: what the SR model reads and the targets, not what instructions add."""
        return np.concatenate([self.videos.sr, self.records.sr, self.target], axis=None)


class AlignmentCollator:
    """Makes `AlignmentBatch`es of rows of `AlignmentInstances`.

    Whatever is random about an instance (its target among the positives of a record, the order of the two histories in
    the instruction, which comments each side sees) is a function of `seed`, the step seed and the instance: the same in
    any batch, process and resumed run. Held-out instances are not diversified and show a video's top comment.
    """

    def __init__(
        self,
        instances: AlignmentInstances,
        instructions: Instructions,
        *,
        diversify: DiversifyConfig | None = None,
        max_history: int = 20,
        instruction_history: int | None = None,
        padding_side: Literal["left", "right"] = "right",
        seed: int = 2026,
    ) -> None:
        """`max_history` steps of each history are read, and the newest `instruction_history` of them (default: all)
        stand in the instruction. A tokenizer without a pad token is padded with EOS, which the masks tell apart.

        Raises:
            ConfigError: an argument out of range.
        """
        shown = max_history if instruction_history is None else instruction_history
        for name, value in (("max_history", max_history), ("instruction_history", shown)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name}={value!r} is not accepted: give a whole number of at least 1.")
        if padding_side not in ("left", "right"):
            raise ConfigError(f"padding_side={padding_side!r} is not accepted: give left or right.")
        diversify = diversify or DiversifyConfig()
        self.diversify = diversify if instances.phase == TRAIN else diversify.held_out()
        self.instances, self.instructions, self.seed = instances, instructions, seed
        self.max_history, self.instruction_history = max_history, shown
        self.padding_side = padding_side

    def __call__(self, rows: Sequence[int] | np.ndarray, step_seed: int) -> AlignmentBatch:
        """The batch of `rows` `[B]` of the instances; `step_seed` (an epoch, say) makes an instance's draws new."""
        inputs = self.instances.inputs(rows, self.max_history)
        draws = Draws(self.seed, step_seed, inputs.is_video, inputs.user, inputs.item, inputs.time.view(np.uint64))
        shown = _Shown(
            self._video_comments(inputs, draws),
            self._record_comments(inputs, draws),
            self.instances.draw_positives(inputs, draws.of_instances(Use.TARGET)[:, 0]),
        )
        titles = _Texts(self.instances.titles, inputs.video_items, inputs.record_items, inputs.item)
        comments = _Texts(self.instances.comments, *shown.videos, *shown.records, shown.target)
        table: dict[str, int] = {}
        titles.enter(table, titles.ids)
        comments.enter(table, shown.in_table)
        is_video = inputs.is_video
        targets = np.where(is_video, titles.of(inputs.item), comments.of(shown.target)).tolist()
        return AlignmentBatch(
            is_video=torch.from_numpy(is_video),
            texts=list(table),
            video_titles=_tensor(titles.rows(inputs.video_items)),
            video_comments=_tensor(comments.rows(shown.videos.sr)),
            video_len=_tensor(inputs.video_len),
            record_titles=_tensor(titles.rows(inputs.record_items)),
            record_comments=_tensor(comments.rows(shown.records.sr)),
            record_counts=_tensor((shown.records.sr > 0).sum(axis=2)),
            record_len=_tensor(inputs.record_len),
            watched=_tensor(np.where(is_video, 0, titles.rows(inputs.item))),
            target=_tensor(np.where(is_video, titles.rows(inputs.item), comments.rows(shown.target))),
            target_key=_tensor(np.array([_key(text) for text in targets], np.int64)),
            **self._tokens(self._instructions(inputs, draws, shown, titles, comments), targets),
        )

    def _video_comments(self, inputs: Inputs, draws: Draws) -> Sides:
        row, step = np.nonzero(inputs.video_items)
        top = self.instances.popular(inputs, row, inputs.video_items[row, step], self.diversify.video_top)
        numbers = draws.of_steps(Use.VIDEO_COMMENT, row, step, 2)
        sides = video_sides(top, chosen_videos(self.diversify, draws, row, step), numbers)
        return Sides(*(_scattered(side, row, step, inputs.video_items.shape) for side in sides))

    def _record_comments(self, inputs: Inputs, draws: Draws) -> Sides:
        row, step = np.nonzero(inputs.record_items)
        chosen = chosen_records(self.diversify, draws, row, step)
        items = inputs.record_items[row[chosen], step[chosen]]
        popular = self.instances.popular(inputs, row[chosen], items, self.diversify.record_top)
        sides = record_sides(self.diversify, draws, row, step, inputs.record_comments[row, step], chosen, popular)
        shape = (*inputs.record_items.shape, self.diversify.record_comments)
        return Sides(*(_scattered(side, row, step, shape) for side in sides))

    def _instructions(
        self, inputs: Inputs, draws: Draws, shown: _Shown, titles: _Texts, comments: _Texts
    ) -> list[InstructionInput]:
        order = (draws.of_instances(Use.SLOT_ORDER)[:, 0] * 2).astype(int).tolist()
        video_titles, record_titles = titles.of(inputs.video_items), titles.of(inputs.record_items)
        popular, written = comments.of(shown.videos.llm[:, :, None]), comments.of(shown.records.llm)
        watched = titles.of(np.where(inputs.is_video, 0, inputs.item))
        videos = self._entries(video_titles, popular, inputs.video_len)
        records = self._entries(record_titles, written, inputs.record_len)
        return [
            InstructionInput(
                task="video" if is_video else "comment",
                videos=videos[b],
                records=records[b],
                watched=watched[b],
                order=order[b],
            )
            for b, is_video in enumerate(inputs.is_video.tolist())
        ]

    def _entries(self, titles: np.ndarray, comments: np.ndarray, length: np.ndarray) -> list[list[Entry]]:
        """The newest entries of every instance, of titles `[B, n]` and comments `[B, n, k]` as text."""
        newest = np.maximum(length - self.instruction_history, 0).tolist()
        rows = zip(titles.tolist(), comments.tolist(), newest, length.tolist(), strict=True)
        return [
            [
                Entry(title, tuple(text for text in texts if text.strip()))
                for title, texts in zip(titles_[begin:end], comments_[begin:end], strict=True)
            ]
            for titles_, comments_, begin, end in rows
        ]

    def _tokens(self, inputs: Sequence[InstructionInput], targets: Sequence[str]) -> dict[str, Tensor]:
        tokenizer = self.instructions.tokenizer
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return joined_tokens(
            self.instructions.instruction(inputs), self.instructions.target(targets), pad=pad, side=self.padding_side
        )


def joined_tokens(
    instructions: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], *, pad: int, side: str
) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask`, `labels` `[B, T]` and `last_instruction` `[B]` of instructions and their targets.

    `pad` may be any id, EOS too: masks and labels go by position.
    """
    given = np.array([len(ids) for ids in instructions], np.int64)  # [B]
    total = given + np.array([len(ids) for ids in targets], np.int64)
    width = int(total.max(initial=0))
    begin = width - total if side == "left" else np.zeros_like(total)
    place = np.arange(width) - begin[:, None]  # [B, T] of a token in its sequence
    inside = (place >= 0) & (place < total[:, None])
    ids = np.full(place.shape, pad, np.int64)
    ids[inside] = list(chain.from_iterable(chain.from_iterable(zip(instructions, targets, strict=True))))
    is_target = inside & (place >= given[:, None])
    return {
        "input_ids": _tensor(ids),
        "attention_mask": _tensor(inside),
        "labels": _tensor(np.where(is_target, ids, IGNORED)),
        "last_instruction": _tensor(begin + given - 1),
    }


class _Texts:
    """The texts of the distinct ids of a batch, and their rows of the text table; id 0 has the empty text."""

    def __init__(self, fetch: Callable[[np.ndarray], list[str]], *ids: np.ndarray) -> None:
        self.ids = np.unique(np.concatenate([[0], *ids], axis=None))
        self._texts = np.array(fetch(self.ids), object)
        self._rows = np.zeros(len(self.ids), np.int64)

    def enter(self, table: dict[str, int], ids: np.ndarray) -> None:
        """Give the texts of `ids` rows of `table`, which takes up what it does not hold; row 0 is that of no text."""
        for place in np.unique(np.searchsorted(self.ids, ids)):
            text = self._texts[place]
            if text.strip():
                self._rows[place] = table.setdefault(text, len(table) + 1)

    def rows(self, ids: np.ndarray) -> NDArray[np.int64]:
        """The rows of `ids`, in their shape."""
        return self._rows[np.searchsorted(self.ids, ids)]

    def of(self, ids: np.ndarray) -> NDArray[np.object_]:
        """The texts of `ids`, in their shape."""
        return self._texts[np.searchsorted(self.ids, ids)]


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _scattered(values: np.ndarray, row: np.ndarray, step: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    padded = np.zeros(shape, values.dtype)
    padded[row, step] = values
    return padded


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
