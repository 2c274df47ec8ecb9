"""The comment task on an `SRModel`: indices and text tables in, scores and losses out (Eq. 9, 17-19). Pure PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_lsvcr.model.layers import table_rows
from recbole_lsvcr.model.losses import TEMPERATURE, Steps, normalize
from recbole_lsvcr.model.objective import Losses, Objective
from recbole_lsvcr.model.sr import SRModel
from recbole_lsvcr.model.streams import SRBatch, TextVectors, gather_projected, history_streams


@dataclass(frozen=True)
class CommentOutput:
    """What one forward pass of the comment task knows."""

    preference: Tensor  # s^c [B, d]
    steps: tuple[Steps, ...]  # of the video and of the comment stream, for L_REG; () without ids


def comment_forward(
    model: SRModel, batch: SRBatch, watched: Tensor, titles: TextVectors, comments: TextVectors
) -> CommentOutput:
    """Preference vectors of a batch under the videos `watched` int64 [B] (Eq. 9).

    `titles` and `comments` are text vectors by video and by comment id; each distinct one is projected once.
    """
    batch = batch.trimmed()
    projected, (video_titles, record_titles, watched_titles) = gather_projected(
        model.embed_text, titles, batch.video_items, batch.record_items, watched
    )
    ids = None if model.id_embedding is None else model.id_table()
    videos, records, steps = history_streams(
        model, batch, model.merge_title(projected), comments, ids, (video_titles, record_titles)
    )
    query = model.with_ids(table_rows(projected, watched_titles), None if ids is None else table_rows(ids, watched))
    return CommentOutput(model.comment_preference(videos, records, query), steps)


def comment_scores(
    model: SRModel, preference: Tensor, candidates: Tensor, comments: TextVectors, temperature: float = TEMPERATURE
) -> Tensor:
    """cos/τ [B, C] of `preference` [B, d] and the comments `candidates` int64 [B, C]; 0 where there is no text."""
    embedded, (places,) = gather_projected(model.embed_text, comments, candidates)
    query = normalize(preference) / temperature
    return (table_rows(normalize(embedded), places) @ query.unsqueeze(2)).squeeze(2)


def ranking_loss(scores: Tensor, candidates: Tensor) -> Tensor:
    """Cross-entropy of the positive, column 0, among the candidates int64 [B, C] that are there (not 0): a scalar.

    A row without any negative has a loss of 0.
    """
    logits = scores.masked_fill(candidates == 0, -torch.inf)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


@dataclass(frozen=True, kw_only=True)
class CommentObjective(Objective):
    """Eq. 19 for the comment task: the softmax over a positive and its sampled negatives, and η L_REG."""

    def __call__(
        self,
        model: SRModel,
        batch: SRBatch,
        watched: Tensor,
        candidates: Tensor,
        titles: TextVectors,
        comments: TextVectors,
        generator: torch.Generator | None = None,
    ) -> Losses:
        """Losses of a batch. `candidates` int64 [B, 1 + K]: the positive first, 0-padded; `watched`, `titles` and
        `comments` as for `comment_forward`; `generator` (CPU) draws L_REG's negatives."""
        self.check(model)
        output = comment_forward(model, batch, watched, titles, comments)
        scores = comment_scores(model, output.preference, candidates, comments, self.temperature)
        return self.losses(ranking_loss(scores, candidates), output.steps, generator)
