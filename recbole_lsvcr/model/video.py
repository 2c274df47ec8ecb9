"""The video task on an `SRModel`: indices and text tables in, scores and losses out (Eq. 17-19). Pure PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.model.losses import TEMPERATURE, Steps, cosine_logits, info_nce
from recbole_lsvcr.model.objective import Losses, Objective
from recbole_lsvcr.model.sr import SRModel
from recbole_lsvcr.model.streams import SRBatch, TextVectors, history_streams


@dataclass(frozen=True)
class VideoOutput:
    """What one forward pass of the video task knows."""

    preference: Tensor  # s [B, d]
    streams: tuple[Steps, ...]  # steps of the video and of the comment stream for L_REG; () without ids


def video_forward(model: SRModel, batch: SRBatch, titles: Tensor, comments: TextVectors) -> VideoOutput:
    """Preference vectors of a batch.

    `titles` [n_items, d] are the PROJECTED titles (`model.embed_text`, once per step or once per evaluation);
    `comments` the comments' text vectors.
    """
    ids = None if model.id_embedding is None else model.id_table()
    videos, records, steps = history_streams(model, batch.trimmed(), model.merge_title(titles), comments, ids)
    return VideoOutput(model.video_preference(videos, records), steps)


def video_scores(preference: Tensor, candidates: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """cos/τ [B, n_items] of `preference` [B, d] and `model.video_candidates(titles)`; column 0 is padding."""
    return cosine_logits(preference, candidates, temperature)


@dataclass(frozen=True, kw_only=True)
class VideoObjective(Objective):
    """Eq. 19 for the video task: L_VRT + η L_REG.

    train_candidates: whether the softmax offers "all" videos or those in `model.seen` only.
    """

    train_candidates: Literal["all", "seen"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_candidates not in ("all", "seen"):
            raise ConfigError(f"train_candidates={self.train_candidates!r} is unknown: give all or seen.")

    def check(self, model: SRModel) -> None:
        super().check(model)
        if model.id_embedding is None and self.train_candidates == "seen":
            raise ConfigError("A model without video ids takes train_candidates='all' only.")

    def __call__(
        self,
        model: SRModel,
        batch: SRBatch,
        titles: Tensor,
        comments: TextVectors,
        generator: torch.Generator | None = None,
    ) -> Losses:
        """Losses of a batch with targets. `titles` [n_items, table_size] are text vectors, projected once here;
        `generator` (CPU) draws L_REG's negatives."""
        if batch.target is None:
            raise ValueError("A training batch needs `target`.")
        self.check(model)
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
        return self.losses(ranking, output.streams, generator)
