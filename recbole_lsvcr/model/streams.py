"""Batches as ids, and the two input streams made of them: what both tasks' models read. Pure PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_lsvcr.model.layers import table_rows
from recbole_lsvcr.model.losses import Steps
from recbole_lsvcr.model.sr import SRModel, StreamInput

# Text vectors by id, row 0 zero: a tensor [T, table_size], or a function that reads rows of a memory map.
TextVectors = Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SRBatch:
    """One batch of instances as int64 ids, oldest first, 0-padded on the right."""

    video_items: Tensor  # [B, n]
    video_comments: Tensor  # [B, n], one popular comment each (0: none)
    video_len: Tensor  # [B]
    record_items: Tensor  # [B, m]
    record_comments: Tensor  # [B, m, K]
    record_len: Tensor  # [B]
    target: Tensor | None = None  # [B]; None outside training

    def trimmed(self) -> SRBatch:
        """Without the columns that are padding in every row (one column is kept)."""
        n = max(int(self.video_len.max()), 1)
        m = max(int(self.record_len.max()), 1)
        if n == self.video_items.shape[1] and m == self.record_items.shape[1]:
            return self
        return replace(
            self,
            video_items=self.video_items[:, :n],
            video_comments=self.video_comments[:, :n],
            record_items=self.record_items[:, :m],
            record_comments=self.record_comments[:, :m],
        )


def gather_projected(
    embed: Callable[[Tensor], Tensor], vectors: TextVectors, *indices: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Embeds each text once: (embedded rows [U, d], `indices` pointing into them). Row 0 stays the zero vector.

    `embed` is a method of the model, `embed_text` or `embed_comment_parts`. A tensor with fewer rows than there are
    indices is embedded whole; otherwise only the distinct rows are read.
    """
    if isinstance(vectors, Tensor) and len(vectors) <= sum(index.numel() for index in indices):
        return embed(vectors), indices
    padding = indices[0].new_zeros(1)  # sorts first, so that 0 keeps meaning padding
    distinct, places = torch.unique(torch.cat([padding, *(i.flatten() for i in indices)]), return_inverse=True)
    rows = vectors.index_select(0, distinct) if isinstance(vectors, Tensor) else vectors(distinct)
    parts = places[1:].split([index.numel() for index in indices])
    return embed(rows), tuple(part.view_as(index) for part, index in zip(parts, indices, strict=True))


class Histories(NamedTuple):
    """The inputs of both streams, and their steps for L_REG (none without ids)."""

    videos: StreamInput
    records: StreamInput
    steps: tuple[Steps, ...]


def history_streams(
    model: SRModel,
    batch: SRBatch,
    title_part: Tensor,
    comments: TextVectors,
    ids: Tensor | None,
    title_rows: tuple[Tensor, Tensor] | None = None,
) -> Histories:
    """The streams of a trimmed batch (Eq. 2 and, with ids, 18).

    `title_part` [T, d] are `model.merge_title`'s parts of titles; `title_rows` (shaped as `batch.video_items` and
    `.record_items`) say which is whose, None: the video ids do. `comments` are the comments' text vectors; `ids`
    [n_items, d] is `model.id_table()` or None.
    """
    video_titles, record_titles = title_rows or (batch.video_items, batch.record_items)
    comment_part, (popular, written) = gather_projected(
        model.embed_comment_parts, comments, batch.video_comments, batch.record_comments
    )
    mean = F.embedding_bag(written.flatten(0, 1), comment_part, mode="mean", padding_idx=0)
    video_text = table_rows(title_part, video_titles) + table_rows(comment_part, popular)
    record_text = table_rows(title_part, record_titles) + mean.view(*batch.record_items.shape, -1)
    if ids is None:
        return Histories(StreamInput(video_text, batch.video_len), StreamInput(record_text, batch.record_len), ())
    video_ids, record_ids = table_rows(ids, batch.video_items), table_rows(ids, batch.record_items)
    return Histories(
        StreamInput(video_text, batch.video_len, video_ids),
        StreamInput(record_text, batch.record_len, record_ids),
        (
            Steps(video_ids, video_text, batch.video_items, _exists(batch.video_items, batch.video_len)),
            Steps(record_ids, record_text, batch.record_items, _exists(batch.record_items, batch.record_len)),
        ),
    )


def _exists(items: Tensor, length: Tensor) -> Tensor:
    return torch.arange(items.shape[1], device=items.device) < length.unsqueeze(1)
