"""The video task on an `SRModel`: indices and text tables in, scores and losses out (Eq. 17-19). Pure PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.model.layers import table_rows
from recbole_lsvcr.model.losses import TEMPERATURE, Steps, cosine_logits, id_text_regularization, info_nce
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


@dataclass(frozen=True)
class VideoOutput:
    """What one forward pass of the video task knows."""

    preference: Tensor  # s [B, d]
    streams: tuple[Steps, ...]  # steps of the video and of the comment stream for L_REG; () without ids


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


def video_forward(model: SRModel, batch: SRBatch, titles: Tensor, comments: TextVectors) -> VideoOutput:
    """Preference vectors of a batch.

    `titles` [n_items, d] are the PROJECTED titles (`model.embed_text`, once per step or once per evaluation);
    `comments` the comments' text vectors.
    """
    batch = batch.trimmed()
    comment_part, (popular, written) = gather_projected(
        model.embed_comment_parts, comments, batch.video_comments, batch.record_comments
    )
    title_part = model.merge_title(titles)
    mean = F.embedding_bag(written.flatten(0, 1), comment_part, mode="mean", padding_idx=0)
    video_text = table_rows(title_part, batch.video_items) + table_rows(comment_part, popular)
    record_text = table_rows(title_part, batch.record_items) + mean.view(*batch.record_items.shape, -1)
    video_ids = record_ids = None
    streams: tuple[Steps, ...] = ()
    if model.id_embedding is not None:
        table = model.id_table()
        video_ids, record_ids = table_rows(table, batch.video_items), table_rows(table, batch.record_items)
        streams = (
            Steps(video_ids, video_text, batch.video_items, _exists(batch.video_items, batch.video_len)),
            Steps(record_ids, record_text, batch.record_items, _exists(batch.record_items, batch.record_len)),
        )
    preference = model.video_preference(
        StreamInput(video_text, batch.video_len, video_ids), StreamInput(record_text, batch.record_len, record_ids)
    )
    return VideoOutput(preference, streams)


def _exists(items: Tensor, length: Tensor) -> Tensor:
    return torch.arange(items.shape[1], device=items.device) < length.unsqueeze(1)


def video_scores(preference: Tensor, candidates: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """cos/τ [B, n_items] of `preference` [B, d] and `model.video_candidates(titles)`; column 0 is padding."""
    return cosine_logits(preference, candidates, temperature)


@dataclass(frozen=True)
class VideoLosses:
    """Scalars of one step: `total` is `ranking + η · regularization`."""

    total: Tensor
    ranking: Tensor  # L_VRT
    regularization: Tensor | None  # L_REG; None when η is 0


@dataclass(frozen=True, kw_only=True)
class VideoObjective:
    """Eq. 19 for the video task: L_VRT + η L_REG.

    regularization: η; 0 leaves L_REG out, as a model without ids demands.
    train_candidates: whether the softmax offers "all" videos or those in `model.seen` only.
    """

    temperature: float = TEMPERATURE
    regularization: float = 0.1
    negatives: int = 99
    train_candidates: Literal["all", "seen"] = "all"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature} is not accepted: give a number above 0.")
        if not self.regularization >= 0:
            raise ConfigError(f"regularization={self.regularization} is not accepted: give a number of at least 0.")
        if self.negatives < 1:
            raise ConfigError(f"negatives={self.negatives} is not accepted: give a number of at least 1.")
        if self.train_candidates not in ("all", "seen"):
            raise ConfigError(f"train_candidates={self.train_candidates!r} is unknown: give all or seen.")

    def __call__(
        self,
        model: SRModel,
        batch: SRBatch,
        titles: Tensor,
        comments: TextVectors,
        generator: torch.Generator | None = None,
    ) -> VideoLosses:
        """Losses of a batch with targets. `titles` [n_items, table_size] are text vectors, projected once here;
        `generator` (CPU) draws L_REG's negatives."""
        if batch.target is None:
            raise ValueError("A training batch needs `target`.")
        if model.id_embedding is None and (self.regularization or self.train_candidates == "seen"):
            raise ConfigError("A model without video ids takes regularization=0 and train_candidates='all' only.")
        projected = model.embed_text(titles)
        output = video_forward(model, batch, projected, comments)
        # Padding, id 0, is no candidate: it is cut off, and the targets move down by one.
        ranking = info_nce(
            output.preference,
            model.video_candidates(projected)[1:],
            batch.target - 1,
            temperature=self.temperature,
            mask=model.seen[1:] if self.train_candidates == "seen" else None,
        )
        if not self.regularization:
            return VideoLosses(ranking, ranking, None)
        regularization = id_text_regularization(
            output.streams, negatives=self.negatives, temperature=self.temperature, generator=generator
        )
        return VideoLosses(ranking + self.regularization * regularization, ranking, regularization)
